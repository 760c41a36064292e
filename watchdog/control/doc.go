// SPDX-License-Identifier: Apache-2.0

// Package control is the control socket of pgwatchdog: what an administrator on the
// host asks it, and tells it, by agentctl. It knows neither the agent nor the
// program; the one brings a [Handler], the other calls [Ask].
//
// # Who may
//
// The socket is [SocketName] in the state directory, mode 0600, and the kernel is
// asked who connects: root, or the agent's own user. Others are refused, whatever
// the modes of the directory and the socket have become.
//
// # Protocol
//
// Lines of JSON, one question per connection:
//
//	question = one object, at most 4 KiB: do, and what that needs
//	answer   = one object per line, at most 64 KiB each:
//	           {"error": text}                   nothing was done; the end
//	           {"status": {...}}                 always first
//	           {"session": {...}}                any number, for do = sessions
//	           {"end": true}                     the end; without it something is missing
//
//	do         needs
//	status     -
//	sessions   -
//	pause      for_ms; may have by and reason
//	resume     may have by
//
// Names that a reader does not know are ignored, so that an agentctl of another
// version can ask. [Question] and [Answer] are pure; what they accept is bounded.
// Besides, a server answers eight connections at a time, gives a question five
// seconds to come and its answer thirty to be read.
package control
