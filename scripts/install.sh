#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Puts what was built into place, for packages and for systems without one:
#
#   make install [DESTDIR=/tmp/root] [PREFIX=/usr/local] [PGDIRS="DIR ..."]
#
#   PREFIX  where programs, man pages and samples go
#   PGDIRS  extension directories of PostgreSQL; none is fine. Default: that of
#           pg_config, if there is one
#   BIN     where make build man wrote, bin
#   UNITDIR, USERUNITDIR, SYSUSERSDIR
#           where systemd looks; defaults fit PREFIX
#
# It makes no user and starts nothing: systemd-sysusers(8) and systemctl(1) do.
set -euo pipefail
cd "$(dirname "$0")/.."

BIN=${BIN:-bin}
PREFIX=${PREFIX:-/usr/local}
# systemd looks for units in /usr/local/lib too, but not for users.
UNITDIR=${UNITDIR:-$PREFIX/lib/systemd/system}
USERUNITDIR=${USERUNITDIR:-$PREFIX/lib/systemd/user}
SYSUSERSDIR=${SYSUSERSDIR:-/usr/lib/sysusers.d}
if [ -z "${PGDIRS+set}" ]; then
	PGDIRS=
	if type -P pg_config >/dev/null; then
		PGDIRS=$(pg_config --sharedir)/extension
	fi
fi
to=${DESTDIR:-}

# put MODE DIRECTORY FILE... copies files; those of text lead to PREFIX then.
put() {
	local mode=$1 dir=$to$2 file
	shift 2
	install -d -m 0755 "$dir"
	for file in "$@"; do
		install -m "$mode" "$file" "$dir/"
	done
}

# adapt FILE... makes paths of an installed text lead to PREFIX.
adapt() { sed -i -E "s,/usr/bin/(pgwatchdog|conmgr|cm_ctl|agentctl)\\b,$PREFIX/bin/\\1,g; s,/usr/share/pgconmgr,$PREFIX/share/pgconmgr,g" "$@"; }

put 0755 "$PREFIX/bin" "$BIN"/{conmgr,cm_ctl,pgwatchdog,agentctl}
put 0755 "$PREFIX/sbin" scripts/deb/pgwatchdog-setup
adapt "$to$PREFIX/sbin/pgwatchdog-setup"

put 0644 "$UNITDIR" scripts/systemd/{pgwatchdog,conmgr}@.service
put 0644 "$USERUNITDIR" scripts/systemd/user/conmgr@.service
adapt "$to$UNITDIR"/{pgwatchdog,conmgr}@.service "$to$USERUNITDIR/conmgr@.service"
put 0644 "$SYSUSERSDIR" scripts/systemd/pgconmgr-{client,server}.conf
install -d -m 0755 "$to/etc/pgconmgr"

for page in "$BIN"/man/*.[1-9]; do
	put 0644 "$PREFIX/share/man/man${page##*.}" "$page"
done
put 0644 "$PREFIX/share/doc/pgconmgr/examples" conmgr/conmgr.conf.sample "$BIN/man/pgwatchdog.conf.sample" \
	scripts/prometheus/pgconmgr.rules.yml

put 0644 "$PREFIX/share/pgconmgr" watchdog/role.sql
for dir in $PGDIRS; do
	make -s -C watchdog/extension install DESTDIR="$to" extensiondir="$dir"
done
