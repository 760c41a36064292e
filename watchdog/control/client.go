// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/unixsock"
)

// maxSessions bounds what a client takes from a server: as many clients as an agent
// knows at most, and some.
const maxSessions = 1 << 17

var (
	// ErrTorn means that the answer ended before its end: the agent went, or took too
	// long.
	ErrTorn = errors.New("the answer is incomplete")
	// ErrRefused is the agent's own error; nothing was done.
	ErrRefused = errors.New("pgwatchdog refuses")
)

// Reply is what came of a question.
type Reply struct {
	Status   Status
	Sessions []Session // for DoSessions
}

// Ask puts a question to the agent whose state directory is named and waits for the
// answer, until ctx ends. Without an agent the error is [fs.ErrNotExist] (there is no
// socket) or [syscall.ECONNREFUSED] (nobody serves it); [fs.ErrPermission] wants
// another user.
func Ask(ctx context.Context, stateDir string, q Question) (*Reply, error) {
	path := filepath.Join(stateDir, SocketName)
	if len(path) > unixsock.MaxPath {
		return nil, fmt.Errorf("ask %s: a path of %d bytes: expected at most %d", path, len(path), unixsock.MaxPath)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	reply, err := ask(conn, q)
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", path, err)
	}
	return reply, nil
}

// ask writes the question and reads the answer. What cannot be written may have been
// refused before it was read: the answer counts.
func ask(conn io.ReadWriter, q Question) (*Reply, error) {
	line, err := appendLine(nil, q)
	if err != nil {
		return nil, err
	}
	_, wrote := conn.Write(line)
	reply, err := readReply(conn, maxSessions)
	if err != nil && errors.Is(err, ErrTorn) {
		err = errors.Join(err, wrote)
	}
	return reply, err
}

func readReply(from io.Reader, most int) (*Reply, error) {
	in := bufio.NewReaderSize(from, maxAnswer)
	reply := new(Reply)
	known := false
	for len(reply.Sessions) <= most {
		line, err := readLine(in, maxAnswer)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTorn, err)
		}
		a, err := parseAnswer(line)
		switch {
		case err != nil:
			return nil, err
		case a.Error != "":
			return nil, fmt.Errorf("%w: %s", ErrRefused, a.Error)
		case a.End && known:
			return reply, nil
		case a.End:
			return nil, fmt.Errorf("%w: no status in it", ErrTorn)
		case a.Status != nil:
			reply.Status, known = *a.Status, true
		case a.Session != nil:
			reply.Sessions = append(reply.Sessions, *a.Session)
		}
	}
	return nil, fmt.Errorf("an answer with more than %d sessions", most)
}

// readLine reads one line, without its newline. It is valid until the next call.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("a line that is too long: expected at most %d bytes", limit)
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return line[:len(line)-1], nil
}
