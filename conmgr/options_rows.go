// SPDX-License-Identifier: Apache-2.0

package conmgr

// ProxyPort is one pass-through port of proxy_listen.
type ProxyPort struct {
	Port   uint16
	Target Target
}

// ConfigRow is one line of SHOW CONFIG.
type ConfigRow struct {
	Name, Value, File, Default string
	Context                    string // reload or restart
}
