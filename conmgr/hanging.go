// SPDX-License-Identifier: Apache-2.0

package conmgr

// hanging are the applications that hang on one instance. To take all of them off it
// costs nothing, whatever their number, and no memory: a collection of garbage that
// begins just then would look at the stacks of all sessions before the first of them
// is told.
type hanging struct {
	apps    []*app
	holders []holder // of the application with the same index
}

func (h *hanging) add(m *app, end holder) {
	m.place = len(h.apps)
	h.apps, h.holders = append(h.apps, m), append(h.holders, end)
}

// remove puts the last one into the gap.
func (h *hanging) remove(m *app) {
	last := len(h.apps) - 1
	h.apps[m.place], h.holders[m.place] = h.apps[last], h.holders[last]
	h.apps[m.place].place = m.place
	h.apps[last], h.holders[last] = nil, nil
	h.apps, h.holders = h.apps[:last], h.holders[:last]
}

// has reports whether an application hangs here.
func (h *hanging) has(m *app) bool { return m.place < len(h.apps) && h.apps[m.place] == m }

// takeAll removes all, without a look at any of them: they are cold memory.
func (h *hanging) takeAll() (taken hanging) {
	taken, *h = *h, hanging{}
	return taken
}

// take removes those that a condition is true of.
func (h *hanging) take(condition func(*app) bool) (taken hanging) {
	all := h.takeAll()
	for i, m := range all.apps {
		if condition(m) {
			taken.apps, taken.holders = append(taken.apps, m), append(taken.holders, all.holders[i])
		} else {
			h.add(m, all.holders[i])
		}
	}
	return taken
}
