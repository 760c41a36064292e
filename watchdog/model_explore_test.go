// SPDX-License-Identifier: Apache-2.0

package watchdog

import "slices"

// explorer visits all states that can be reached within the bounds, depth first.
type explorer struct {
	p           *modelParams
	seen        map[stateKey]struct{}
	settled     map[stateKey]int // see settle
	buf         []byte
	path        []int // the adversary's choices
	transitions int
	slowest     int // calm steps to agreement, of the slowest state
	failure     string
}

func explore(p *modelParams) *explorer {
	p.prepare()
	x := &explorer{p: p, seen: map[stateKey]struct{}{}, settled: map[stateKey]int{}}
	x.visit(newModel(p))
	return x
}

// visit runs s, which it owns, to the adversary's next choice and tries all of
// them.
func (x *explorer) visit(s *modelState) {
	for s.failure == "" && s.forced() {
		s.proceed()
		x.transitions++
	}
	if x.failed(s) {
		return
	}
	var key stateKey
	key, x.buf = s.key(true, x.buf)
	if _, ok := x.seen[key]; ok {
		return
	}
	x.seen[key] = struct{}{}
	if s.phase == 0 && len(s.fresh) == 0 && x.settle(s.clone()) {
		return
	}
	if s.budget == 0 {
		return // settle has gone all the rest of the way
	}
	for i, f := range s.faults() {
		next := s.clone()
		x.path = append(x.path, i)
		next.choose(i, f)
		x.transitions++
		x.visit(next)
		if x.failure != "" {
			return // with the path to it
		}
		x.path = x.path[:len(x.path)-1]
	}
}

func (x *explorer) failed(s *modelState) bool {
	if s.failure != "" && x.failure == "" {
		x.failure = s.failure
	}
	return x.failure != ""
}

// calmBound is property (b) in steps: once no fault is at work any more, both
// ends agree after a timeout at most (one end may hold on to what the other has
// given up), a dial that leads nowhere, the pause before the next, and the
// step in which it happens.
const calmBound = int((modelTimeout + 2*modelStep + modelStep + modelStep) / modelStep)

// settle runs s, which it owns, without further faults, until what follows is
// known, and reports a failure. x.settled holds for each state on the way 0 when
// both ends agree from there on for ever, else one more than the calm steps until
// then.
func (x *explorer) settle(s *modelState) bool {
	type link struct {
		key          stateKey
		agreed, calm bool
	}
	s.budget = 0
	var chain []link
	at := map[stateKey]int{}
	after := 0
	for {
		var key stateKey
		key, x.buf = s.key(false, x.buf)
		if known, ok := x.settled[key]; ok {
			after = known
			break
		}
		if i, ok := at[key]; ok {
			if slices.ContainsFunc(chain[i:], func(l link) bool { return !l.agreed }) {
				s.fail("the two ends never agree, though nothing is wrong any more")
			}
			break
		}
		at[key] = len(chain)
		chain = append(chain, link{key, s.agreed(), s.quiet()})
		s.choose(0, fault{do: func(*modelState) {}})
		for s.failure == "" && s.forced() {
			s.proceed()
			x.transitions++
		}
		if s.failure != "" {
			break
		}
	}
	for _, l := range slices.Backward(chain) {
		switch {
		case l.agreed && after == 0:
		case l.calm:
			after = max(after, 1) + 1
		default:
			after = max(after, 1)
		}
		x.settled[l.key] = after
		x.slowest = max(x.slowest, after-1)
	}
	if after-1 > calmBound {
		s.fail("the two ends agree only after %d calm steps, expected at most %d", after-1, calmBound)
	}
	return x.failed(s)
}

// replay goes the path to the failure again and returns what happened.
func (x *explorer) replay() []string {
	var lines []string
	s := newModel(x.p)
	s.trace = &lines
	for _, i := range x.path {
		for s.failure == "" && s.forced() {
			s.proceed()
		}
		if s.failure == "" {
			s.choose(i, s.faults()[i])
		}
	}
	for steps := 0; s.failure == "" && steps < 10_000; steps++ {
		if s.forced() {
			s.proceed()
			continue
		}
		s.budget = 0
		if len(lines) > 400 {
			break
		}
		s.choose(0, s.faults()[0])
	}
	return lines
}
