#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Sets a fresh Debian 12 up as a database host, as root:
#
#   db.sh primary       192.168.56.11
#   db.sh standby       192.168.56.12, a copy of the primary
#
# The packages of pgconmgr lie in /debs. What pgconmgr needs stands between the lines
# "pgconmgr:" and "lab:", and is what README tells; the rest is a PostgreSQL to play
# with, which lets everybody on the lab's network in.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
kind=${1:-}
case $kind in
primary | standby) ;;
*)
	echo "usage: db.sh primary|standby" >&2
	exit 2
	;;
esac

# lab: names, PostgreSQL
cat >>/etc/hosts <<'END'
192.168.56.10 client
192.168.56.11 db1
192.168.56.12 db2
END
apt_install() { apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }; }
apt_install postgresql
cd /debs

if [ "$kind" = standby ]; then
	systemctl stop postgresql@15-main
	rm -rf /var/lib/postgresql/15/main
	runuser -u postgres -- pg_basebackup -h db1 -U replicator -D /var/lib/postgresql/15/main -c fast -R -C -S db2
fi
pg_conftool 15 main set listen_addresses '*'
cat >>/etc/postgresql/15/main/pg_hba.conf <<'END'
host all,replication all 192.168.56.0/24 trust
END

# pgconmgr:
apt_install ./pgconmgr-server_*.deb
pg_conftool 15 main set max_connections 102
systemctl restart postgresql@15-main
pgwatchdog-setup 15-main
systemctl enable --now pgwatchdog@15-main

# lab: something to play with, and the views
if [ "$kind" = primary ]; then
	runuser -u postgres -- psql -X -q -d postgres <<-'END'
		CREATE ROLE replicator LOGIN REPLICATION;
		CREATE ROLE app LOGIN;
		CREATE DATABASE app OWNER app;
		CREATE EXTENSION watchdog;
	END
	pgwatchdog-setup 15-main
fi
