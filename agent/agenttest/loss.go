// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"fmt"
)

// Loss drops packets at random, in percent of those towards the host and of
// those from it.
func (h *Host) Loss(ctx context.Context, percentIn, percentOut float64) (Effect, error) {
	in, err := lossMatch(percentIn)
	if err != nil {
		return Effect{}, err
	}
	out, err := lossMatch(percentOut)
	if err != nil {
		return Effect{}, err
	}
	return h.drop(ctx, out, in)
}

func lossMatch(percent float64) (string, error) {
	if !(percent >= 0 && percent <= 100) {
		return "", fmt.Errorf("loss of %v %%: expected 0 to 100", percent)
	}
	switch n := int(percent*100 + 0.5); n {
	case 0:
		return "-", nil
	case 10000: // nft refuses a comparison that is always true
		return "", nil
	default:
		return fmt.Sprintf("numgen random mod 10000 < %d", n), nil
	}
}

// LossOn is Loss that counts only the datagrams of one port, so that the
// counters can be compared with what captures of that port have seen. TCP loses
// as much, uncounted.
func (h *Host) LossOn(ctx context.Context, port uint16, percentIn, percentOut float64) (Effect, error) {
	to, err := h.lossOn("to", port, percentIn)
	if err != nil {
		return Effect{}, err
	}
	from, err := h.lossOn("from", port, percentOut)
	if err != nil {
		return Effect{}, err
	}
	return h.setRules(ctx, from, to)
}

func (h *Host) lossOn(direction string, port uint16, percent float64) ([]string, error) {
	chance, err := lossMatch(percent)
	if err != nil || chance == "-" {
		return nil, err
	}
	var matches []string
	for _, match := range ofPort("udp", port) {
		matches = append(matches, match+" "+chance)
	}
	return append(h.countedDrop(direction, matches...), "meta l4proto tcp "+chance+" drop"), nil
}
