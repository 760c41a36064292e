// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// message is a log message of level WARNING or above, and what an operator does
// about it. A text may stop before a part that differs each time.
type message struct {
	text string
	do   string
}

// The messages of each daemon, and those of both. The test compares them with the
// calls in the source.
var messages = map[string][]message{
	"pgwatchdog": pgwatchdogMessages,
	"conmgr":     conmgrMessages,
}

// messagesOf is the list of one daemon's messages.
func messagesOf(daemon string) (string, error) {
	list, ok := messages[daemon]
	if !ok {
		return "", fmt.Errorf("messages of %q: no such daemon", daemon)
	}
	var out strings.Builder
	out.WriteString(".Bl -tag -width Ds\n")
	for _, m := range append(append([]message{}, list...), sharedMessages...) {
		fmt.Fprintf(&out, ".It %s\n%s", argument(m.text), running(m.do))
	}
	out.WriteString(".El\n")
	return out.String(), nil
}

var sharedMessages = []message{
	{"this process stood still: nobody is judged for that silence",
		"The daemon did not run for that long: the host, or the virtual machine, is overloaded or was paused. No session was harmed. When it comes often, give the daemon or the machine more processor time, or choose a longer heartbeat_timeout."},
	{"fuse: too many sessions would end at once, holding the verdicts for one more timeout",
		"Half of all sessions fell silent together. Look at this host's network first: its own link, switch, firewall. If the clients are really gone, they are acted on after one more timeout."},
	{"link to peers",
		"The kernel reports that a link lost its carrier or a route was removed. Look at the cable, the switch and the device that is named."},
	{"links are not watched: a lost one is noticed at heartbeat_timeout",
		"No source of link events could be opened. The error says why. Everything else works."},
	{"links are not watched any more: a lost one is noticed at heartbeat_timeout",
		"The last source of link events ended. Restart the daemon to try again."},
	{"a source of link events has ended",
		"Another source is used, which may be slower. Restart the daemon to try the better one again."},
	{"the counter of a device cannot be read: its losses come later",
		"/sys/class/net must be mounted and readable. Losses of this device are told by rtnetlink, up to a second late."},
	{"the counters of devices are not looked at: their losses come later",
		"The kernel refused a timer (timerfd). Losses are told by rtnetlink, up to a second late; it is tried again with the next change of a device or a route."},
	{"devices cannot be looked at",
		"The kernel refused a question about devices. Hints of lost links may be missing until it answers."},
	{"a route cannot be looked up",
		"It is not known by which device a peer is reached, so a loss of that link is noticed at heartbeat_timeout. Look at the routes to the peer."},
	{"log messages lost: they were not taken from stderr in time",
		"Whoever reads the log is too slow: a full disk, a stopped pager. The daemon does not wait for it."},
	{"a busy machine may delay heartbeats more than it has to",
		"The scheduler refused shorter time slices, for example because of a seccomp filter. Nothing else is wrong."},
	{"key file not reloaded, the old keys stay in use",
		"Correct the key file as the error says, then reload again."},
}

