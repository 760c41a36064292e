// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// bpfSource reads what attached programs tell. A goroutine moves it from the ring
// buffer to a channel; when the Watcher does not keep up, the ring buffer fills, and
// the programs count what they had to drop.
type bpfSource struct {
	source  Source
	links   []link.Link
	ring    *ebpf.Map
	reader  *ringbuf.Reader
	dropped *ebpf.Variable // by the programs, ever

	news  chan carrierEvent
	over  chan struct{} // holds at most one
	quit  chan struct{}
	group sync.WaitGroup
}

// openRing takes what reading needs out of the collection.
func (s *bpfSource) openRing(c *ebpf.Collection) (err error) {
	s.ring, s.dropped = c.DetachMap(linkhintMapHints), c.Variables[linkhintVarDropped]
	if s.reader, err = ringbuf.NewReader(s.ring); err != nil {
		return fmt.Errorf("map ring buffer: %w", err)
	}
	return nil
}

func (s *bpfSource) start() {
	s.news, s.over, s.quit = make(chan carrierEvent), make(chan struct{}, 1), make(chan struct{})
	s.group.Go(s.read)
}

func (s *bpfSource) kind() Source                { return s.source }
func (s *bpfSource) events() <-chan carrierEvent { return s.news }
func (s *bpfSource) overrun() <-chan struct{}    { return s.over }

// read ends when the ring buffer is closed, or cannot be read any more: the channel
// of events is closed then.
func (s *bpfSource) read() {
	defer close(s.news)
	var (
		record ringbuf.Record
		known  uint64
	)
	for s.reader.ReadInto(&record) == nil {
		e, err := parseHint(record.RawSample)
		if err != nil { // one that cannot be read is as good as lost
			s.tellOverrun()
			continue
		}
		select {
		case s.news <- e:
		case <-s.quit:
			return
		}
		// Something is dropped only while the buffer is full, and so there is
		// something to read afterwards.
		var dropped uint64
		if record.Remaining == 0 && s.dropped.Get(&dropped) == nil && dropped != known {
			known = dropped
			s.tellOverrun()
		}
	}
}

func (s *bpfSource) tellOverrun() {
	select {
	case s.over <- struct{}{}:
	default: // already to be told
	}
}

// close detaches the programs and ends the goroutine.
func (s *bpfSource) close() error {
	close(s.quit)
	err := s.release()
	s.group.Wait()
	return err
}

// release gives back what is there. Closing the reader ends a read that waits.
func (s *bpfSource) release() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	if s.ring != nil {
		errs = append(errs, s.ring.Close())
	}
	return errors.Join(errs...)
}
