# What a contributor does. `make` alone lists it.
#
# `make run` needs Go and make, nothing else. `make test` is what CI runs (.ci/run): it installs
# what is missing where it may, starts every service it needs on a free port, and ends them.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

# A checkout that git will not read (another owner's, an unpacked archive) still has to build.
VCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)
TOOL := go tool -modfile=tools/go.mod
# What is built for the tests is vetted by lint, all at once.
TEST := go test -race -shuffle=on -vet=off

# The end-to-end tests, the hostile peers and the audit run the real binary against the clock, so they run after
# everything else.
UNIT = $(shell go list ./... | grep -v -e '/e2e' -e '/audit$$' -e '/hostile$$')
FUZZ_TIME ?= 1m

# So many packages are tested at once, most of which wait: twice the processors.
AT_ONCE := $(shell echo $$((2 * $$(nproc))))

# Of `make sim`: one world, or so many from the first on.
SEED ?=
SEEDS ?= 10000
FIRST ?= 1

# Where the samples of a benchmark go, and what it says when a measurement fails, which is in the
# table and the report: that ends no run.
BENCH_JSON ?= bin/bench.json
BENCH_FULL_JSON ?= bin/bench-full.json
BENCH_ALL_JSON ?= bin/bench-all-cores.json
MEASURED = || [ $$? -eq 1 ]

# The node that .ci/deps fetched, where the system's is too old, goes before it.
WEB = PATH="$(CURDIR)/e2e/node_modules/node/bin:$$PATH" npm --prefix web --silent

.PHONY: help build run demo quick test test-unit sim test-web test-e2e test-hostile audit soak hostile upgrade-test packages web screenshots example deps lint vuln format fuzz bench bench-full bench-deps test-peers release test-release cover clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/millrace
	@go build -buildvcs=$(VCS) -trimpath -o bin/millrace ./cmd/millrace

run: build ## build, then serve live demo events on http://127.0.0.1:8080 (LISTEN=127.0.0.1:8090)
	@exec ./bin/millrace serve --demo $(if $(LISTEN),--listen $(LISTEN))

demo: build ## a real Redis, a gateway and all example workers, until Ctrl-C (LISTEN=127.0.0.1:8090)
	@go build -buildvcs=$(VCS) -trimpath -o bin/workers ./examples/workers
	@exec examples/workers/demo.sh

quick: ## unit tests without the race detector, under two minutes
	@go test -shuffle=on -p=$(AT_ONCE) $(UNIT)

test: deps lint vuln test-unit sim test-web test-e2e test-hostile ## everything: what CI runs

test-unit:
	@echo "unit tests, with the race detector"
	@$(TEST) -p=$(AT_ONCE) -timeout=8m $(UNIT)

test-web: ## the npm packages and the pages: format, types, unit tests, size, publint, built/ fresh
	@echo "the npm packages and the pages: biome, tsc, publint, vitest with the size budgets, built/ fresh"
	@$(WEB) test

packages: deps ## pack the npm packages into bin/packages, to be installed from there
	@mkdir -p bin/packages
	@$(WEB) run pack

web: deps ## build the pages into web/dashboard/built, which is committed
	@$(WEB) run dashboard

example: deps ## build examples/react into bin/examples/react
	@$(WEB) run example

screenshots: deps build ## take the pictures in docs/screenshots anew
	@mkdir -p docs/screenshots
	@PATH="$(CURDIR)/e2e/node_modules/node/bin:$$PATH" node e2e/drivers/screenshots.js "$$(command -v chromium)" bin/millrace docs/screenshots
	@PATH="$(CURDIR)/e2e/node_modules/node/bin:$$PATH" node e2e/drivers/screenshots-admin.js "$$(command -v chromium)" bin/millrace docs/screenshots

test-e2e:
	@echo "end-to-end tests: the real binary, Redis, browsers and proxies"
	@$(TEST) -parallel=6 -timeout=8m ./e2e/...

upgrade-test: ## 15,000 streams under traffic through five live upgrades (STREAMS=15000)
	@MILLRACE_UPGRADE_STREAMS=$(or $(STREAMS),15000) go test -count=1 -timeout=20m -v -run '^TestUpgradeDropsNobody$$' ./e2e

# Both wait for far more than they work.
test-hostile:
	@echo "hostile and broken peers: one test for each abuse case; the audit, in small: what clients see while Redis breaks"
	@$(TEST) -p=2 -parallel=16 -timeout=8m ./hostile ./audit

