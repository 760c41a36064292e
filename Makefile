# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Go may be installed without being in PATH.
export PATH := $(PATH):/usr/local/go/bin:$(HOME)/go/bin:/usr/sbin:/sbin
GO_NEEDED := 1.26
# 2026.2.2 by its module version, which every proxy has.
STATICCHECK := 0.8.2
FUZZTIME ?= 30s
BADPATH ?= 10m
SOAK ?= 10m
LEAKS ?= 100000
# Of programs and packages, where it is not that of the source.
VERSION ?=
# Where build and man write, and install reads.
BIN ?= bin

# Everything but the end-to-end tests; what needs root skips without it.
UNIT_PACKAGES = $$(go list ./... | grep -v -e '/cmd/e2e' -e '/scripts/boot')
# Those that take longest first: two are tested at a time. Without cgo and symbols each
# test program is what its guests run, too.
VM_PACKAGES = ./agent/linkhint ./cmd/e2e ./agent/sockdiag ./agent/peer ./agent/agenttest/vm
TIER_ROOT = -tier "root=-race -count=1 -timeout 10m $(UNIT_PACKAGES)"
TIER_VM = -tier "vm=-count=1 -p 2 -vet=off -ldflags=-s -timeout 15m -run Machine|ClockStep $(VM_PACKAGES)"
TIER_E2E = -tier "e2e=-count=1 -parallel 4 -timeout 40m ./cmd/e2e/..."

##@ Use

.PHONY: help
help: ## show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: need-go ## build the static programs into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -trimpath -buildvcs=false \
		-ldflags "$(if $(VERSION),-X github.com/pgconmgr/pgconmgr/cmd/internal/cli.Version=$(VERSION))" -o $(BIN)/ ./cmd/...

.PHONY: man
man: build ## make the man pages in bin/man
	go run ./scripts/man -bin $(BIN) -o $(BIN)/man

.PHONY: install
install: ## install what make build man made: DESTDIR, PREFIX, see scripts/install.sh
	@BIN="$(BIN)" DESTDIR="$(DESTDIR)" PREFIX="$(or $(PREFIX),/usr/local)" scripts/install.sh

.PHONY: deb
deb: need-go ## build the Debian packages in bin/deb
	@scripts/deb/build.sh

.PHONY: libpq
libpq: ## build bin/libpq/libconmgr.so, direct mode for libpq and ECPG (C)
	@$(MAKE) -C conmgr/libpq BUILD=$(CURDIR)/bin/libpq

.PHONY: install-deps
install-deps: ## install what the tests need and the machine lacks (Debian, root)
	@scripts/install-deps.sh
	@$(MAKE) need-go

.PHONY: demo
demo: install-deps ## show a dead host being noticed on both sides (root)
	@mkdir -p bin
	@go build -o bin/demo ./scripts/demo
	@bin/demo

.PHONY: lab
lab: need-go ## start client, db1 and db2 to play with (root)
	@mkdir -p bin
	@go build -o bin/lab ./scripts/lab
	bin/lab up

.PHONY: lab-down
lab-down: need-go ## end the lab
	@mkdir -p bin
	@go build -o bin/lab ./scripts/lab
	bin/lab down

##@ Test

.PHONY: test
test: need-go ## lint and all tests; what needs root skips without it
	@go run ./scripts/testcount -check "lint=make lint" $(TIER_ROOT) $(TIER_E2E)

.PHONY: test-unit
test-unit: need-go ## the tests that need neither root nor PostgreSQL
	@CM_TEST_TIER=unit go run ./scripts/testcount -tier "unit=-race -timeout 5m $(UNIT_PACKAGES)"

.PHONY: test-root
test-root: need-go ## all but end-to-end (root: namespaces, PostgreSQL, socket kills)
	@go run ./scripts/testcount $(TIER_ROOT)

.PHONY: test-e2e
test-e2e: need-go ## real programs, real PostgreSQL, the failure table (root)
	@go run ./scripts/testcount $(TIER_E2E)

.PHONY: test-libpq
test-libpq: ## libconmgr's tests in C: plain, ASan, UBSan, TSan, valgrind
	@$(MAKE) -C conmgr/libpq check BUILD=$(CURDIR)/bin/libpq

.PHONY: test-vm
test-vm: need-go ## what needs stock Debian kernels: fentry, kprobe, netem, a clock (QEMU)
	@CM_TEST_VM=all CGO_ENABLED=0 go run ./scripts/testcount $(TIER_VM) -report "vm=go run ./scripts/testvm"

