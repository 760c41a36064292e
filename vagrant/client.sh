#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Sets a fresh Debian 12 up as an application host, as root: 192.168.56.10. The
# packages of pgconmgr lie in /debs. What stands between the lines "pgconmgr:" and
# "lab:" is what README tells.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# lab: names, psql
cat >>/etc/hosts <<'END'
192.168.56.10 client
192.168.56.11 db1
192.168.56.12 db2
END
apt_install() { apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }; }
apt_install postgresql-client
cd /debs

# pgconmgr:
apt_install ./pgconmgr-client_*.deb
cat >/etc/pgconmgr/conmgr-main.conf <<'END'
backend_host0      = 'db1'
backend_port0      = 5432
backend_host1      = 'db2'
backend_port1      = 5432
heartbeat_interval = 1s
heartbeat_timeout  = 3s
proxy_listen       = '27551:primary, 27552:standby'
log_min_messages   = LOG
END
systemctl enable --now conmgr@main
apt_install ./pgconmgr-libpq_*.deb

# lab:
cat <<'END'

The lab is up. On the client (vagrant ssh client):

  sudo runuser -u conmgr -- cm_ctl status -D /var/lib/pgconmgr/conmgr-main
  psql -h localhost -p 27551 -U app app                  a session on the primary
  psql -h localhost -p 27552 -U app app                  one on the standby
  psql -h localhost -p 27546 conmgr -c 'SHOW INSTANCES'  the console
  LD_PRELOAD=libconmgr.so PGCONMGR_USER=conmgr \
      psql 'host=localhost port=27546 user=app dbname=app'  on the primary, directly

A client that dies: take a lock, then end the machine without a word.

  client$ psql -h localhost -p 27551 -U app app
          app=> CREATE TABLE t (); BEGIN; LOCK TABLE t;
  host$   vagrant halt --force client
  db1$    sudo -u postgres psql -d app -c BEGIN -c 'LOCK TABLE t'  waits at most 3 seconds
  db1$    sudo agentctl events

A database host that dies: the session breaks within 3 seconds, and the port leads to
db2 as soon as that is the primary.

  host$   vagrant halt --force db1
  db2$    sudo -u postgres psql -c 'SELECT pg_promote()'

Who is connected, on either database host:

  sudo -u postgres psql -xc 'SELECT * FROM pgx_stat_watchdog'

END