hostile: ## every abuse case with larger crowds, one after the other; writes docs/robustness.md
	@go test -count=1 -timeout=30m ./hostile -report $(CURDIR)/docs/robustness.md -crowd 5

# One goroutine a world, so without the race detector. Of hubs on loops one for 25 is played.
sim: ## play loops, and hubs on them, on a simulated kernel: SEEDS (10000) worlds from FIRST (1) on, or one, SEED
	@echo "loops, and hubs on them, on a simulated kernel: $(if $(SEED),seed $(SEED),$(SEEDS) seeds)"
	@go test -count=1 -timeout=60m -v -run='^Test(Hub)?Simulation$$' ./netio -args $(if $(SEED),-seed $(SEED),-seeds $(SEEDS) -first $(FIRST))

audit: build ## prove that nothing is lost in silence while Redis breaks, a minute and a half (AUDIT="--scenario cluster")
	@go build -buildvcs=$(VCS) -o bin/audit ./audit
	@exec ./bin/audit --gateway bin/millrace $(AUDIT)

soak: build ## an hour of 15,000 streams, churn, faults and abuse: nothing is lost, nothing grows (SOAK=3m to try)
	@go build -buildvcs=$(VCS) -o bin/audit ./audit
	@go build -buildvcs=$(VCS) -o bin/crowd ./e2e/crowd
	@exec ./bin/audit --scenario soak --for $(or $(SOAK),1h) --gateway bin/millrace --crowd bin/crowd $(AUDIT)

deps:
	@.ci/deps

lint: ## format, vet, staticcheck, errors wrapped with %w
	@files=$$($(TOOL) gofumpt -l .); if [ -n "$$files" ]; then \
		echo "not formatted, run 'make format':"; echo "$$files"; exit 1; fi
	@go vet ./...
	@$(TOOL) staticcheck ./...
	@$(TOOL) go-errorlint -asserts=false -comparison=false ./...
	@echo "lint: clean"

# Not ours to mend in the commit at hand, and asked of a database that may be out of reach.
vuln: ## known vulnerabilities in what we link (needs the network; never fails a build)
	@if $(TOOL) govulncheck -scan module >/dev/null 2>&1 || [ $$? -eq 3 ]; then \
		timeout 90 $(TOOL) govulncheck ./... || echo "govulncheck: see above; this does not fail the build"; \
	else echo "govulncheck: its database is out of reach, so it was not asked"; fi

format: ## format all Go files, and the npm packages where they are installed
	@$(TOOL) gofumpt -w .
	@if [ -e web/node_modules ]; then $(WEB) run format; fi

fuzz: ## run every fuzz target for FUZZ_TIME (1m) each
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			go test -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZ_TIME) $$package; \
		done; \
	done

bench: build bench-deps ## measure beside the floor, nchan and plain Go, about ten minutes
	@./bin/millrace bench --quick --subjects millrace,floor,floor-gather,nchan,plain-go --json $(BENCH_JSON)

# Ended in between, it goes on where it was when it is started again.
bench-full: build bench-deps test-peers ## measure everything beside everybody (90 minutes), write BENCHMARKS.md
	@./bin/millrace bench --full --append --json $(BENCH_FULL_JSON) $(MEASURED)
	@./bin/millrace bench fanout unicast --full --cores all --subjects millrace,floor,centrifuge --append --json $(BENCH_ALL_JSON) $(MEASURED)
	@./bin/millrace bench report $(BENCH_FULL_JSON) $(BENCH_ALL_JSON)

# The servers on other people's libraries are modules of their own, with a compiler's minute and
# downloads that nobody needs who does not measure them.
test-peers: ## vet and test the peers' servers of the benchmark
	@for peer in centrifuge nbio; do go vet -C bench/peers/$$peer ./... && go test -C bench/peers/$$peer ./...; done

bench-deps:
	@.ci/bench-deps

release: ## build a release of the last commit into bin/release: binaries, .deb, SBOM, checksums
	@deploy/release/release

# It builds everything twice, so CI only tries the pieces; as root, for dpkg.
test-release: ## try a release: the same bytes twice, and a package that comes and goes cleanly
	@deploy/release/check

cover: ## coverage per package, details in coverage.html
	@go test -coverprofile=coverage.out $(UNIT)
	@go tool cover -html=coverage.out -o coverage.html

clean: ## remove what was built
	@rm -rf bin coverage.out coverage.html e2e/node_modules web/node_modules web/*/dist
