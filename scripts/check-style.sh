#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks the rules of style that gofmt, vet and staticcheck do not know. Prints
# each offence as FILE:LINE: and fails when there is one.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=0

# complain RULE prints the offences on stdin under their rule.
complain() {
	local offences
	offences=$(cat)
	if [ -n "$offences" ]; then
		printf '%s\n' "$1" >&2
		printf '%s\n' "$offences" | sed 's/^/  /' >&2
		failed=1
	fi
}

# sources lists the files to check that match the patterns, without what is
# generated, built, cached or another's.
sources() {
	local expr=() pattern
	for pattern in "$@"; do
		expr+=(-o -name "$pattern")
	done
	find . \( -name .git -o -path ./bin -o -path ./.cache -o -path ./bpf/include -o -name testdata \) -prune -o \
		-type f \( "${expr[@]:1}" \) -print | sort |
		xargs -r grep -L '^// Code generated .* DO NOT EDIT\.$'
}

mapfile -t go_files < <(sources '*.go')
mapfile -t all_files < <(sources '*.go' '*.sh' '*.c' '*.h' '*.sql' 'Makefile' 'run')
mapfile -t tests < <(printf '%s\n' "${go_files[@]}" | grep '_test\.go$')
mapfile -t library < <(printf '%s\n' "${go_files[@]}" | grep -E '^\./(agent|conmgr|watchdog)/' | grep -v '_test\.go$')

sleeps() {
	grep -L '"testing/synctest"' "${tests[@]}" /dev/null | grep -v '^/dev/null' | xargs -r grep -nH 'time\.Sleep('
}
complain 'a test waits for a fact (agenttest.Eventually) or sleeps in a synctest bubble:' < <(sleeps)

long() { wc -l "${all_files[@]}" | awk '$2 != "total" && $1 > 500 { print $2 ": " $1 " lines" }'; }
complain 'a file has one concept and at most 500 lines:' < <(long)

unlicensed() {
	local file
	for file in "${all_files[@]}"; do
		head -n 3 "$file" | grep -q 'SPDX-License-Identifier: ' || echo "$file"
	done
}
complain 'a file begins with its SPDX line:' < <(unlicensed)

prints() {
	grep -nHE '\bfmt\.(Print|Println|Printf)\(|\bos\.(Stdout|Stderr)\b|^\s*println\(' "${library[@]}" /dev/null
}
complain 'a library package returns errors and logs through its logger:' < <(prints)

# The brackets keep this file from offending.
places() { grep -nHE '/(hom[e]|roo[t]|wor[k]|User[s])/|\bfar[m]-|\.librar[y]\b|/share[d]/' "${all_files[@]}"; }
complain 'no names and paths of a workplace:' < <(places)

leftovers() { grep -nHE '\b(TOD[O]|FIXM[E]|XX[X])\b' "${all_files[@]}"; }
complain 'what is left to do stands in an issue:' < <(leftovers)

complain 'an exported name says its contract:' < <(go run ./scripts/checkdoc "${go_files[@]}" 2>&1 | grep -v "^exit status")

exit "$failed"
