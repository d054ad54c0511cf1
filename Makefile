# The one place that knows how things are run; .ci/run calls nothing else.
CARGO ?= cargo

.DEFAULT_GOAL := help
.PHONY: help demo test check deny bench compare simulate prove desktop cluster-faults cluster-bench

help: ## Lists these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: ## Runs the example alert bot on a sample feed, twice: alerts once
	$(CARGO) build --profile demo --package seen-demo
	@CARGO='$(CARGO)' scripts/demo

# SEEN_SMALL_INDEX lets the index in the file be written, merged and thrown away all the time, also in small files.
test: ## All tests, and a short simulation: needs Rust and a C compiler
	$(CARGO) test --all-features
	SEEN_SMALL_INDEX=1 SEEN_MODEL_SEED=3 SEEN_MODEL_CASES=250 $(CARGO) test --all-features --test model
	$(CARGO) test --package bench-compare --package bench-harness --package async-feed-fetcher
	$(CARGO) test --all-features --package seen-cluster -- --test-threads=8
	$(CARGO) test --package cluster-harness --package contract-suite
	SEEN_SIMULATE_SEEDS=60 SEEN_SIMULATE_SECONDS=110 $(CARGO) run --quiet --package seen-simulator

# SEEN_SIMULATE_SEED, _SEEDS, _STEPS and _SECONDS say which seeds run, and for how long.
simulate: ## Looks for bugs that no test covers: stores in one process, then real ones. 15 minutes
	$(CARGO) run --package seen-simulator
	$(CARGO) test --all-features --test index_in_the_file -- --ignored --test-threads=1
	SEEN_PROCESSES_BOUNDS=1 SEEN_PROCESSES_SECONDS=120 \
	    $(CARGO) test --profile bench --all-features --test many_processes -- --nocapture

# The waits of Redis: a server is taken to be dead after 5 s. SEEN_REQUIRE_CLUSTER=1 fails where no server is installed.
cluster-faults: ## Servers die, pause and move slots, and clocks are wrong, under load: needs redis-server. 5 minutes
	$(CARGO) test --package seen-cluster --test faults -- --ignored --nocapture --test-threads=1

cluster-bench: ## What the verbs cost on a cluster: writes docs/performance-cluster.md. Needs redis-server
	SEEN_CLUSTER_REPORT=$(CURDIR)/docs/performance-cluster.md $(CARGO) bench --package seen-cluster --bench cluster

prove: ## Puts each seeded bug of tests/bugs back and checks that it is found. An hour
	tests/bugs/prove

# The packages beside the library and the command: the rest of the workspace, and what cannot be in it.
others := --package seen-demo --package async-feed-fetcher --package seen-simulator --package bench-compare --package bench-four-ways \
    --package bench-harness --package bench-peers --package cluster-harness --package contract-suite
pools := --manifest-path crates/bench-pools/Cargo.toml

# Not part of the other targets: Tauri takes minutes to build. Debian: libwebkit2gtk-4.1-dev librsvg2-dev xvfb
desktop: ## The Tauri example, for real: builds it, runs it under Xvfb, compares its page with the store
	examples/tauri_state/check

check: ## Formatting, lints, documentation, layers, licences
	$(CARGO) fmt --all --check
	$(CARGO) fmt --check $(pools)
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy $(others) -- -D warnings
	$(CARGO) clippy $(pools) -- -D warnings
	$(CARGO) clippy --package seen-cluster --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --all-features
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --all-features --package seen-cluster
	scripts/check-layers
	scripts/check-layers --prove
	@$(CARGO) deny --version >/dev/null 2>&1 && exec $(MAKE) deny || \
	    echo 'cargo-deny is not installed: the licences of the dependencies are not checked'

deny: ## Licences, bans and sources of the dependencies: needs cargo-deny
	$(CARGO) deny check licenses bans sources

bench: ## What the verbs cost, in time, memory and disk
	$(CARGO) bench --bench store

# The figures depend on nothing else being busy. The contenders take some minutes to build the first time.
# RocksDB and Redis take part if librocksdb-dev and redis-server are installed.
# COMPARE_ONLY=lmdb,fjall measures this store beside those only.
compare: ## This store against its peers: writes docs/performance.md and that of the cluster. 38 minutes; COMPARE_QUICK=1: 10
	$(CARGO) run --profile bench --package bench-compare
	$(MAKE) cluster-bench
