// SPDX-License-Identifier: Apache-2.0

package main

// Widths of a picture: the client's box, the links, a server's box.
const (
	clientWidth = 22
	linkWidth   = 31
	serverWidth = 22
)

// server is what a picture shows of a database host.
type server struct {
	name, role string
	sessions   bool // applications are connected to it
	dead       bool
}

// scene is a moment of the story.
type scene struct {
	apps       [2]string
	clientDead bool
	servers    [2]server
}

// picture draws a scene.
func (s *screen) picture(now scene) {
	if !s.pictures {
		return
	}
	client := s.box("client", clientWidth, now.clientDead, now.apps[0], now.apps[1],
		"conmgr", "  :27551 primary", "  :27546 console", "")
	s.gap()
	for i, server := range now.servers {
		right := s.box(server.name, serverWidth, server.dead, "PostgreSQL "+server.role, "pgwatchdog")
		sessions, beats := s.links(now.clientDead, server)
		for j, link := range []string{s.blank(), sessions, beats, s.blank()} {
			s.printf("  %s%s%s\n", client[4*i+j], link, right[j])
		}
	}
	s.gap()
}

// box is a host as lines of the given width.
func (s *screen) box(name string, width int, dead bool, lines ...string) []string {
	st, title := green, "- "+name+" "
	if dead {
		st, title = red, "- "+name+" - DEAD "
	}
	for len(title) < width-2 {
		title += "-"
	}
	out := []string{s.paint(st, "+"+title+"+")}
	for _, line := range lines {
		text := pad(cut(" "+line, width-2), width-2)
		if dead {
			text = s.paint(dim, text)
		}
		out = append(out, s.paint(st, "|")+text+s.paint(st, "|"))
	}
	bottom := "+"
	for len(bottom) < width-1 {
		bottom += "-"
	}
	return append(out, s.paint(st, bottom+"+"))
}

func (s *screen) blank() string { return pad("", linkWidth) }

// links are the two lines between the client and a server.
func (s *screen) links(clientDead bool, to server) (sessions, beats string) {
	sessions = s.blank()
	if clientDead || to.dead {
		if to.sessions {
			sessions = s.paint(red, pad(" = = = =  sessions  X  = = = >", linkWidth))
		}
		return sessions, s.paint(red, pad(" < - - -  heartbeat X  - - - >", linkWidth))
	}
	if to.sessions {
		sessions = s.paint(bold, pad(" =========  sessions  =======>", linkWidth))
	}
	return sessions, s.paint(green, pad(" <--------  heartbeat  ------>", linkWidth))
}
