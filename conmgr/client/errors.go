// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// What errors.Is recognises.
var (
	// ErrFault is every FaultError: the connection was closed by a fault.
	ErrFault = errors.New("fault told by conmgr")
	// ErrConmgrLost is a FaultError because conmgr ended; of the instance nothing
	// is known.
	ErrConmgrLost = errors.New("conmgr lost")
	// ErrNoInstance means that a conmgr knows no instance that has the attribute
	// at the moment. The text of the error has the state of each.
	ErrNoInstance = errors.New("no instance")
)

// Instance is a PostgreSQL instance as conmgr names it.
type Instance struct {
	Number    int    // N of backend_hostN
	Host      string // backend_hostN; empty when only the address is configured
	HostAddr  string // the address that the heartbeat uses; empty while there is none
	Port      uint16
	Attribute string // primary, standby or unknown, when it was asked for
}

// Name is what certificates and password files call the instance: the host, or
// the address when it stands alone.
func (i Instance) Name() string {
	if i.Host != "" {
		return i.Host
	}
	return i.HostAddr
}

// String returns number, name and port.
func (i Instance) String() string {
	return fmt.Sprintf("%d %s", i.Number, hostPort(i.Name(), i.Port))
}

func hostPort(host string, port uint16) string { return net.JoinHostPort(host, portText(port)) }

func portText(port uint16) string { return strconv.Itoa(int(port)) }

// FaultError closed a connection: conmgr told the fault of its instance, or
// conmgr itself ended. The connection is gone; a new one leads to the instance
// that has the attribute now.
type FaultError struct {
	Conmgr   string        // host:port of the connection string
	Instance Instance      // that the connection was with
	Reason   string        // timeout, link down, role change, stop, ...; see SHOW EVENTS of the console
	Silence  time.Duration // how long the instance's host had been silent, 0 when that says nothing

	conmgrLost bool
}

// Error says what was lost and why.
func (e *FaultError) Error() string {
	if e.conmgrLost {
		return fmt.Sprintf("connection to instance %s closed: conmgr %s is lost: %s", e.Instance, e.Conmgr, e.Reason)
	}
	text := fmt.Sprintf("connection to instance %s closed: conmgr %s: %s", e.Instance, e.Conmgr, e.Reason)
	if e.Silence > 0 {
		text += fmt.Sprintf(", silent for %d ms", e.Silence.Milliseconds())
	}
	return text
}

// Is makes errors.Is recognise ErrFault and ErrConmgrLost.
func (e *FaultError) Is(target error) bool {
	return target == ErrFault || target == ErrConmgrLost && e.conmgrLost
}

// SQLState returns 57P01 (admin_shutdown), which the seed product's drivers
// report. The error wraps no pgconn.PgError: pgx takes that for an answer of a
// server that goes on.
func (e *FaultError) SQLState() string { return "57P01" }
