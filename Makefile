# `make` lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install-deps tools lint test conformance loom fuzz fuzz-stable bench targets isolation soak compare run clean

# Where rustup puts what it installs.
export PATH := $(HOME)/.cargo/bin:$(PATH)
CARGO ?= cargo
E2E := tests/e2e
TS := clients/typescript
SUITE := tests/conformance/.suite
FUZZ_TARGETS ?= $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))
FUZZ_SECONDS ?= 60
FUZZ_SANITIZER ?= address
FUZZ_RUNS ?= 1000000

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## Start a node on http://127.0.0.1:8080/
	$(CARGO) run --release -- serve

test: install-deps ## Install what is missing, then lint and run every test
	$(MAKE) --no-print-directory lint
	$(CARGO) test --no-fail-fast

lint: ## Formatting and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

conformance: $(SUITE)/wstest ## Run the Autobahn test suite (WebSocket) against a node; report in artefacts/conformance
	$(CARGO) build --release
	tests/conformance/run.py $(SUITE)/wstest $${CARGO_TARGET_DIR:-target}/release/fanwire artefacts/conformance

loom: ## Check every interleaving of a link's bell and credit
	RUSTFLAGS="--cfg fanwire_loom" $(CARGO) test --target-dir target/loom --lib link::model

# libFuzzer asks for flags of nightly compilers; RUSTC_BOOTSTRAP lets the stable one take them. What is found on the way
# stays in fuzz/found: the corpus grows by hand.
fuzz: ## Fuzz with coverage: FUZZ_SECONDS (60) for each of FUZZ_TARGETS (all), FUZZ_SANITIZER (address) or none
	@command -v cargo-fuzz > /dev/null || $(CARGO) install cargo-fuzz
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/found/$$target && \
		dict=fuzz/dictionaries/$$target.dict && \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer $(FUZZ_SANITIZER) $$target fuzz/found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
			$$(test ! -f $$dict || echo -dict=$$dict) || exit 1; \
	done

fuzz-stable: ## Fuzz without a fuzzer: FUZZ_RUNS (1000000) inputs made by chance for each target
	FANWIRE_FUZZ_RUNS=$(FUZZ_RUNS) CARGO_PROFILE_TEST_OPT_LEVEL=2 $(CARGO) test --target-dir target/fuzz --test fuzz whatever_is -- --nocapture

bench: ## Run the benches (criterion)
	$(CARGO) bench

targets: ## Hold the promised figures: exits non-zero when one is missed
	$(CARGO) bench --bench targets

SECS ?= 10
isolation: ## What healthy clients notice while others misbehave (10 min; SECS=20 doubles it): exits non-zero when they do
	$(CARGO) bench --bench isolation -- --secs $(SECS)

MINUTES ?= 10
soak: ## Everything at once for MINUTES=10: exits non-zero when the node keeps memory, files or anything else of it
	$(CARGO) bench --bench soak -- --minutes $(MINUTES)

# COMPARE has words for the comparison: --quick, --resume, --only SCENARIO,..., --servers NAME,..., --reps N.
COMPARE ?=
compare: ## Measure Fanwire beside other servers, and write docs/compare.md (30 min; COMPARE=--quick: 4 min)
	$(CARGO) build --release
	benches/compare/compare.py $(COMPARE)

install-deps: tools $(E2E)/node_modules/.package-lock.json $(TS)/node_modules/.package-lock.json $(E2E)/.venv/installed $(E2E)/.bin/gorilla ## Install what the tests need and this machine lacks

tools:
	@$(E2E)/install-tools

# All are made anew when what they are made from changes.
$(E2E)/node_modules/.package-lock.json: $(E2E)/package.json $(E2E)/package-lock.json | tools
	cd $(E2E) && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund
	touch $@

$(TS)/node_modules/.package-lock.json: $(TS)/package.json $(TS)/package-lock.json | tools
	cd $(TS) && npm ci --no-audit --no-fund
	touch $@

$(E2E)/.venv/installed: $(E2E)/requirements.txt | tools
	rm -rf $(E2E)/.venv
	python3 -m venv $(E2E)/.venv || { echo "python3 -m venv fails: install python3-venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(E2E)/.venv/bin/pip install --quiet --disable-pip-version-check -r $(E2E)/requirements.txt
	touch $@

# gorilla/websocket comes from Debian's package: no module proxy is asked.
$(E2E)/.bin/gorilla: $(E2E)/gorilla/main.go | tools
	mkdir -p $(@D)
	GO111MODULE=off GOPATH=/usr/share/gocode go build -o $@ $<

$(SUITE)/wstest: tests/conformance/install | tools
	tests/conformance/install $(SUITE)

clean: ## Remove everything that was built or installed here
	$(CARGO) clean
	rm -rf $(E2E)/node_modules $(E2E)/.venv $(E2E)/.bin $(TS)/node_modules $(TS)/dist $(SUITE) artefacts benches/compare/.peers benches/compare/servers/node_modules fuzz/target fuzz/found
