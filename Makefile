# pgherd: what one runs. `make help` lists it.
# Every target installs what it needs and the machine lacks (scripts/install-deps).

SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo
ARGS ?=
FUZZ_SECONDS ?= 600
DIFFSQL ?= diffsql.py

.PHONY: help build demo test check lint bench bench-tpcb bench-commit bench-several bench-tpch bench-cache soak-cache test-clients fuzz kills isolation soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the program, optimised: release/pgherd in the directory that cargo builds in
	@scripts/install-deps demo
	$(CARGO) build --release --locked

demo: build ## throwaway servers with a shop's rows behind pgherd; ARGS=--once for a tour that ends
	@$(CARGO) run --quiet --release --locked -- demo $(ARGS)

check: ## formatting, lints and documentation
	@scripts/install-deps test
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

test: check ## check, then all tests, against PostgreSQL servers of their own
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		set -ex; $(CARGO) test --locked --doc; $(CARGO) nextest run --locked $(ARGS); \
	else \
		set -ex; $(CARGO) test --locked $(ARGS); \
	fi

bench: ## pgbench directly, through a bare relay, PgBouncer and pgherd; QUICK=1 for a few minutes
	@scripts/install-deps bench
	$(CARGO) build --release --locked
	python3 benches/proxies.py run $(if $(QUICK),--quick) $(ARGS)

bench-tpcb: ## a tpcb-like load keyed by bid on four shards; fails unless every shard's sums agree
	@scripts/install-deps bench
	$(CARGO) build --release --locked
	python3 benches/proxies.py tpcb $(ARGS)

bench-commit: ## commits on several shards beside commits on one; ARGS="--before PROGRAM" puts another build beside
	@scripts/install-deps bench
	$(CARGO) build --release --locked
	python3 benches/commit.py $(ARGS)

bench-several: ## what putting answers of four shards together costs beside the shards' own work
	@scripts/install-deps bench
	$(CARGO) build --release --locked
	python3 benches/several.py $(ARGS)

bench-tpch: ## TPC-H's queries over four shards beside one PostgreSQL; DIFFSQL=the program that makes rows and compares
	@scripts/install-deps bench
	$(CARGO) build --release --locked
	python3 benches/tpch.py $(DIFFSQL) $(ARGS)

bench-cache: ## a shop's reads through the cache: in the process, through Redis, and without it
	@scripts/install-deps bench
	$(CARGO) build --release --locked
	python3 benches/cache.py $(ARGS)

soak-cache: ## readers and writers on several proxies and past them while these and Redis are disturbed, for five minutes
	@scripts/install-deps test
	CACHE_SECONDS=300 $(CARGO) test --locked --test it no_read_is_older -- --nocapture

test-clients: ## what drivers do, through pgherd and on plain PostgreSQL: a matrix
	@scripts/install-deps clients
	$(CARGO) build --release --locked --example client_habits
	$(CARGO) build --release --locked
	python3 tests/clients/run.py $(ARGS)

fuzz: ## each fuzz target for FUZZ_SECONDS (600)
	@scripts/install-deps fuzz
	scripts/fuzz $(FUZZ_SECONDS) $(ARGS)

kills: ## transfers between shards with the proxy killed 500 times, at each step of their commits
	@scripts/install-deps test
	KILLS=500 $(CARGO) test --locked --test it bank:: -- --nocapture

isolation: ## histories of transactions over several shards, checked for anomalies, with proxies killed: 5 minutes each
	@scripts/install-deps test
	ISOLATION_SECONDS=300 $(CARGO) test --locked --test it isolation:: -- --nocapture --test-threads 1

soak: ## a shard killed every two seconds under load for a minute
	@scripts/install-deps bench
	$(CARGO) build --release --locked
	python3 benches/proxies.py faults $(ARGS)

clean: ## what builds and benches made
	$(CARGO) clean
	rm -rf bench-results
