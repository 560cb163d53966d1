# A bare "make" lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# Time for each fuzz target, and how many run at once (each on one core).
FUZZTIME  ?= 20s
FUZZ_JOBS ?= $(shell nproc)
# Upper bound in seconds for all fuzz targets together; 0 is none. With more targets than fit, each gets less.
FUZZ_TOTAL ?= 0
# How long an input that reaches new code, or fails, is shrunk: .ci/fuzz says why so briefly.
FUZZ_MINIMIZE ?= 10x
# Random clusters for the planner's simulator in "make fuzz"; 0 is none.
SIM_SEEDS ?= 100000

BENCH ?= .

# Go's own bound, 10 minutes a package, is too near for the long suites on a machine that others use too.
TEST_TIMEOUT ?= 25m

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Stock RocksDB of the three lines that TiKV forked.
ROCKSDBJNI := 6.4.6 6.29.5 8.10.2
ORACLE_DIR := .cache/oracle
ORACLE_JARS := $(ROCKSDBJNI:%=$(ORACLE_DIR)/rocksdbjni-%.jar)

# TiKV's own raft-engine in a small program; its target directory is not committed, its Cargo.lock is.
RAFTENGINE := tests/oracle/raftengine
RAFTENGINE_JUDGE := $(RAFTENGINE)/target/release/raftengine-judge

# etcd as PD embeds it, in a small program of a module of its own.
ETCD := tests/oracle/etcd/judge
ETCD_JUDGE := $(ORACLE_DIR)/etcd-judge

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the static binary bin/tikv-repair
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o bin/tikv-repair \
		-ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)' ./cmd/tikv-repair

.PHONY: demo
demo: build ## repair real TiKV directories of the fixtures before your eyes
	tests/demo/demo.sh