var pgwatchdogMessages = []message{
	{"control socket: refused",
		"Somebody other than root and the agent's user tried to use the control socket, or too many did at once. The line names who."},
	{"cannot accept on the control socket",
		"The kernel refused, mostly for lack of descriptors. agentctl sessions and pause may fail until that is over; heartbeats go on."},
	{"no control socket: agentctl sessions and pause do not work",
		"Look at the state directory: it must belong to the agent's user and be writable. Everything else works."},
	{"cannot go on with the pause of the last run: kills are allowed",
		"A pause was running when the agent ended, and its file cannot be read or is damaged. Pause again if the work is not done."},
	{"the pause of kills would be forgotten, or wrongly gone on with, by a restart of the agent",
		"pause.json in the state directory could not be written. Look at the space and the rights there; the pause holds until the agent restarts."},
	{"cannot tell the SQL extension: pgx_stat_watchdog stays empty",
		"The directory of run_dir must exist, belong to the agent's user and be writable by nobody else."},
	{"sessions of lost client survived",
		"Sessions of a dead client host did not end in time and still hold their locks. They are named with the reason: a superuser's session needs the extension watchdog, another one may hang in the kernel. End them by hand."},
	{"sessions of lost client cannot be terminated yet",
		"The agent cannot reach the instance, or lacks a right. It tries again until it can; the error says what is missing."},
	{"warrant for a protected address refused",
		"Somebody tried to have an address of watchdog.protect terminated. Nothing was done. Look who runs a conmgr there."},
	{"agent stops before a warrant is done",
		"The agent was stopped while sessions were being terminated. It looks at the client again after its start."},
	{"the agent's role lacks a right: sessions of dead clients will not end",
		"Run role.sql, or grant what is named to the role."},
	{"terminator lost its connection",
		"The connection for terminations broke; it is opened again at once. Look at the instance's log when this comes often."},
	{"terminator cannot connect, sessions of lost clients stay until it can",
		"See the error: pg_hba.conf, the role, or max_connections is exhausted. Sockets are closed all the same."},
	{"sockets of dead clients cannot be destroyed: their sessions are terminated all the same, clients of watchdog.ports stay",
		"CAP_NET_ADMIN is missing, or the kernel lacks CONFIG_INET_DIAG_DESTROY. agentctl doctor says which."},
	{"sockets not destroyed",
		"The kernel refused it for this client; the error says why. Its backends are terminated all the same."},
	{"cannot tell whether sockets of dead clients can be destroyed",
		"The proof on loopback did not work. Is lo up? Run agentctl doctor."},
	{"cannot check the instance",
		"The agent cannot ask the instance. Look at the dsn, pg_hba.conf and the role; the hint says what was expected."},
	{"cannot read the settings of the instance",
		"The settings known before stay in use. See the error."},
	{"cannot watch the postmaster process: its death is noticed by the next check; expected a dsn with a socket directory",
		"Let host= in the dsn be the directory of the Unix socket."},
	{"cannot watch the data directory: a promotion is noticed by checks only",
		"A promotion is then seen within 150 ms. For less, let the agent's user read the data directory (group access)."},
	{"setting not taken",
		"A parameter has a bad value. The text names the place and what was expected; until then the default, or the old value, is used."},
	{"setting",
		"A setting has no effect, or not before a restart: a misspelt name, a setting of a role or database. The text says which."},
	{"configuration not reloaded",
		"pgwatchdog.conf has a mistake; nothing changed. Correct it and reload again."},
	{"cannot serve heartbeats on every address",
		"watchdog.port is taken on an address, or the address is not there (yet). Another pgwatchdog? It is tried again every second."},
	{"cannot resolve an address to listen on",
		"A name in watchdog.listen_addresses is unknown. The other addresses are served."},
	{"cannot read the host's addresses: clients of the own networks may be refused",
		"The kernel did not tell the addresses. samenet and samehost go by those known before."},
	{"conmgr refused",
		"A conmgr was refused; why= and hint= say what to change. One line a minute for each cause."},
	{"sessions of one address come and go all the time: they are not told for up to a minute",
		"Look at the client host: a conmgr that is restarted again and again, or a stranger without a key."},
	{"heartbeats are not authenticated: who can send from an address in watchdog.clients can forge them; UDP is not served",
		"Make a key: cm_ctl keygen, key_file in pgwatchdog.conf, heartbeat_key_file in conmgr.conf."},
	{"session",
		"A client host fell silent for heartbeat_timeout, or its link is down. What is done about it follows in the log."},
	{"warrant",
		"A client host was judged dead; its sessions are terminated. The result follows."},
	{"cannot use the settings kept from the last run",
		"The file in the state directory is damaged. The instance is asked again; nothing is lost when it runs."},
	{"cannot keep the instance's settings for a start without it",
		"The state directory cannot be written: full disk, wrong owner."},
	{"cannot use the armed sessions of the last run: a client that died meanwhile is not judged",
		"armed.json was damaged and moved aside. A client that died while the agent was away keeps its sessions: look for them."},
	{"cannot keep the armed sessions: a client that dies while the agent is away will not be judged",
		"The state directory cannot be written: full disk, wrong owner."},
	{"cannot keep an event", "events.jsonl cannot be written: full disk, wrong owner."},
	{"cannot keep events", "events.jsonl cannot be flushed to the disk. See the error."},
	{"event not written", "A record of a termination is missing in events.jsonl; the log has it."},
	{"events not written", "Records of terminations are missing in events.jsonl; the log has them."},
	{"a descriptor of the last run is of no use",
		"The service manager handed over something that is no socket of the agent. Nothing is wrong but a changed unit."},
}

var conmgrMessages = []message{
	{"instance faulted",
		"The instance cannot be reached, or is gone: its applications were disconnected. why= and silence= say what was seen. Look at the database host."},
	{"instance unmonitored",
		"The watchdog is silent while the instance answers: nobody was disconnected, but a death of the host is noticed late. Look at pgwatchdog there."},
	{"instance restarted", "PostgreSQL was restarted; applications with sessions from before were disconnected."},
	{"stale primary",
		"Two instances claim to be primary, and this one lost by its timeline. Its applications are disconnected (close_on_stale_primary). Stop or rebuild it."},
	{"several primaries",
		"Two primaries with the same timeline, and none was primary before: neither is used. Decide which one is right and stop the other."},
	{"wrong instance",
		"Another cluster answers at this address: the system identifier or the port differs. It is not used. Correct conmgr.conf, or remove the file system_identifier after the cluster was made anew."},
	{"watchdog refuses the heartbeat", "The text says what the watchdog expects. Change conmgr.conf or its postgresql.conf."},
	{"watchdog not reached",
		"No heartbeat with an instance that was never monitored. Is pgwatchdog running there, is watchdog_port right, does a firewall stand between?"},
	{"watchdog ended the session for a newer one",
		"Another conmgr uses the same conmgr.id: the directory was copied. Remove conmgr.id in the copy."},
	{"host name not resolved", "backend_host is unknown to the resolver. backend_hostaddr needs none."},
	{"pass-through refused: not a loopback peer and not in proxy_allow",
		"Another host tried to use a pass-through port. List it in proxy_allow only if it may act as this host."},
	{"accept failed", "The limit on file descriptors, or memory, is exhausted. See LimitNOFILE and max_connections."},
	{"limit on file descriptors stays", "The soft limit could not be raised. Fewer applications fit; see ulimit -n."},
	{"pid file stays", "conmgr.pid could not be removed. The next start finds out that it is stale."},
	{"cannot keep the learned system identifier", "conmgr's directory cannot be written: full disk, wrong owner."},
	{"conmgr ends", "conmgr gave up; err= says why. Its applications are disconnected."},
}
