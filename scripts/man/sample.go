// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/pgconmgr/pgconmgr/watchdog"

const sampleHead = `# pgwatchdog.conf: settings of one pgwatchdog, besides those in postgresql.conf.
#
# Lines are "name = value"; what stands behind # is a comment. Strings with blanks,
# commas or colons are enclosed in ', and '' inside means one. The parameters
# watchdog.* may stand in postgresql.conf as well; what stands here has priority.
# The values behind the names are the defaults.

# The instance, by its Unix socket if possible. Without, libpq's environment
# (PGHOST, ...) counts.
#dsn = 'host=/run/postgresql port=5432 user=pgwatchdog dbname=postgres'

# Keys of which each conmgr must prove one, as cm_ctl keygen writes them. The file
# belongs to the user pgwatchdog, and nobody else can read it.
#key_file = '/etc/pgconmgr/pgwatchdog-15-main.key'

# auto, text, color or json; debug, info, warn or error.
#log_format = auto
#log_level = info
`

// sample is the sample of pgwatchdog.conf.
func sample() string { return string(watchdog.Parameters().AppendSample([]byte(sampleHead))) }
