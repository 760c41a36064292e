// SPDX-License-Identifier: Apache-2.0

//go:build !386 && !amd64 && !arm64

package linkhint

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
)

// The names of bpf/linkhint.bpf.c, as in the generated files.
const (
	linkhintMapHints      = "hints"
	linkhintProgFentryOff = "fentry_off"
	linkhintProgFentryOn  = "fentry_on"
	linkhintProgKprobeOff = "kprobe_off"
	linkhintProgKprobeOn  = "kprobe_on"
	linkhintVarDropped    = "dropped"
	linkhintVarOwnNetns   = "own_netns"
)

// loadLinkhint has no programs: there are none for this architecture.
func loadLinkhint() (*ebpf.CollectionSpec, error) {
	return nil, fmt.Errorf("load BPF programs: none for %s", runtime.GOARCH)
}
