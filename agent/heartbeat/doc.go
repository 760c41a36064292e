// SPDX-License-Identifier: Apache-2.0

// Package heartbeat is the machine that judges one session between a conmgr
// and a pgwatchdog. It is pure: no goroutine, socket, clock or logger. A driver
// (agent/peer) feeds it frames, transport events and the present instant, and
// carries out what it collects in an [Output]. Everything it does can be
// replayed from a list of calls.
//
// # Two roles
//
// The Active end (conmgr) owns the relation to one instance for as long as
// conmgr runs: it dials, shakes hands, and survives a broken transport until
// the deadline. The Passive end (watchdog) is made by a HELLO and ends with its
// transport; whether a client is gone is decided by the watchdog's policy from
// several such ends.
//
// # States
//
//	                 open                    armed
//	  Down ------------------------> Init ---------------> Up <----------+
//	   ^                              |                   |  |    heard   |
//	   |  refused, no answer,         |     late, broken* |  | own pause, |
//	   |  broken, bye                 |                   v  v fuse, hint |
//	   |<-----------------------------+               Late   Suspect -----+
//	   |                                                |  <->  |
//	   |   verdict: timeout, disconnect**, peer gave up,|       |
//	   |   bye; without one: own stop, replaced**       |       |
//	   +<-----------------------------------------------+-------+   (and from Up)
//
//	*  Active only: the relation lives on and dials again until the deadline.
//	** Passive only.
//
// Up, Late and Suspect are the armed states: valid beats have passed both ways.
// Only leaving an armed state is a verdict ([Change.Verdict]); a session that
// never was armed accuses nobody, and an end that leaves by itself (Stop,
// Replace) says nothing about the peer.
//
// All arrows with their reasons; ! marks a verdict:
//
//	Down -> Init      opened
//	Init -> Up        armed
//	Init -> Down      refused, no answer, disconnect, peer gave up, bye, own stop, replaced
//	Up -> Late        late, disconnect, replaced
//	Up -> Suspect     own pause, link hint
//	Late -> Suspect   own pause, fuse, link hint
//	Suspect -> Late   link up
//	Late -> Up        heard
//	Suspect -> Up     heard
//	Up -> Down !      timeout, disconnect, peer gave up, bye
//	Late -> Down !    timeout, disconnect, peer gave up, bye
//	Suspect -> Down ! timeout, link down, disconnect, peer gave up, bye
//	Up -> Down        own stop, replaced
//	Late -> Down      own stop, replaced
//	Suspect -> Down   own stop, replaced
//
// # Rules
//
//   - Each end sends a beat every interval on an absolute schedule, and at once
//     when its state changes.
//   - The verdict falls at last valid frame + timeout, exactly. Every valid
//     frame moves that deadline; a probe, a redial or a refusal does not.
//   - Late after 1.25 intervals (or 5/8 of a timeout that is shorter than two
//     intervals): probes every interval/8, at least 5 ms and at most 250 ms
//     apart; the last one leaves a round trip before the deadline. A probe is
//     answered at once, at most once per 2 ms.
//   - Datagrams: HELLO is repeated at the pace of the probes: a client that has to
//     be back within one timeout cannot wait an interval for each lost frame.
//   - Datagrams: a watchdog that was restarted has no transport that could break.
//     Its host answers beats of no session with a REFUSE; a silent conmgr that
//     gets one dials at once, before the deadline.
//   - A watchdog that has ended the client's database sessions says so in the next
//     WELCOME: an Active end that is armed still, because it was frozen and cut off
//     meanwhile, gives its verdict then. Closing their sockets was told to nobody.
//   - Link hint: the kernel says that the link to the peer is lost (agent/linkhint).
//     Suspect, probe at once; with nothing heard within the grace the session ends,
//     reason link down. A valid frame or the link's return ends the grace.
//   - Own pause: when the driver ran late by more than a quarter of the timeout,
//     nobody is judged for that silence. Suspect, probe at once, and one full
//     timeout from now.
//   - Fuse (Passive, see [FuseBlows]): one more timeout, once per silence.
//
// # The driver's order in one pass
//
//  1. read the clock; tell all machines how late this pass is (Paused)
//  2. read every readable input to its end (Receive, Connected, Broken)
//  3. weigh the fuse, then Tick every machine whose Next has come
//  4. send, dial and close what the Outputs ask for, then sleep until the
//     earliest Next
//
// Step 2 may hand frames over with the instant at which each was read, later
// than the one by which step 3 judges.
package heartbeat
