// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"errors"
	"fmt"
	"syscall"
)

// What errors of this package are, for errors.Is.
var (
	// ErrNotSupported: the kernel cannot do it. A dump needs CONFIG_INET_DIAG and
	// its TCP part (the module tcp_diag), the kill CONFIG_INET_DIAG_DESTROY.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrNotPermitted: CAP_NET_ADMIN is missing.
	ErrNotPermitted = errors.New("CAP_NET_ADMIN is missing")
	// ErrRefused: this package does not destroy such a socket.
	ErrRefused = errors.New("refused")
	// ErrFilter: the filter cannot be what the caller means.
	ErrFilter = errors.New("bad filter")
	// ErrMalformed: the kernel's answer is not what inet_diag.h describes.
	ErrMalformed = errors.New("malformed answer")
	// ErrTooMany: more sockets match than one answer may hold.
	ErrTooMany = errors.New("too many sockets")
	// ErrBroken: an earlier exchange ended in the middle, so answers can no longer
	// be told apart. Close the Conn and dial again.
	ErrBroken = errors.New("connection to the kernel is out of step")
)

// OpError is an operation that the kernel refused or that could not be asked
// for.
type OpError struct {
	Op     string // "dial", "dump" or "destroy"
	Object string // the socket or the namespace; can be empty
	// Kind is one of this package's errors, nil when none fits.
	Kind error
	// Err is the cause, usually a [syscall.Errno]; can be nil with a Kind.
	Err error
}

// Error says operation, object, cause and what it means.
func (e *OpError) Error() string {
	text := e.Op
	if e.Object != "" {
		text += " " + e.Object
	}
	switch {
	case e.Kind == nil:
		return fmt.Sprintf("%s: %v", text, e.Err)
	case e.Err == nil:
		return fmt.Sprintf("%s: %v", text, e.Kind)
	}
	return fmt.Sprintf("%s: %v: %v", text, e.Kind, e.Err)
}

// Unwrap returns the kind and the cause.
func (e *OpError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// dumpError gives the answer to a dump its meaning. A dump does not look for a
// socket, so ENOENT is about the kernel: nobody answers for TCP
// (inet_diag_lock_handler), because the module is missing.
func dumpError(err error) error {
	var kind error
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EOPNOTSUPP),
		errors.Is(err, syscall.EPROTONOSUPPORT):
		kind = ErrNotSupported
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		kind = ErrNotPermitted
	}
	return &OpError{Op: "dump", Kind: kind, Err: err}
}
