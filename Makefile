# SPDX-FileCopyrightText: The apigw-guardian Authors
# SPDX-License-Identifier: Apache-2.0
#
# Everything that a contributor runs, and all that CI runs. It asks for Go, git and GNU make; further tools are pinned in
# the go.mod files below tools and built on first use into the user's cache folder.

GO  ?= go
BIN := bin

# One setting for build, test and lint, so that they share Go's build cache and need no C compiler.
# Go's race detector does need one, so RACE=1 turns cgo on for that run.
RACE ?=
export CGO_ENABLED := $(if $(RACE),1,0)

# go.mod names the patch release of Go that has every security fix. A Go that is older downloads it as a module.
export GOTOOLCHAIN ?= auto

# What the binary calls itself. Recursive on purpose: only `build` asks git.
VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# Further arguments for the tools behind `test`, `bench` and `lint`: make test TEST_ARGS='-run TestDecide -v'.
TEST_ARGS  ?=
BENCH_ARGS ?=
LINT_ARGS  ?=

# The end-to-end programs are built and then take the shell's place: `go run` would stand between them and a SIGTERM,
# and leave a testbed behind.
run-e2e = $(GO) build -o $(BIN)/e2e-$(1) ./e2e/$(1) && exec $(BIN)/e2e-$(1)

say = @echo '==>'

# The chart's templates, branch by branch, against charts/apigw-guardian/tests.
unittest-chart = tool=$$(GO='$(GO)' tools/install helm-unittest) && echo '==> helm-unittest charts/apigw-guardian' && \
	"$$tool" --strict charts/apigw-guardian

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

##@ Start here

.PHONY: help
help: ## Show this text
	@if [ -t 1 ] && [ -z "$${NO_COLOR:-}" ]; then bold=$$(printf '\033[1m'); plain=$$(printf '\033[0m'); fi; \
	awk -v bold="$${bold:-}" -v plain="$${plain:-}" ' \
		BEGIN { FS = ":.*## "; print "apigw-guardian: authorizes API Gateway on a Kubernetes cluster, and guards what it reserves there."; \
			print "Usage: make TARGET [VARIABLE=VALUE]" } \
		/^##@ / { printf "\n%s%s%s\n", bold, substr($$0, 5), plain } \
		/^[a-z0-9-]+:.*## / { printf "  %-11s  %s\n", $$1, $$2 } \
		/^#% / { split(substr($$0, 4), part, " = "); printf "  %-11s  %s\n", part[1], part[2] }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: build ## Show the guard at work on a real Kubernetes API server; stays up to try by hand until Ctrl-C
	$(say) 'demo on a real API server (the first run builds it, which takes minutes)'
	@$(call run-e2e,demo)

##@ Build and test

.PHONY: build
build: require-go ## Build bin/apigw-guardian
	$(say) 'build $(BIN)/apigw-guardian $(VERSION)'
	@$(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)' \
		-o $(BIN)/apigw-guardian ./cmd/apigw-guardian

# Two packages at a time: the end-to-end packages each run a control plane. The longest ones come first.
.PHONY: test
test: require-go ## Run the unit tests, and the end-to-end tests on a real API server
	@$(unittest-chart)
	$(say) 'go test ./e2e/matchconditions (a module of its own)'
	@$(GO) -C e2e/matchconditions test -count=1 $(TEST_ARGS) ./...
	$(say) 'go test ./...'
	@report=$$(mktemp) && trap 'rm -f "$$report"' EXIT && code=0 && \
	{ E2E_REPORT="$$report" $(GO) test -p 2 -count=1 -timeout 40m $(if $(RACE),-race) $(TEST_ARGS) ./e2e/recording ./e2e/certs ./e2e ./... || code=$$?; } && \
	if [ -s "$$report" ]; then echo '==> seen on the real API server'; sort -u "$$report"; fi && exit $$code

# A part of `test`, for whoever works at the chart.
.PHONY: chart
chart: require-go ## Lint and unit-test the chart, with helm 3 and 4, and try its renderings on a real API server
	@$(unittest-chart)
	$(say) 'go test ./e2e/chart'
	@$(GO) test -count=1 $(TEST_ARGS) ./e2e/chart

