#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the Debian packages into a directory (bin/deb). The same source gives the
# same bytes:
#
#   scripts/deb/build.sh [DIRECTORY]
#
#   VERSION             of programs and packages; default: that of the source
#   SOURCE_DATE_EPOCH   time of all files; default: that of the last commit
#
# A tree is assembled of scripts/deb/debian and a changelog, and given to debhelper.
set -euo pipefail
cd "$(dirname "$0")/../.."
source=$PWD
out=$(mkdir -p "${1:-bin/deb}" && cd "${1:-bin/deb}" && pwd)

VERSION=${VERSION:-$(sed -n 's/^var Version = "\(.*\)"$/\1/p' cmd/internal/cli/doc.go)}
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y go.mod)
fi
export VERSION SOURCE_DATE_EPOCH SOURCE=$source
export DEB_BUILD_OPTIONS=noautodbgsym TZ=UTC LC_ALL=C

for tool in dpkg-buildpackage dh gcc pg_config; do
	if ! type -P "$tool" >/dev/null; then
		echo "build.sh: $tool is missing: apt install debhelper dpkg-dev gcc make libpq-dev" >&2
		exit 1
	fi
done

tree=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$tree"' EXIT
export BIN=$tree/bin
make -s build man VERSION="$VERSION" BIN="$BIN"

mkdir "$tree/pgconmgr"
cp -r scripts/deb/debian "$tree/pgconmgr/debian"
cd "$tree/pgconmgr"
cat >debian/changelog <<END
pgconmgr ($VERSION) unstable; urgency=medium

  * Built from the project's source.

 -- $(sed -n 's/^Maintainer: //p' debian/control)  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >"$tree/log" 2>&1 || {
	cat "$tree/log" >&2
	exit 1
}
rm -f "$out"/pgconmgr-*.deb
mv "$tree"/*.deb "$out/"
ls -1 "$out"/*.deb
