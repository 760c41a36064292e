// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
)

// Links are the metrics of link events that both daemons have: Source has the label
// source, Events source and event, Latency source.
type Links struct {
	Source, Events, Latency *Family
}

// LinkSources are the values of the label source, best first.
var LinkSources = append(Words(linkhint.Rtnetlink), "none", "off")

// Put sets the metrics. source is who tells of lost links now.
func (l Links) Put(s *Sink, source string, f *linkhint.Figures) {
	s.PutState(l.Source, source, LinkSources)
	for from := range f.Events {
		name := linkhint.Source(from).String()
		for kind := linkhint.CarrierLost; kind <= linkhint.Removed; kind++ {
			s.Put(l.Events, float64(f.Events[from][kind]), name, Word(kind.String()))
		}
	}
	for from := range f.Latency {
		s.PutTimes(l.Latency, f.Latency[from], linkhint.Source(from).String())
	}
}

// Words are the names of all values of an enumeration from 0 up to the last one.
func Words[T interface {
	~uint8
	fmt.Stringer
}](last T) (words []string) {
	for v := T(0); v <= last; v++ {
		words = append(words, v.String())
	}
	return words
}