# As root on Linux only, with the Debian packages of e2e/node/packages.txt.
.PHONY: e2e
e2e: require-go ## Install the chart with helm on a real node: needs root, and the packages of e2e/node/packages.txt
	$(say) 'go test ./e2e/recording, with all denials and long outages'
	@E2E_FULL=1 $(GO) test -count=1 -timeout 40m $(TEST_ARGS) -run 'TestEveryDenial|TestNoDenial' ./e2e/recording
	$(say) 'go test ./certs ./e2e/certs, with more worlds and longer lifetimes'
	@E2E_FULL=1 $(GO) test -count=1 -timeout 40m $(TEST_ARGS) \
		-run 'TestEveryAPIServer|TestNoWrite|TestCAsRotate|TestAnUnknownCAIsNever|TestCertManager|TestAnExpiredCertificate' ./certs ./e2e/certs
	$(say) 'go test ./e2e/node ./e2e/install'
	@E2E_NODE=1 $(GO) test -p 1 -count=1 -timeout 40m -v $(TEST_ARGS) ./e2e/node ./e2e/install

.PHONY: e2e-long
e2e-long: ## The same with 50 restarts and 50 kills under load: before a release
	@E2E_REPETITIONS=50 $(MAKE) e2e

.PHONY: bench
bench: require-go ## Run the Go benchmarks, then measure the guard through a real API server
	$(GO) test -run '^$$' -bench . -benchmem $(BENCH_ARGS) ./pkg/...
	$(say) 'measure through the API server'
	@$(call run-e2e,bench)

##@ Keep it right (what CI runs)

.PHONY: lint
lint: require-go ## Check the style and the usual mistakes; LINT_ARGS=--fix repairs what can be repaired
	@tool=$$(GO='$(GO)' tools/install golangci-lint) && echo '==> golangci-lint run' && "$$tool" run $(LINT_ARGS) && \
		cd e2e/matchconditions && echo '==> golangci-lint run (e2e/matchconditions)' && "$$tool" run $(LINT_ARGS)

.PHONY: verify
verify: require-go ## Run generate, and fail if that changed anything
	@MAKE='$(MAKE)' tools/verify

.PHONY: vuln
vuln: require-go ## Scan for known vulnerabilities; fail if one has a fix
	$(say) 'govulncheck ./...'
	@$(GO) -C tools/vuln test ./...
	@GO='$(GO)' tools/vulncheck

##@ Change it

.PHONY: generate
generate: require-go ## Bring generated files, go.mod, go.sum and formatting up to date, in place
	$(say) 'go mod tidy, go generate, go fmt, helm-docs'
	@$(GO) mod tidy
	@$(GO) -C tools mod tidy
	@$(GO) -C tools/helm mod tidy
	@$(GO) -C tools/vuln mod tidy
	@$(GO) -C e2e/certmanager mod tidy
	@$(GO) -C e2e/matchconditions mod tidy
	@$(GO) generate ./...
	@$(GO) fmt ./...
	@$(GO) -C e2e/matchconditions fmt ./...
	@tool=$$(GO='$(GO)' tools/install helm-docs) && \
		"$$tool" --chart-search-root=charts --sort-values-order=file --log-level=warning

.PHONY: corpus
corpus: build ## Capture the corpus of AdmissionReviews, which the tests share, from a real API server
	$(say) 'capture the review corpus'
	@$(call run-e2e,capture)

.PHONY: clean
clean: ## Remove bin
	rm -rf $(BIN)

##@ Variables
#% K8S_VERSION = Kubernetes release of demo, test, bench and corpus (1.37.2; also 1.30.14, 1.28.15)
#% DEMO_STAY = 0 ends the demo by itself
#% E2E_LONG = 1 gives the test of rotations leaves of 30 s and CAs of 3 min: it takes 5 to 7 minutes
#% RACE = 1 runs the tests under Go's race detector (needs a C compiler)
#% BENCH_PARTS = what make bench measures through the API server: P5 P8 P9 P10 P13 (default all)
#% BENCH_ATTACK = a part of the name of an attack: P13 then measures under those attacks only
#% TEST_ARGS = further arguments of go test; likewise BENCH_ARGS, LINT_ARGS

.PHONY: require-go
require-go:
	@command -v $(GO) >/dev/null 2>&1 || { \
		echo "make: $(GO) not found. Install Go $$(awk '$$1 == "go" { print $$2 }' go.mod) or newer, from https://go.dev/dl/ or your distribution," \
			"and put its bin folder into PATH." >&2; exit 127; }