.PHONY: test
test: ## run all tests that need nothing but Go (of the crash suite only the short form; make crash runs it whole)
	go test -timeout $(TEST_TIMEOUT) $$(go list ./... | grep -v /tests/crash)
	go test -timeout $(TEST_TIMEOUT) -short ./tests/crash/...
	@missing=(); \
	for tool in ldb sst_dump java javac; do command -v $$tool > /dev/null || missing+=($$tool); done; \
	for judge in $(ORACLE_JARS) $(RAFTENGINE_JUDGE) $(ETCD_JUDGE); do [[ -e $$judge ]] || missing+=($${judge##*/}); done; \
	if (($${#missing[@]} > 0)); then echo "SKIPPED: tests that ask real RocksDB, raft-engine or etcd; missing: $${missing[*]} (make oracle)"; fi

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, and the rules of tests/arch
	@unformatted=$$(gofmt -l $$(find . -name '*.go' -not -path './.cache/*' -not -path './.git/*')); \
	if [[ -n "$$unformatted" ]]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	@if [[ -e /usr/include/rocksdb/c.h || "$${TIKV_REPAIR_ORACLE:-}" = 1 ]]; then \
		echo 'CGO_ENABLED=1 go vet -tags rocksdb ./...'; CGO_ENABLED=1 go vet -tags rocksdb ./...; \
	else echo 'SKIPPED: go vet -tags rocksdb (no rocksdb/c.h; install librocksdb-dev)'; fi
	go run $(STATICCHECK) ./...
	go test -count=1 ./tests/arch

# Where nothing runs at the same time there is no race: only packages whose text starts goroutines (of scan: check; of the commands:
# those with a progress report), and the rewind as a whole.
.PHONY: race
race: ## short tests under the race detector, of packages that start goroutines; of the suites on whole directories only a run with parallel passes
	@pkgs=$$(grep -rlE --include='*.go' '^[[:space:]]+go (func|[A-Za-z_.]+)\(|\.Go\(' repair plan engine mvcc raftstate | xargs -n1 dirname | sort -u | sed 's|^|./|' | xargs); \
	echo CGO_ENABLED=1 go test -race -short $$pkgs; CGO_ENABLED=1 go test -timeout $(TEST_TIMEOUT) -race -short $$pkgs
	CGO_ENABLED=1 go test -timeout $(TEST_TIMEOUT) -race -short -run 'Check|Together|Interrupted|LogFile|Scripts/(check|dump|reset)|DryRun|OnDisk|Verify' ./scan ./cmd/tikv-repair ./tests/rewind

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (20s), FUZZ_JOBS at once; then the planner on SIM_SEEDS (100000) random clusters
	FUZZTIME='$(FUZZTIME)' FUZZ_JOBS='$(FUZZ_JOBS)' FUZZ_TOTAL='$(FUZZ_TOTAL)' FUZZ_MINIMIZE='$(FUZZ_MINIMIZE)' .ci/fuzz
	[[ '$(SIM_SEEDS)' = 0 ]] || TIKV_REPAIR_SIM_SEEDS='$(SIM_SEEDS)' go test -count=1 -timeout 0 -v -run 'TestSimulator$$' ./plan

.PHONY: crash
crash: ## cut the power at every write: the crash tests on whole directories
	go test -timeout $(TEST_TIMEOUT) -count=1 -run Crash ./tests/crash/...

# datadriven registers -rewrite; test binaries without it would reject the flag. What was expected before is kept by git alone,
# so golden files with changes that are not committed are not overwritten. GOLDEN="./mvcc ./plan" limits it to these packages.
GOLDEN ?=
.PHONY: golden
golden: ## rewrite committed golden files from what the code does now; then read git diff (GOLDEN=packages)
	@pkgs='$(GOLDEN)'; \
	if [[ -z "$$pkgs" ]]; then \
		pkgs=$$({ grep -rlE --include='*_test.go' 'cockroachdb/datadriven|flag\.Bool\("rewrite"' . || true; } | xargs -r -n1 dirname | sort -u | xargs); \
	fi; \
	if [[ -z "$$pkgs" ]]; then echo 'no package with golden files'; exit 0; fi; \
	for p in $$pkgs; do dirty=$$(git status --porcelain -uall -- "$$p/testdata"); \
		if [[ -n "$$dirty" ]]; then echo "not committed, refusing to overwrite:"; echo "$$dirty"; exit 1; fi; done; \
	echo go test -count=1 $$pkgs -rewrite; go test -count=1 $$pkgs -rewrite

.PHONY: bench
bench: build ## rewind against tikv-ctl's and BR's way, on generated stores (librocksdb-dev, g++; BENCH_SCALE=0.2, 1 is 6 million records)
	@mkdir -p .cache/bench/bin
	go build -o .cache/bench/bin/bench ./tests/bench
	.cache/bench/bin/bench

.PHONY: microbench
microbench: ## benchmarks of single packages (BENCH=regexp)
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

# Only packages that ask a judge: the others do not change with the tag.
.PHONY: oracle
oracle: oracle-deps ## compare with real RocksDB, raft-engine and etcd; a missing judge fails (librocksdb-dev, rocksdb-tools, Java, Rust)
	@pkgs=$$(go list -tags rocksdb -f '{{.ImportPath}} {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}' ./... \
		| awk '/tests\/oracle\/|linxGnu\/grocksdb/ { print $$1 }' | grep -vE '/tests/(crash|badinput)'); \
	echo CGO_ENABLED=1 TIKV_REPAIR_ORACLE=1 go test -count=1 -tags rocksdb $$pkgs; \
	CGO_ENABLED=1 TIKV_REPAIR_ORACLE=1 go test -timeout $(TEST_TIMEOUT) -count=1 -tags rocksdb $$pkgs
	TIKV_REPAIR_ORACLE=1 go test -count=1 -run RocksDB ./tests/badinput

.PHONY: oracle-deps
oracle-deps: $(ORACLE_JARS) $(RAFTENGINE_JUDGE) $(ETCD_JUDGE) ## fetch real RocksDB (rocksdbjni, Maven Central), build real raft-engine (crates.io) and etcd

$(RAFTENGINE_JUDGE): $(RAFTENGINE)/Cargo.toml $(RAFTENGINE)/Cargo.lock $(wildcard $(RAFTENGINE)/src/*.rs)
	cargo build --release --locked --manifest-path $(RAFTENGINE)/Cargo.toml
	@touch $@

$(ETCD_JUDGE): $(ETCD)/go.mod $(ETCD)/go.sum $(wildcard $(ETCD)/*.go)
	@mkdir -p $(ORACLE_DIR)
	cd $(ETCD) && go build -trimpath -buildvcs=false -o $(CURDIR)/$@ .

# Into a directory of its own first: a half-fetched jar must not look like a whole one.
$(ORACLE_DIR)/rocksdbjni-%.jar:
	@mkdir -p $(ORACLE_DIR)/part-$*
	mvn -q -B dependency:copy -Dartifact=org.rocksdb:rocksdbjni:$* -DoutputDirectory=$(CURDIR)/$(ORACLE_DIR)/part-$*
	@mv $(ORACLE_DIR)/part-$*/rocksdbjni-$*.jar $@ && rmdir $(ORACLE_DIR)/part-$*
