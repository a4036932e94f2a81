# Parley's commands. Each gets what it needs by itself, or names what is missing and how to get it (build/need.sh).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
SOURCES = $$(go list -f '{{.Dir}}' ./...)
# Beside this a command finds a PostgreSQL cluster of its own, which ends with it.
POSTGRES = go run ./test/postgres/with --
NPM_CI = npm ci --no-audit --no-fund --loglevel=error

# How long each fuzz test, the soak and the chaos run, what `make run`, the benchmarks and the chaos pass on, and which tests to run.
FUZZTIME ?= 20s
DURATION ?= 30m
# What the chaos breaks, how, and the number that decides when: it is printed, and a run with it makes the same choices.
WORLD ?= postgres
FAULTS ?= all
SEED ?=
ARGS ?=
RUN ?=

.PHONY: help run build test test-unit test-interop test-deps test-chaos test-faults chaos lint bench bench-gateway soak fuzz clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Build, and serve with the embedded defaults (ARGS="--help" shows the settings)
	@exec bin/parley serve $(ARGS)

build: ## Build bin/parley
	@sh build/need.sh go
	@CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-X main.version=$(VERSION)" -o bin/ ./cmd/parley

# All parts run, so that one failure does not hide another; the last line sums up.
test: test-deps ## Run everything: lint, Go tests on SQLite and PostgreSQL, official clients
	@summary="make test:"; failed=0; \
	for part in lint test-unit test-interop; do \
		echo "== $$part"; \
		if $(MAKE) $$part; then summary+=" $$part passed,"; else summary+=" $$part FAILED,"; failed=1; fi; \
	done; \
	echo "$$summary $$SECONDS s"; exit $$failed

test-deps: ## Get what the tests need
	@sh build/need.sh go node gcc postgres chromium

test-unit: ## Run the Go tests with the race detector (RUN=regexp picks some)
	@sh build/need.sh go gcc postgres
	@CGO_ENABLED=1 $(POSTGRES) go test -race -shuffle=on -timeout 8m $(if $(RUN),-run '$(RUN)') ./...

test-interop: build ## Run the official Socket.IO clients, in Node and in Chromium, against the built server
	@sh build/need.sh node postgres chromium
	@cd test/interop && $(NPM_CI)
	@$(POSTGRES) sh -c 'cd test/interop && exec node --test --test-timeout=180000 --test-reporter=spec'

# What it breaks with is tested first, where it can be: most faults need root.
test-chaos: build ## Test the faults, then break real servers for three minutes: no promise may break, and each broken build must be caught (SEED=n)
	@sh build/need.sh go postgres strace nft
	@if [ "$$(id -u)" -eq 0 ]; then $(MAKE) test-faults; fi
	@go run ./test/chaos -short $(if $(SEED),-seed $(SEED)) $(ARGS)

test-faults: build ## Show that each fault of the chaos does what it says, and is healed (as root)
	@sh build/need.sh go postgres strace nft
	@PARLEY_TEST_BINARY=$(CURDIR)/bin/parley go test -tags chaos -timeout 10m ./test/chaos/world

chaos: build ## Break real servers for long (DURATION=10m WORLD=postgres FAULTS=kill,cut SEED=n)
	@sh build/need.sh go postgres strace nft
	@go run ./test/chaos -duration $(DURATION) -world $(WORLD) -faults $(FAULTS) -lanes 2 $(if $(SEED),-seed $(SEED)) $(ARGS)

# With the tag all files are looked at, those of test-chaos too.
lint: ## Check formatting, vet, staticcheck
	@sh build/need.sh go
	@unformatted=$$(gofmt -l $(SOURCES)); \
	if [ -n "$$unformatted" ]; then printf 'make: not formatted, run gofmt -w on:\n%s\n' "$$unformatted" >&2; exit 1; fi
	@go vet -tags chaos ./...
	@go tool staticcheck -tags chaos ./...

bench: build ## Measure the built server, and write the table into docs/performance.md
	@sh build/need.sh go
	@go run ./test/load -o docs/performance.md $(ARGS)

bench-gateway: build ## Measure the gateway beside Node's socket.io and Centrifuge, into docs/performance.md
	@sh build/need.sh go node
	@cd test/bench/node && $(NPM_CI)
	@go run ./test/bench/gateway -o docs/performance.md $(ARGS)

soak: build ## Run the built server under clients that come and go, and see that nothing grows (DURATION=30m)
	@sh build/need.sh go
	@go run ./test/bench/soak -duration $(DURATION) -o docs/performance.md $(ARGS)

# Go fuzzes one test of one package at a time.
fuzz: ## Run each fuzz test for a while (FUZZTIME=20s)
	@sh build/need.sh go
	@go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package folder; do \
		for name in $$(cat "$$folder"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
			echo "== $$package $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 50x "$$package"; \
		done; \
	done

clean: ## Remove what was built or fetched; ./data stays
	@rm -rf bin .cache test/interop/node_modules test/bench/node/node_modules examples/*/node_modules
