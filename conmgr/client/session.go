// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// What the console of conmgr is like; see the package comment of conmgr.
const (
	consoleDatabase = "conmgr"
	faultChannel    = "conmgr_fault"
	codeNoInstance  = "58C01"
	reasonRestart   = "restart"
	maxMessage      = 64 << 10
)

// session is one session of a console. One goroutine at a time may use it, and
// close it any.
type session struct {
	conn net.Conn
	in   *bufio.Reader // small: it waits for one message for hours
}

// openSession starts a session on a connection, which it owns from then on, and
// asks for a target in the same breath.
func openSession(ctx context.Context, conn net.Conn, user, application, target string) (*session, []Instance, error) {
	s := &session{conn: conn, in: newReader(conn)}
	startup, err := (&pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersion30,
		Parameters:      map[string]string{"user": user, "database": consoleDatabase, "application_name": application},
	}).Encode(nil)
	if err == nil {
		var list []Instance
		if list, err = s.ask(ctx, startup, "TARGET "+target, 2); err == nil {
			return s, list, nil
		}
	}
	s.close()
	return nil, nil, err
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 1024) }

// bindTo binds the session to the instance with a number.
func (s *session) bindTo(ctx context.Context, target string, number int) error {
	_, err := s.ask(ctx, nil, "TARGET "+target+" INSTANCE "+strconv.Itoa(number), 1)
	return err
}

func (s *session) close() { _ = s.conn.Close() }

// ask sends a query behind what is given and returns the rows of its answer,
// which ends with the given ReadyForQuery.
func (s *session) ask(ctx context.Context, before []byte, query string, ready int) ([]Instance, error) {
	message, err := (&pgproto3.Query{String: query}).Encode(before)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	list, err := s.exchange(message, ready)
	if !stop() { // the deadline was or is being set: the session is of no use
		return nil, fmt.Errorf("conmgr does not answer: %w", context.Cause(ctx))
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("conmgr closed the session without an answer; is its max_connections reached?")
	}
	return list, err
}

func (s *session) exchange(message []byte, ready int) ([]Instance, error) {
	if _, err := s.conn.Write(message); err != nil {
		return nil, err
	}
	var list []Instance
	for {
		kind, body, err := s.receive()
		if err != nil {
			return nil, err
		}
		switch kind {
		case 'R':
			if len(body) != 4 || binary.BigEndian.Uint32(body) != 0 {
				return nil, errors.New("conmgr asks for authentication: this is no console")
			}
		case 'D':
			in, err := readRow(body)
			if err != nil {
				return nil, err
			}
			list = append(list, in)
		case 'A':
			return nil, errors.New("the instance was lost meanwhile")
		case 'E':
			return nil, readError(body)
		case 'Z':
			if ready--; ready == 0 {
				return list, nil
			}
		}
	}
}

// receive reads one message.
func (s *session) receive() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > maxMessage {
		return 0, nil, fmt.Errorf("message %q of conmgr has length %d", head[0], n)
	}
	body = make([]byte, n-4)
	if _, err = io.ReadFull(s.in, body); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return head[0], body, err
}

// readRow reads number, host, hostaddr, port and attribute. More may follow in
// later versions.
func readRow(body []byte) (in Instance, err error) {
	var row pgproto3.DataRow
	if err := row.Decode(body); err != nil || len(row.Values) < 5 {
		return in, errors.New("conmgr answers TARGET with an unknown row")
	}
	in.Number, err = strconv.Atoi(string(row.Values[0]))
	port, portErr := strconv.ParseUint(string(row.Values[3]), 10, 16)
	if err := errors.Join(err, portErr); err != nil {
		return in, fmt.Errorf("row of conmgr: %w", err)
	}
	in.Host, in.HostAddr, in.Port = string(row.Values[1]), string(row.Values[2]), uint16(port)
	in.Attribute = string(row.Values[4])
	return in, nil
}

// readError makes an error of an ErrorResponse.
func readError(body []byte) error {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return fmt.Errorf("error of conmgr: %w", err)
	}
	if m.Code == codeNoInstance {
		return fmt.Errorf("%w: %s", ErrNoInstance, m.Message)
	}
	return fmt.Errorf("conmgr: %w", pgconn.ErrorResponseToPgError(&m))
}

// notice is why a session ended.
type notice struct {
	conmgr  bool // conmgr itself ended, or the session was lost
	reason  string
	silence time.Duration
}

// wait returns when the session is told a fault, or ends.
func (s *session) wait() notice {
	for {
		kind, body, err := s.receive()
		switch {
		case err != nil:
			return notice{conmgr: true, reason: "it ended without a word"}
		case kind == 'A':
			if n, ok := readNotice(body); ok {
				return n
			}
		case kind == 'E':
			return notice{conmgr: true, reason: readError(body).Error()}
		}
	}
}

// readNotice reads a notification; false means it is not about a fault.
func readNotice(body []byte) (notice, bool) {
	var m pgproto3.NotificationResponse
	if m.Decode(body) != nil || m.Channel != faultChannel {
		return notice{}, false
	}
	var p struct {
		Instance  *int   `json:"instance"`
		Reason    string `json:"reason"`
		SilenceMS int64  `json:"silence_ms"`
	}
	if err := json.Unmarshal([]byte(m.Payload), &p); err != nil {
		return notice{reason: "it told a fault that cannot be read"}, true
	}
	if p.Reason == "" {
		p.Reason = "it gave no reason"
	}
	return notice{p.Instance == nil, p.Reason, time.Duration(p.SilenceMS) * time.Millisecond}, true
}