.PHONY: test-pgx
test-pgx: need-go ## pgx's own test suite, straight and in each way through conmgr (root)
	@go run ./scripts/pgxsuite

.PHONY: test-boot
test-boot: need-go ## the packages on booted Debian systems (root, debootstrap, systemd-container)
	@scripts/install-deps.sh boot
	@go run ./scripts/testcount -tier "boot=-count=1 -timeout 40m ./scripts/boot/"

.PHONY: test-lossy
test-lossy: need-go ## the rows of bad paths for BADPATH (10m) each (root)
	@CM_TEST_LOSSY=$(BADPATH) go run ./scripts/testcount \
		-tier "lossy=-count=1 -parallel 8 -timeout 60m -run Loss|Scrambled ./cmd/e2e/"

.PHONY: leak
leak: need-go ## LEAKS (100000) connects of direct mode for Go leave nothing behind
	CM_TEST_LEAK=$(LEAKS) go test -count=1 ./conmgr/client/ -run 'TestLeak$$' -v -timeout 60m

.PHONY: lint
lint: need-go ## gofmt, vet, staticcheck, style
	@unformatted=$$(gofmt -l . 2>&1 || true); \
		if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	@if [ "$$(staticcheck -version 2>/dev/null | cut -d' ' -f3)" = "($(STATICCHECK))" ]; \
		then lint=staticcheck; else lint="go run honnef.co/go/tools/cmd/staticcheck@v$(STATICCHECK)"; fi; \
		echo "$$lint"; $$lint -checks inherit,ST1000,ST1020,ST1021,ST1022 ./...
	scripts/check-style.sh
	@$(MAKE) check-generated

.PHONY: generate
generate: need-go ## compile bpf/ into agent/linkhint (clang)
	scripts/generate.sh

.PHONY: check-generated
check-generated: need-go ## compare the committed BPF objects with their source (clang)
	@scripts/generate.sh --check

.PHONY: fuzz
fuzz: need-go ## fuzz each target for FUZZTIME (30s)
	@for pkg in $$(go list ./...); do \
		dir=$$(go list -f '{{.Dir}}' "$$pkg"); \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go 2>/dev/null | cut -c6-); do \
			echo "$$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg"; \
		done; \
	done

.PHONY: sim-nightly
sim-nightly: need-go ## 100,000 seeds of both heartbeat ends on bad networks
	go test -count=1 ./agent/heartbeat/ -run Sim -sim.seeds=100000 -timeout 60m -v

.PHONY: model
model: need-go ## all that both heartbeat ends can do together, within wider bounds
	go test -count=1 ./watchdog/ -run 'TestModel$$' -model.full -timeout 60m -v

.PHONY: bench-verdict
bench-verdict: need-go ## measure verdicts after silence (root)
	go run ./scripts/bench/verdict

.PHONY: bench-scale
bench-scale: need-go ## measure 1,000 to 10,000 sessions of one pgwatchdog (root)
	go run ./scripts/bench/scale

.PHONY: bench-kill
bench-kill: need-go ## kill 100 to 10,000 sockets of one peer, against ss -K (root)
	go run ./scripts/bench/kill

.PHONY: bench-fault
bench-fault: need-go ## errors of 5,000 applications when their instance is lost (root)
	go run ./scripts/bench/fault

.PHONY: bench-modes
bench-modes: need-go ## measure each way through conmgr, HAProxy and PgBouncer (root)
	go run ./scripts/bench/modes

.PHONY: soak
soak: need-go ## SOAK (10m) at 50 ms x 5 over UDP, busy, 10 % loss (root)
	go run ./scripts/bench/soak -for $(SOAK)

.PHONY: mutants
mutants: need-go ## put in known bugs one by one; a test must find each
	go run ./scripts/mutants

.PHONY: need-go
need-go:
	@have=$$(go env GOVERSION 2>/dev/null | sed 's/^go//' || true); \
	if [ "$$(printf '%s\n' "$(GO_NEEDED)" "$${have:-0}" | sort -V | head -n 1)" != "$(GO_NEEDED)" ]; then \
		debian=$$(apt-cache policy golang-go 2>/dev/null | awk '/Candidate:/ { print $$2 }' || true); \
		echo "Go $(GO_NEEDED) or later is needed; found $${have:-none} in PATH, /usr/local/go/bin." >&2; \
		echo "This system's golang-go package is $${debian:-unknown}: Debian 12's 1.19 is too old, backports too." >&2; \
		echo "Install the archive from https://go.dev/dl/ into /usr/local/go." >&2; \
		exit 1; \
	fi
