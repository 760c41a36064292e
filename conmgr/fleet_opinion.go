// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// DoorOutcome is what an instance's own port said to an SSLRequest.
type DoorOutcome uint8

// Outcomes of a door check.
const (
	DoorNoAnswer DoorOutcome = iota // nothing by the deadline, or no way to the host
	DoorRefused                     // its kernel lives, no postmaster listens
	DoorAnswers                     // one byte came back: a postmaster takes connections
)

// String returns the outcome in lower case.
func (o DoorOutcome) String() string {
	switch o {
	case DoorRefused:
		return "refused"
	case DoorAnswers:
		return "answers"
	}
	return "no answer"
}

// DoorResult is the outcome of one question at the door.
type DoorResult struct {
	Asked   mono.Instant // when the question began
	Outcome DoorOutcome
}

// missesOfLivingHost is how many doors in a row must stay silent before an
// unmonitored instance is faulted while its host's kernel lives: one slow fork
// on a loaded machine is not a death. It is the watchdog's own measure for
// unresponsive. When the kernel is silent too, one is enough.
const missesOfLivingHost = 2

// jitterShare is by how much of itself the pause between two doors is
// stretched at most, so that many conmgrs do not knock together.
const jitterShare = 0.2

// opinion is the second opinion on one instance: when its door is asked and
// what is known from it and from its host's kernel. An episode is one reason to
// doubt: a silence, an agent's farewell, a kernel that went silent. Its first
// question is exempt from the distance between two questions when the episode is
// a doubt that has a deadline; one that an agent brings about by what it says is
// not, so that no agent can make conmgr knock more often.
type opinion struct {
	due    mono.Instant // the next question; Never for none
	exempt bool         // the episode's first question is still to come

	asked     mono.Instant // the latest question; zero for never
	notBefore mono.Instant // no question before, but an episode's first
	open      bool         // the latest question has no outcome yet

	answered mono.Instant // when the question of outcome was asked; zero for no outcome
	outcome  DoorOutcome
	misses   int // questions without answer in a row

	life   mono.Instant // newest sign of life of the host's kernel
	silent bool         // the kernel gave none for a whole timeout
}

// begin opens an episode whose first question is due at the instant due.
func (o *opinion) begin(due mono.Instant) {
	o.due, o.exempt = due, true
	o.open, o.answered, o.misses, o.silent = false, 0, 0, false
}

// beginAtLeisure opens an episode whose first question keeps its distance.
func (o *opinion) beginAtLeisure(now mono.Instant) {
	o.begin(mono.Never)
	o.exempt = false
	o.lives(now)
	o.want(now)
}

// end closes the episode: nothing is asked any more.
func (o *opinion) end() { o.due, o.exempt, o.open = mono.Never, false, false }

// want asks for a question at the instant at, or as soon after it as the
// distance allows.
func (o *opinion) want(at mono.Instant) {
	if !o.exempt && at.Before(o.notBefore) {
		at = o.notBefore
	}
	o.due = o.due.Min(at)
}

// ask notes a question at now; the next one is due after pause.
func (o *opinion) ask(now mono.Instant, pause time.Duration) {
	o.asked, o.open, o.exempt = now, true, false
	o.notBefore = now.Add(pause)
	o.due = o.notBefore
}

// lives notes a sign of life of the host's kernel.
func (o *opinion) lives(at mono.Instant) { o.life = max(o.life, at) }

// take notes an outcome and reports whether it counts: that of a superseded
// question and a second "no answer" do not.
func (o *opinion) take(r DoorResult) bool {
	if r.Asked.Before(o.asked) || o.asked.IsZero() {
		return false
	}
	if !o.open && r.Outcome == DoorNoAnswer {
		return false
	}
	o.open, o.outcome, o.answered = false, r.Outcome, r.Asked
	if r.Outcome == DoorNoAnswer {
		o.misses++
		return true
	}
	o.misses = 0
	o.lives(r.Asked)
	return true
}

// hopeless reports whether the questions that went unanswered are enough to
// give up an unmonitored instance.
func (o *opinion) hopeless() bool {
	return o.misses >= missesOfLivingHost || o.silent && o.misses > 0
}

// forgive drops what the silence during an own pause seemed to say.
func (o *opinion) forgive(now mono.Instant) {
	o.lives(now)
	o.open = false
}

// next is when the opinion wants to be looked at: the question that is due, or
// the deadline of the open one.
func (o *opinion) next(doorTimeout time.Duration) mono.Instant {
	if o.open {
		return o.due.Min(o.asked.Add(doorTimeout))
	}
	return o.due
}
