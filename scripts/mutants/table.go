// SPDX-License-Identifier: Apache-2.0

package main

// mutant is one named bug: Old, which must stand exactly once in File, becomes
// New. Tests are the packages whose tests must notice, each with flags behind it
// if only some of its tests are meant.
type mutant struct {
	Name, File, Old, New string
	Tests                []string
}

var (
	heartbeatTests = []string{"./agent/heartbeat"}
	wireTests      = []string{"./agent/wire"}
	fleetTests     = []string{"./conmgr -run Fleet"}
	routeTests     = []string{"./conmgr -run Route"}
	streamTests    = []string{"./conmgr -run Stream|Gathers"}
	sendsTests     = []string{"./conmgr -run TestSends"}
	docketTests    = []string{"./watchdog -run Docket"}
	admitTests     = []string{"./watchdog -run Admi"}
	coverTests     = []string{"./watchdog -run Cover|Cut|Choose"}
	socketTests    = []string{"./watchdog -run Weigh|LookStates|Fate|Reach|TestSockets[DLNS]"}
	joinTests      = []string{"./watchdog -run TerminatorOrder|TerminatorNamesAll|TerminatorAlive|TerminatorSpares|TerminatorSocketsAgain|TerminatorJoin|TerminatorWaits"}
	keyTests       = []string{"./agent/key/..."}
	simTests       = []string{"./agent/heartbeat -run Sim"}
	modelTests     = []string{"./watchdog -run Model"}
)

const (
	hbFuse      = "agent/heartbeat/fuse.go"
	hbMachine   = "agent/heartbeat/machine.go"
	hbOutput    = "agent/heartbeat/output.go"
	hbHint      = "agent/heartbeat/hint.go"
	hbProbe     = "agent/heartbeat/probe.go"
	hbReceive   = "agent/heartbeat/receive.go"
	hbSend      = "agent/heartbeat/send.go"
	hbState     = "agent/heartbeat/state.go"
	hbTransport = "agent/heartbeat/transport.go"
	fleetStates = "conmgr/fleet_states.go"
	fleetReport = "conmgr/fleet_report.go"
	fleetSplit  = "conmgr/fleet_split.go"
	route       = "conmgr/route.go"
	relaySends  = "conmgr/relay_sends.go"
	relayPair   = "conmgr/relay_pair.go"
	relayStream = "conmgr/relay_stream.go"
	docket      = "watchdog/docket.go"
	docketJudge = "watchdog/docket_judge.go"
	docketRules = "watchdog/docket_policy.go"
	admission   = "watchdog/admission.go"
	cover       = "watchdog/terminator_cover.go"
	evidence    = "watchdog/terminator_evidence.go"
	reach       = "watchdog/terminator_scope.go"
	peerSockets = "watchdog/terminator_sockets.go"
	termRun     = "watchdog/terminator_run.go"
	termJoin    = "watchdog/terminator_join.go"
	wFrame      = "agent/wire/frame.go"
	wBeat       = "agent/wire/beat.go"
	kCookie     = "agent/key/cookie.go"
	kFile       = "agent/key/keyfile/keyfile.go"
	kKey        = "agent/key/key.go"
	kMAC        = "agent/key/mac.go"
	kRing       = "agent/key/ring.go"
	kSession    = "agent/key/session.go"
	kWindow     = "agent/key/window.go"
)

