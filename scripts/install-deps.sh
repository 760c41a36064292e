#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what building and testing need, and only what is missing: with all
# of it present, apt is not called. Package lists are fetched only when apt
# does not know a package or cannot get it. The argument "generate" adds what
# make generate needs, "boot" what make deb and make test-boot need.
set -euo pipefail

missing=()

# need PACKAGE COMMAND... notes the package unless every command is there.
need() {
	local package=$1 command
	shift
	for command in "$@"; do
		if ! type -P "$command" >/dev/null; then
			missing+=("$package")
			return
		fi
	done
}

export PATH=$PATH:/usr/sbin:/sbin
need iproute2 ip ss tc
need nftables nft
need gcc gcc # the race detector

need qemu-system-x86 qemu-system-x86_64
need xz-utils xz
need util-linux setpriv
need pgbouncer pgbouncer
need haproxy haproxy # scripts/bench/modes
need procps ps
need default-jdk-headless java javac # cmd/e2e/drivers
need nodejs node
need npm npm
need python3 python3
[ -e /usr/share/java/postgresql.jar ] || missing+=(libpostgresql-jdbc-java)
/usr/bin/python3 -c 'import psycopg2' 2>/dev/null || missing+=(python3-psycopg2)
need make make # conmgr/libpq, cmd/e2e/libpq
need libpq-dev pg_config
need libecpg-dev ecpg
need valgrind valgrind
need bsdutils script
need prometheus promtool # scripts/prometheus
need mandoc mandoc # scripts/man
need php-cli php
[ -e /usr/include/postgresql/libpq-fe.h ] || missing+=(libpq-dev)
php -r 'exit((int)!extension_loaded("pgsql"));' 2>/dev/null || missing+=(php-pgsql)
/usr/bin/perl -MDBD::Pg -e 1 2>/dev/null || missing+=(libdbd-pg-perl)
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates) # go mod download

if [ "${1:-}" = generate ]; then
	need clang clang
	need llvm llvm-strip
fi
if [ "${1:-}" = boot ]; then
	need debhelper dh
	need dpkg-dev dpkg-buildpackage
	need lintian lintian
	need ruby ruby # vagrant/Vagrantfile
	need debootstrap debootstrap
	need systemd-container systemd-nspawn
fi

# node_modules installs node-postgres, in the version that its lock file names, where
# the tests look for it.
node_modules() {
	local from=cmd/e2e/drivers/testdata/node to=.cache/node
	cd "$(dirname "$0")/.."
	if cmp -s $from/package-lock.json $to/package-lock.json && [ -e $to/node_modules/pg ]; then
		return
	fi
	mkdir -p $to
	cp $from/package.json $from/package-lock.json $to/
	if ! npm ci --prefix $to --no-audit --no-fund; then
		rm -f $to/package-lock.json
		echo "install-deps: node-postgres is missing: its test will not run" >&2
	fi
}

# Any supported server will do; the distribution's default is installed.
shopt -s nullglob
servers=(/usr/lib/postgresql/*/bin/postgres)
if [ ${#servers[@]} -eq 0 ] && [ -z "${PGBINDIR:-}" ]; then
	missing+=(postgresql)
fi

# The tests fetch kernels for virtual machines by themselves (agent/agenttest/vm):
# apt must know of them.
knows_kernels() {
	local package
	for package in linux-image-cloud-amd64 linux-image-6.12-cloud-amd64; do
		apt-cache show "$package" >/dev/null 2>&1 || return 1
	done
}
if [ "$(id -u)" -eq 0 ] && type -P apt-cache >/dev/null && ! knows_kernels; then
	apt-get update || true
fi

if [ ${#missing[@]} -eq 0 ]; then
	node_modules
	echo "install-deps: nothing is missing"
	exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
echo "install-deps: missing: ${missing[*]}"

if [ "$(id -u)" -ne 0 ]; then
	echo "install-deps: not root; run: apt-get install ${missing[*]}" >&2
	exit 1
fi
if ! type -P apt-get >/dev/null; then
	echo "install-deps: no apt-get here; install these in your system's way" >&2
	exit 1
fi

# The lab makes its own clusters: none is wanted on the machine.
if [[ " ${missing[*]} " == *" postgresql "* ]] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
	mkdir -p /etc/postgresql-common
	echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
fi

# The tests start what they need by themselves: no package's own service is wanted.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 0755 $policy
fi

export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends "${missing[@]}"; }
if ! install; then
	apt-get update
	install
fi
node_modules
