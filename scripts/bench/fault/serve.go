// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
)

// Codes that stand in the place of a protocol version (pqcomm.h).
const (
	sslCode = 1234<<16 | 5679
	gssCode = 1234<<16 | 5680
)

// serving plays the backends of an instance.
type serving struct {
	listener net.Listener
	sessions atomic.Int64
}

func newServing(addr string) (*serving, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &serving{listener: l}
	go s.accept()
	return s, nil
}

// Obey tells with count how many sessions there are.
func (s *serving) Obey(order string, _ int) (string, error) {
	if order != "count" {
		return "", fmt.Errorf("unknown order %q", order)
	}
	return fmt.Sprint(s.sessions.Load()), nil
}

func (s *serving) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go s.serve(conn)
	}
}

// serve greets a session and answers its queries with nothing.
func (s *serving) serve(conn net.Conn) {
	defer conn.Close()
	if start(conn) != nil {
		return
	}
	s.sessions.Add(1)
	defer s.sessions.Add(-1)
	in := bufio.NewReaderSize(conn, 64)
	var head [5]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		if _, err := in.Discard(int(binary.BigEndian.Uint32(head[1:])) - 4); err != nil {
			return
		}
		// EmptyQueryResponse, ReadyForQuery
		if _, err := conn.Write([]byte("I\x00\x00\x00\x04Z\x00\x00\x00\x05I")); err != nil {
			return
		}
	}
}

// start declines encryption and opens a session: AuthenticationOk, BackendKeyData,
// ReadyForQuery.
func start(conn net.Conn) error {
	for {
		var head [8]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return err
		}
		length, code := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
		if code == sslCode || code == gssCode {
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return err
			}
			continue
		}
		if length < 8 || length > 10_000 {
			return errors.New("no startup packet")
		}
		if _, err := io.CopyN(io.Discard, conn, int64(length)-8); err != nil {
			return err
		}
		_, err := conn.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00K\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x02Z\x00\x00\x00\x05I"))
		return err
	}
}