// mutants is the table; add a line for each new one.
var mutants = []mutant{
	// The deadline.
	{"deadline off by an interval", hbState, "m.deadline, m.graceUntil = now.Add(m.cfg.Timeout), mono.Never", "m.deadline, m.graceUntil = now.Add(m.cfg.Timeout+m.cfg.Interval), mono.Never", heartbeatTests},
	{"deadline off by a nanosecond", hbMachine, "Armed(m.state) && !now.Before(m.verdictAt())", "Armed(m.state) && now.After(m.verdictAt())", heartbeatTests},
	{"probes move the deadline", hbProbe, "	m.nextProbe = m.planProbe(now)", "	m.deadline = m.deadline.Add(1)\n	m.nextProbe = m.planProbe(now)", heartbeatTests},
	{"a redial moves the deadline", hbTransport, "	out.Dial = true", "	out.Dial, m.deadline = true, now.Add(m.cfg.Timeout)", heartbeatTests},
	{"five-eighths rule dropped", hbState, "return min(interval+interval/4, timeout/8*5)", "return interval + interval/4 + 0*timeout", heartbeatTests},
	// Armed.
	{"armed without proof", hbReceive, "if b.Ack >= m.first {", "if b.Ack+1 > 0 {", heartbeatTests},
	{"armed by an ack of WELCOME", hbMachine, "	m.welcome(now, out)\n	m.first = m.seq", "	m.first = m.seq\n	m.welcome(now, out)", heartbeatTests},
	{"armed by an ack of a repeated WELCOME", hbReceive, "	m.first = m.seq // an", "	// an", heartbeatTests},
	{"ack of the unsent accepted", hbReceive, "if b.Ack >= m.seq {", "if b.Ack > m.seq {", heartbeatTests},
	{"unproven session ends doubt", hbState, "if m.doubtful() && m.acked {", "if m.doubtful() {", heartbeatTests},
	{"instance state before armed", hbSend, "m.cfg.Instance != nil && Armed(m.state)", "m.cfg.Instance != nil", heartbeatTests},
	// Own pause.
	{"own pause ignored", hbTransport, "if m.stopped || late <= m.cfg.Timeout/4 {", "if m.stopped || late >= 0 {", heartbeatTests},
	{"half a timeout instead of a quarter", hbTransport, "late <= m.cfg.Timeout/4", "late <= m.cfg.Timeout/2", heartbeatTests},
	{"own pause leaves no mark", hbState, "now.Before(m.pauseGuard) || m.pauseGuard", "m.pauseGuard", heartbeatTests},
	{"the mark of an own pause ends with its timeout", hbState, "now.Before(m.pauseGuard) || m.pauseGuard.After(m.lastValid.Add(m.cfg.Timeout))", "now.Before(m.pauseGuard)", heartbeatTests},
	{"the mark goes with the first stale beat", hbState, "	m.held = false\n", "	m.held, m.pauseGuard = false, 0\n", heartbeatTests},
	{"a pause in the handshake leaves no mark", hbTransport, "	m.pauseGuard = now.Add(m.cfg.Timeout)\n	if !Armed(m.state) {\n		return\n	}\n", "	if !Armed(m.state) {\n		return\n	}\n	m.pauseGuard = now.Add(m.cfg.Timeout)\n", heartbeatTests},
	{"own pause shortens what the fuse gave", hbTransport, "max(m.deadline, m.pauseGuard)", "m.pauseGuard", heartbeatTests},
	// Frames.
	{"stale frame counts as heard", hbReceive, "f.Session == m.session && f.Seq > m.heardSeq", "f.Session == m.session", heartbeatTests},
	{"frame of another session counts", hbReceive, "f.Session == m.session && ", "", heartbeatTests},
	{"WELCOME to another nonce counts", hbReceive, "f.Welcome.Echo != m.shake.nonce", "f.Welcome.Echo == (wire.ID{})", heartbeatTests},
	{"REFUSE of another nonce counts", hbReceive, "m.link != linkShaking || f.Refuse.Echo != m.shake.nonce", "m.link != linkShaking", heartbeatTests},
	// Verdicts.
	{"replaced counts as a verdict", hbTransport, "		out.Changes[len(out.Changes)-1].Own = true\n", "", heartbeatTests},
	{"own stop counts as a verdict", hbOutput, "&& !Armed(c.To) && !c.Own", "&& !Armed(c.To)", heartbeatTests},
	{"the replaced end gives up its relation", hbReceive, "case why == wire.ReasonReplaced && m.cfg.Role == Active:", "case why == wire.ReasonReplaced && m.cfg.Role != m.cfg.Role:", heartbeatTests},
	{"a broken transport is conmgr's verdict", hbTransport, "case m.cfg.Role == Passive || !Armed(m.state):", "case m.cfg.Role == Passive || m.state != wire.StateInit:", heartbeatTests},
	{"silence seen by the own kernel is a disconnect", hbTransport, "if m.cfg.Role == Active || !Armed(m.state) || m.stopped {", "if m.stopped || !m.stopped {", heartbeatTests},
	{"BYE(leave) taken for a stop", "agent/wire/bye.go", "return ReasonLeave", "return ReasonStop", append(wireTests, heartbeatTests...)},
	{"the peer's giving up is not heard", hbReceive, "if b.State == wire.StateDown {", "if b.State == wire.StateDown && m.stopped {", heartbeatTests},
	// The fuse.
	{"fuse holds twice", hbFuse, "	m.held = true\n", "", heartbeatTests},
	{"fuse blows for two", hbFuse, "const fuseLeast = 3", "const fuseLeast = 2", heartbeatTests},
	{"fuse blows for a third", hbFuse, "2*dying >= armed", "3*dying >= armed", heartbeatTests},
	// Sending.
	{"beats drift", hbMachine, "m.nextBeat = now.Add(m.cfg.Interval - behind)", "m.nextBeat = now.Add(m.cfg.Interval - 0*behind)", heartbeatTests},
	{"answers have no limit", hbProbe, "now.Sub(m.lastAnswer) < answerEvery", "now.Sub(m.lastAnswer) < 0", heartbeatTests},
	{"probes are not answered", hbReceive, "	m.learn(f, out)\n	if f.Flags&wire.FlagProbe != 0 {", "	m.learn(f, out)\n	if f.Flags&wire.FlagProbe != 0 && m.stopped {", heartbeatTests},
	{"a probe behind a newer frame is not answered", hbReceive, "	m.stats.Lost--\n	if f.Flags&wire.FlagProbe != 0 {", "	m.stats.Lost--\n	if f.Flags&wire.FlagProbe != 0 && m.stopped {", heartbeatTests},
	// Hints.
	{"a hint's grace is longer than the timeout", hbHint, "min(max(grace, 0), m.cfg.Timeout)", "max(grace, 0)", heartbeatTests},
	{"a later hint puts the grace off", hbHint, "m.graceUntil = m.graceUntil.Min(max(until, m.pauseGuard))", "m.graceUntil = max(until, m.pauseGuard)", heartbeatTests},
	{"a hint cuts an own pause short", hbHint, "m.graceUntil.Min(max(until, m.pauseGuard))", "m.graceUntil.Min(until)", heartbeatTests},
	{"a hint cuts the fuse short", hbHint, "|| m.held {", "{", heartbeatTests},
	{"a valid frame does not end the grace", hbState, "m.deadline, m.graceUntil = now.Add(m.cfg.Timeout), mono.Never", "m.deadline = now.Add(m.cfg.Timeout)", heartbeatTests},
	{"the link's return does not end the grace", hbHint, "	m.graceUntil = mono.Never\n", "", heartbeatTests},
	{"no probes while late", hbMachine, "		m.expiredProbe(now, out)\n", "", heartbeatTests},
	{"a long round trip silences the probes", hbProbe, "-min(m.stats.RTT, m.cfg.Timeout/4) - probeSlack", "-m.stats.RTT - probeSlack", heartbeatTests},
	{"HELLO is not repeated on datagrams", hbMachine, "	if m.link == linkShaking && m.cfg.Datagram && !now.Before(m.helloAt) {", "	if m.link == linkOpen && m.cfg.Datagram && !now.Before(m.helloAt) {", heartbeatTests},
	{"hang-ups set the pace of the dials", hbTransport, "max(now, m.dialedAt.Add(m.retryAfter()))", "now", heartbeatTests},
	{"eager waits for the connect interval", hbMachine, "		m.retryAt = m.endedAt.Add(m.retryAfter())\n", "", heartbeatTests},
	// The codec.
	{"trailing bytes refused", wFrame, "case len(b) < HeaderSize:\n		return ErrShort\n	case binary", "case len(b) < HeaderSize || len(b) > 200:\n		return ErrShort\n	case binary", wireTests},
	{"largest frame off by one", wFrame, "case len(b) > MaxFrame:", "case len(b) >= MaxFrame:", wireTests},
	{"stream accepts a length of nothing", wFrame, "case n < HeaderSize:", "case n < 0:", wireTests},
	{"body length unchecked", wBeat, "if len(b) < instanceSize {", "if len(b) < 0 {", wireTests},
	{"two fields change places", wBeat, "	dst = binary.BigEndian.AppendUint32(dst, v.Lost)\n	dst = binary.BigEndian.AppendUint32(dst, v.Received)", "	dst = binary.BigEndian.AppendUint32(dst, v.Received)\n	dst = binary.BigEndian.AppendUint32(dst, v.Lost)", wireTests},
	{"other version accepted", wFrame, "if b[2] != Version {", "if b[2] > Version+1 {", wireTests},
	// conmgr: what an instance is.
	{"the agent's silence is the instance's death", fleetStates, "case evidence == DoorAnswers:", "case evidence == DoorAnswers && f.cfg.DoorEvery < 0:", fleetTests},
	{"an old door answer counts", fleetStates, "if o.answered.After(c.LastValid) {", "if o.answered > 0 {", fleetTests},
	{"a refused door is tolerated", fleetStates, "	case evidence == DoorRefused:\n		f.becomeFaulted(now, m, faultDown, c.Silence, out)\n", "	case evidence == DoorRefused:\n		f.becomeUnmonitored(now, m, \"\", out)\n", fleetTests},
	{"agent_silence = fault ignored", fleetStates, "case f.cfg.AgentSilence == SilenceFault:\n		f.becomeFaulted(now, m, reason, c.Silence, out)", "case f.cfg.DoorEvery < 0:\n		f.becomeFaulted(now, m, reason, c.Silence, out)", fleetTests},
	{"the same loss is told twice", fleetStates, "	m.bound = fault.Only != nil || !fault.Before.IsZero()\n", "", fleetTests},
	{"a wrong system identifier passes", fleetReport, "if f.id != 0 && s.SystemID != f.id", "if f.id == 0 && s.SystemID != f.id", fleetTests},
	{"a wrong port passes", fleetReport, "if s.Port != m.Port && (s.Port != 0 || prove) {", "if s.Port != m.Port && prove {", fleetTests},
	{"a restarted postmaster goes unnoticed", fleetReport, "if old.StartUS == 0 || m.state.StartUS == old.StartUS {", "if old.StartUS == 0 || m.state.StartUS != 0 {", fleetTests},
	{"the older timeline wins", fleetSplit, "case m.state.Timeline < f.split.top:", "case m.state.Timeline > f.split.top:", fleetTests},
	// conmgr: the relay loop.
	{"messages are not sent together", relaySends, "s.context == 0 ||", "true ||", sendsTests},
	{"what a socket does not take of its message is lost", relaySends, "if sent < e.len {", "if false {", sendsTests},
	{"a message that could not be sent breaks nothing", relaySends, "f.pair.broken = true", "", sendsTests},
	{"what the kernel did not take together is lost", relaySends, "s.alone(done)\n", "s.alone(max(done, s.n))\n", sendsTests},
	{"a pair can be ended while its bytes wait", relaySends, "f.pair.kept = true", "", sendsTests},
	{"a pair whose bytes wait is locked again", relayPair, "if p.kept || l.sends.full() {", "if l.sends.full() {", sendsTests},
	{"what does not fit is sent by itself", relayPair, "if p.kept || l.sends.full() {", "if p.kept {", sendsTests},
	{"a forbidden io_getevents is not noticed", relaySends, "if !s.works() {", "if false {", sendsTests},
	{"an answer does not end a stream", relayStream, "p.last, p.oneWay = f, 0", "p.last = f", streamTests},
	{"a message beside streams is not seen", relayStream, "if w.streams && !w.others {", "if w.streams {", streamTests},
	{"pieces of a stream gather at once", relayStream, "return w.turns >= streamTurns", "return w.turns > 0", streamTests},
	{"the loop does not look for streams", "conmgr/relay_lane.go", "l.stream.passed(f.pair.passed(f, n))", "f.pair.passed(f, n)", streamTests},
	{"the loop does not let pieces gather", "conmgr/relay_loop.go", "\t\t\tl.gather()\n", "", streamTests},
	// conmgr: routing.
	{"a loser of the split is offered", "conmgr/view.go", "&& !v.Loser", "", append(routeTests, fleetTests...)},
	{"read-only primaries take writers", route, "return s.Attribute == wire.AttributePrimary && !s.ReadOnly", "return s.Attribute == wire.AttributePrimary", routeTests},
	{"down instances are offered", route, "if !in.Routable() || s.Status == wire.StatusDown {", "if !in.Routable() {", routeTests},
	{"unmonitored before monitored", route, "		r += rankUnmonitored\n", "", routeTests},
	// watchdog: warrants.
	{"protected address armed", docket, "	if protected || d.policy.protects(c.Addr) {", "	if d.policy.protects(c.Addr) && !protected {", docketTests},
	{"comeback ignored", docket, "	d.closeSite(now, r, out)\n", "", docketTests},
	{"own pause does not soften", docketRules, "if a == Terminate && (ownPause || ", "if a == Terminate && (", docketTests},
	{"BYE(leave) judged", docketRules, "	if r == wire.ReasonLeave {\n		return Ignore\n	}\n", "", docketTests},
	{"a shared address is not spared", docketJudge, "case d.shielded(r):", "case d.shielded(r) && d.policy.DryRun:", docketTests},
	{"a wait ends early", docketJudge, "	r.deadline = now.Add(waitOf(r))\n	d.schedule(now, r)", "	r.deadline = now.Add(waitOf(r) / 2)\n	d.schedule(now, r)", docketTests},
	{"kills while paused", docketJudge, "case !d.pausedUntil.IsZero() && now.Before(d.pausedUntil):", "case d.pausedUntil == mono.Never:", docketTests},
	{"replication ends with a live host", docketRules, "return !hostAlive", "return true || hostAlive", docketTests},
	// Sockets.
	{"last look without the interval", evidence, "last.Add(w.Interval + kernelTick)", "last.Add(kernelTick)", socketTests},
	{"a restored client looks alive", evidence, "	if last.IsZero() {\n", "	if false {\n", socketTests},
	{"socket heard since the verdict destroyed", evidence, "case s.Info == nil || !after.Add(kernelTick-s.Info.LastReceived()).Before(d.verdict):", "case s.Info == nil:", socketTests},
	{"a tick of the kernel ignored", evidence, "after.Add(kernelTick-s.Info", "after.Add(-s.Info", socketTests},
	{"spared walsender's socket destroyed", evidence, ", d.reach.ofInstance(s) && slices.Contains(d.walsenders, s.Remote.Port())", "", socketTests},
	{"the agent's own connection destroyed", evidence, "slices.Contains(d.own, s.Remote), ", "", socketTests},
	{"another cluster's address in reach", reach, "return here && l", "return (here || true) && l", socketTests},
	{"configured but not listening in reach", reach, "l.Local.Addr().IsUnspecified() && l.Family == s.Family", "l.Local.Addr().IsUnspecified()", socketTests},
	{"heartbeat port in reach", reach, "		if p != s.heartbeat {\n			r.ports = append(r.ports, p)\n		}\n", "		r.ports = append(r.ports, p)\n", socketTests},
	{"sockets looked for once", peerSockets, "const maxLooks = 5", "const maxLooks = 1", socketTests},
	{"dry run destroys sockets", peerSockets, "len(doomed) == 0 || r.dryRun", "len(doomed) == 0", socketTests},
	{"warning at every kill", peerSockets, "	p.unable = err\n", "", socketTests},
	{"sockets that are left are forgotten", termRun, "r.again = sockets.Destroyed > 0 && sockets.Left > 0", "r.again = false", joinTests},
	{"sockets that stay are tried for ever", termRun, "r.again = sockets.Destroyed > 0 && sockets.Left > 0", "r.again = sockets.Left > 0", joinTests},
	{"host alive is terminated", termRun, "if evidence.HostAlive && !r.w.Case.HostAlive() {", "if false {", joinTests},
	{"a joined warrant keeps the first verdict", termJoin, "verdict = max(verdict, j.w.Verdict)", "verdict = max(verdict, r.w.Verdict)", joinTests},
	{"a joined warrant is closed with the first", termJoin, "	t.queue = append(t.queue, living...)\n", "", joinTests},
	{"warrant without backend_start", cover, "		case !c.covers(b.start):\n			out.newer++\n", "", coverTests},
	{"warrant covers the agent itself", cover, "		case b.pid == snap.self || containsPID(own, b.pid):\n", "", coverTests},
	{"a stranger may open a session", admission, "|| !keyed && !a.allows(remote)", "", admitTests},
	{"no bound per address", admission, "n.PerAddress >= perAddress {", "n.PerAddress >= 10*perAddress {", admitTests},
	{"timers without a lower bound", admission, "if interval <= 0 || interval < a.MinInterval {", "if interval <= 0 {", admitTests},
	// Keys.
	{"both directions have one key", kSession, "toConmgr := expand(&k.prk, h.info(labelToConmgr, k.id))", "toConmgr := expand(&k.prk, h.info(labelToWatchdog, k.id))", keyTests},
	{"the watchdog's nonce is not bound", kSession, "h.HelloNonce, h.WelcomeNonce}", "h.HelloNonce, h.HelloNonce}", keyTests},
	{"the session id is not bound", kSession, "AppendUint64(info, h.Session)", "AppendUint64(info, 0*h.Session)", keyTests},
	{"the key id is not bound", kKey, "return append(info, id[:]...)", "return append(info, make([]byte, len(id))...)", keyTests},
	{"frames that say they have no MAC open", kMAC, "frame[wire.OffsetAuth] != wire.AuthHMAC || ", "", keyTests},
	{"another epoch opens", kMAC, " || frame[wire.OffsetEpoch] != epoch", "", keyTests},
	{"the MAC leaves the epoch open", kMAC, "func frameMAC(k *raw, frame []byte) [wire.MACSize]byte {\n	var b block\n	message := b.message()\n	copy(message, frame)\n", "func frameMAC(k *raw, frame []byte) [wire.MACSize]byte {\n	var b block\n	message := b.message()\n	copy(message, frame)\n	message[wire.OffsetEpoch] = 1\n", keyTests},
	{"the MAC leaves the length open", kMAC, "sum := b.sum(k, len(frame))", "sum := b.sum(k, min(len(frame), 64))", keyTests},
	{"a forged frame moves the window", kSession, "	if !s.Open(frame) {\n		return ErrForged\n	}\n	s.window.Mark(seq)", "	s.window.Mark(seq)\n	if !s.Open(frame) {\n		return ErrForged\n	}", keyTests},
	{"a replay is accepted", kSession, "if !s.window.Check(seq) {", "if !s.window.Check(seq) && seq == 0 {", keyTests},
	{"the window forgets its upper half", kWindow, "w.seen[1]<<n | w.seen[0]>>(64-n)", "w.seen[1] << n", keyTests},
	{"the window is too narrow", kWindow, "seq > 0 && behind < WindowSize &&", "seq > 0 && behind < WindowSize-1 &&", keyTests},
	{"a session without keys opens", kSession, "return s.keyed && s.end.other()", "return s.end.other()", keyTests},
	{"a key serves every address", kRing, "	case !k.Allows(client):\n		return k, ErrAddress\n", "", keyTests},
	{"a HELLO without a key is let in", kRing, "		return nil, ErrMissing\n", "		return nil, nil\n", keyTests},
	{"another secret under the same id goes on", kRing, "now != nil && now.same(k)", "now != nil && now.id == k.id", keyTests},
	{"a cookie serves every address", kCookie, "	copy(m[addr:], ip[:])\n", "	_ = append(m[:addr], ip[:0]...)\n", keyTests},
	{"a cookie never grows old", kCookie, "if age > 1 || age > b {", "if age > b {", keyTests},
	{"the group may read the key", kFile, "mode.Perm()&0o077 != 0", "mode.Perm()&0o007 != 0", keyTests},
	{"anybody may own the key", kFile, "owner != euid && owner != 0", "owner != euid && owner != 0 && owner < 1000", keyTests},
	// Keys, as the simulation's attacker finds them.
	{"sim: a MAC is not compared", kMAC, "frame[wire.OffsetMAC:][:wire.MACSize]) == 1", "frame[wire.OffsetMAC:][:wire.MACSize]) != 2", simTests},
	{"sim: a replay is accepted", kSession, "if !s.window.Check(seq) {", "if !s.window.Check(seq) && seq == 0 {", simTests},
	{"sim: both directions have one key", kSession, "toConmgr := expand(&k.prk, h.info(labelToConmgr, k.id))", "toConmgr := expand(&k.prk, h.info(labelToWatchdog, k.id))", simTests},
	{"sim: one key for all sessions", kSession, "	for _, part := range []wire.ID{h.Conmgr, h.Watchdog, h.HelloNonce, h.WelcomeNonce} {\n		info = append(info, part[:]...)\n	}\n	return binary.BigEndian.AppendUint64(info, h.Session)", "	return binary.BigEndian.AppendUint64(info, 0)", simTests},
	{"sim: a HELLO needs no secret", kRing, "	case !k.OpenHello(frame):\n		return nil, ErrSecret\n", "", simTests},
	{"sim: anybody refuses", kKey, "typeOf(frame) == wire.TypeRefuse && opens(&k.reply, 0, frame)", "typeOf(frame) == wire.TypeRefuse || opens(&k.reply, 0, frame)", simTests},
	{"sim: a key that is gone goes on", kRing, "	if now := r.get(k.id); now != nil && now.same(k) {\n		return now\n	}\n	return nil", "	return k", simTests},
	{"sim: a HELLO is answered twice", hbReceive, " || f.Seq <= m.heardSeq {", " {", simTests},
	// The session protocol, as its model finds them.
	{"model: an agent's restart is not told", hbReceive, "		return m.onForgotten(now, f, out)\n", "		return false\n", modelTests},
	{"model: armed without proof", hbReceive, "if b.Ack >= m.first {", "if b.Ack+1 > 0 {", modelTests},
	{"model: own pause ignored", hbTransport, "if m.stopped || late <= m.cfg.Timeout/4 {", "if m.stopped || late >= 0 {", modelTests},
	{"model: no dial after a verdict", hbState, "	m.endedAt = now\n	m.retryAt = now.Add(m.retryAfter())\n", "	m.endedAt = now\n	m.retryAt = mono.Never\n", modelTests},
	{"model: stale frame counts as heard", hbReceive, "f.Session == m.session && f.Seq > m.heardSeq", "f.Session == m.session", modelTests},
	{"model: comeback ignored", docket, "	d.closeSite(now, r, out)\n", "", modelTests},
	{"model: a wait ends early", docketJudge, "	r.deadline = now.Add(waitOf(r))\n	d.schedule(now, r)", "	r.deadline = now.Add(waitOf(r) / 2)\n	d.schedule(now, r)", modelTests},
	{"model: a disconnect is not waited for", docketRules, "OnHang: Wait, OnDisconnect: Wait,", "OnHang: Wait, OnDisconnect: Terminate,", modelTests},
	{"model: the agent's pause shortens a wait", docketJudge, "	if now.Sub(r.wake) > quarter(r) {", "	if now.Sub(r.wake) > time.Hour {", modelTests},
}
