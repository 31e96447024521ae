# SPDX-FileCopyrightText: The apigw-guardian Authors
# SPDX-License-Identifier: Apache-2.0
#
# Contributors and CI run these targets. They need Go, git and GNU make. The go.mod files below tools pin all other tools,
# which are built on first use into the user's cache directory.

GO  ?= go
BIN := bin

# Build, test and lint use the same setting, so that they share Go's build cache and need no C compiler.
# Go's race detector needs a C compiler: RACE=1 turns cgo on.
RACE ?=
export CGO_ENABLED := $(if $(RACE),1,0)

# go.mod names the patch release of Go that has every security fix. An older Go downloads that release as a module.
export GOTOOLCHAIN ?= auto

# The version that the binary prints. Recursive on purpose: only `build` runs git.
VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# More arguments for the tools behind `test`, `bench` and `lint`: make test TEST_ARGS='-run TestDecide -v'.
TEST_ARGS  ?=
BENCH_ARGS ?=
LINT_ARGS  ?=

# Each end-to-end program is built and then replaces the shell. `go run` would not pass on a SIGTERM, and would leave a
# testbed behind.
run-e2e = $(GO) build -o $(BIN)/e2e-$(1) ./e2e/$(1) && exec $(BIN)/e2e-$(1)

# gotest runs go test and prints a summary. Three packages run at a time, as they mostly wait; more would cost
# CPU time, a tenth of a CPU per idle control plane.
gotest = $(GO) build -o $(BIN)/e2e-gotest ./e2e/gotest && $(BIN)/e2e-gotest
test-flags = -p 3 -count=1 -timeout 40m $(TEST_ARGS)

# One guard binary for all end-to-end packages.
export E2E_PROGRAM = $(CURDIR)/$(BIN)/e2e-guardian
build-e2e = $(GO) build $(if $(COVER),-cover -coverpkg='$(product)') -o $(E2E_PROGRAM) ./cmd/apigw-guardian

# COVER=1: unit tests and the guard of the end-to-end tests count the statements of the product.
COVER    ?=
comma    := ,
space    := $(subst ,, )
unit     := ./certs/... ./cmd/... ./pkg/...
product  := $(subst $(space),$(comma),./certs/... ./cmd/... ./pkg/...)
coverage := $(CURDIR)/$(BIN)/coverage

say = @echo '==>'

# Every branch of the chart's templates, against charts/apigw-guardian/tests.
unittest-chart = tool=$$(GO='$(GO)' tools/install helm-unittest) && echo '==> helm-unittest charts/apigw-guardian' && \
	"$$tool" --strict charts/apigw-guardian

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

##@ Start here

.PHONY: help
help: ## Show this help
	@if [ -t 1 ] && [ -z "$${NO_COLOR:-}" ]; then bold=$$(printf '\033[1m'); plain=$$(printf '\033[0m'); fi; \
	awk -v bold="$${bold:-}" -v plain="$${plain:-}" ' \
		BEGIN { FS = ":.*## "; print "apigw-guardian: authorizes API Gateway on a Kubernetes cluster, and guards what it reserves there."; \
			print "Usage: make TARGET [VARIABLE=VALUE]" } \
		/^##@ / { printf "\n%s%s%s\n", bold, substr($$0, 5), plain } \
		/^[a-z0-9-]+:.*## / { printf "  %-16s  %s\n", $$1, $$2 } \
		/^#% / { split(substr($$0, 4), part, " = "); printf "  %-16s  %s\n", part[1], part[2] }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: build ## Show the guard on a real Kubernetes API server, and keep both running until Ctrl-C
	$(say) 'demo on a real API server (the first run builds it, which takes minutes)'
	@$(call run-e2e,demo)

##@ Build and test

.PHONY: build
build: require-go ## Build bin/apigw-guardian
	$(say) 'build $(BIN)/apigw-guardian $(VERSION)'
	@$(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)' \
		-o $(BIN)/apigw-guardian ./cmd/apigw-guardian

# The longest packages come first. The packages in `long` have no short form: only make e2e runs them.
# So are these tests of ./e2e/recording.
later    := TestNoDenialIsLostOverABadNetwork|TestTheRecordsOfTheMemoryComeBackWithTheirCRD|TestADiskThatIsFullFailsNoCall|TestAReceiverThatIsAwayMissesNoRecord
long     := ./e2e/certs ./e2e/retire ./e2e/drift ./e2e/unlock ./e2e/chart
packages = ./e2e/recording ./e2e/review ./e2e $$($(GO) list ./... | grep -vE '($(subst $(space),|,$(long:.%=%)))$$')

.PHONY: test
test: require-go ## Run the unit tests, and the end-to-end tests on a real API server
ifdef RACE
	$(say) 'go test -race $(unit)'
	@$(gotest) -race $(test-flags) -- $(unit)
else ifdef COVER
	@rm -rf $(coverage) && mkdir -p $(coverage)/unit $(coverage)/e2e && $(build-e2e)
	$(say) 'go test -cover $(unit)'
	@$(gotest) -cover -coverpkg='$(product)' $(test-flags) -- $(unit) -args -test.gocoverdir=$(coverage)/unit
	$(say) 'go test ./e2e/... with a guard that counts its statements'
	@export GOCOVERDIR=$(coverage)/e2e && $(gotest) -with=e2e/auditweb $(test-flags) -- ./e2e/recording ./e2e/certs ./e2e/review ./e2e ./e2e/...
	@$(GO) tool covdata textfmt -i=$(coverage)/unit,$(coverage)/e2e -o=$(coverage)/profile && \
		$(GO) tool cover -func=$(coverage)/profile | tail -1
else
	@$(unittest-chart)
	@$(build-e2e)
	$(say) 'go test ./... (with e2e/auditweb and e2e/matchconditions, modules of their own)'
	@$(gotest) -with=e2e/auditweb -with=e2e/matchconditions -skip='^($(later))$$' $(test-flags) -- $(packages)
endif

# A part of `test`, for work on the chart.
.PHONY: chart
chart: require-go ## Lint and unit-test the chart with helm 3 and 4, and dry-run its output on a real API server
	@$(unittest-chart)
	@$(build-e2e)
	$(say) 'go test ./e2e/chart (and the alerts and the dashboard, in the module e2e/monitoring)'
	@$(gotest) -with=e2e/monitoring -count=1 $(TEST_ARGS) -- ./e2e/chart

.PHONY: long
long: require-go ## Run the tests of certificates, unlocks, drift and retiring, and others with floods, outages and lifetimes of full length
	@$(build-e2e)
	$(say) 'go test with all denials and records, long outages and long lifetimes'
	@export E2E_FULL=1 && $(gotest) -with=e2e/auditweb -with=e2e/monitoring -p 2 -count=1 -timeout 60m $(TEST_ARGS) -- ./e2e/recording $(long) ./certs

# As root on Linux only, with the Debian packages of e2e/node/packages.txt.
.PHONY: e2e
e2e: long ## Run the long tests, and install the chart on a real node: needs root and e2e/node/packages.txt
	$(say) 'go test ./e2e/node ./e2e/install'
	@export E2E_NODE=1 && $(gotest) -p 1 -count=1 -timeout $(if $(E2E_REPETITIONS),180m,40m) -v $(TEST_ARGS) -- ./e2e/node ./e2e/install

.PHONY: e2e-long
e2e-long: ## Run e2e with 50 restarts and 50 kills under load, an older release, Argo CD, and a strict namespace: before a release
	@E2E_REPETITIONS=50 $(MAKE) e2e

.PHONY: chaos
chaos: require-go ## Break what the guard depends on, and print which of the targets R1 to R18 hold (about ten minutes)
	@$(build-e2e)
	$(say) 'run the tests of R1 to R18'
	@$(call run-e2e,chaos)

# Go fuzzes one target at a time.
FUZZ_TIME ?= 10m
.PHONY: fuzz
fuzz: require-go ## Fuzz each target for FUZZ_TIME
	@grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z]+' certs cmd pkg | sed 's/:func / /' | while read -r file target; do \
		echo "==> go test -fuzz $$target ./$${file%/*}"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) "./$${file%/*}" || exit; \
	done

.PHONY: bench
bench: build ## Run the Go benchmarks, then measure the guard through a real API server
	$(GO) test -run '^$$' -bench . -benchmem $(BENCH_ARGS) ./pkg/...
	$(say) 'measure through the API server'
	@$(call run-e2e,bench)
	$(say) 'measure in a browser'
	@$(GO) -C e2e/auditweb build -o $(CURDIR)/$(BIN)/e2e-bench-page ./bench && exec $(BIN)/e2e-bench-page

##@ Keep it right (what CI runs)

.PHONY: lint
lint: require-go ## Check style and common mistakes; LINT_ARGS=--fix repairs what it can
	@tool=$$(GO='$(GO)' tools/install golangci-lint) && echo '==> golangci-lint run' && "$$tool" run $(LINT_ARGS) && \
		for module in e2e/auditweb e2e/matchconditions e2e/monitoring; do \
			echo "==> golangci-lint run ($$module)" && (cd $$module && "$$tool" run $(LINT_ARGS)) || exit; \
		done

.PHONY: verify
verify: require-go ## Check the downloaded modules against go.sum, run generate, and fail if that changes a file
	$(say) 'go mod verify'
	@$(GO) mod verify
	@MAKE='$(MAKE)' tools/verify

.PHONY: vuln
vuln: require-go ## Scan for known vulnerabilities, and fail if one has a fix
	$(say) 'govulncheck ./...'
	@$(GO) -C tools/vuln test ./...
	@GO='$(GO)' tools/vulncheck

##@ Change it

.PHONY: generate
generate: require-go ## Update generated files, go.mod, go.sum and formatting
	$(say) 'go mod tidy, go generate, go fmt, helm-docs'
	@$(GO) mod tidy
	@$(GO) -C tools mod tidy
	@$(GO) -C tools/helm mod tidy
	@$(GO) -C tools/sbom mod tidy
	@$(GO) -C tools/vuln mod tidy
	@$(GO) -C e2e/auditweb mod tidy
	@$(GO) -C e2e/certmanager mod tidy
	@$(GO) -C e2e/matchconditions mod tidy
	@$(GO) -C e2e/monitoring mod tidy
	@$(GO) generate ./...
	@$(GO) fmt ./...
	@$(GO) -C e2e/auditweb fmt ./...
	@$(GO) -C e2e/matchconditions fmt ./...
	@$(GO) -C e2e/monitoring fmt ./...
	@$(GO) test -count=1 ./floors -run TestLicencesOfTheProgram -args -update
	@sed '/^ *#/d; /^$$/d' charts/apigw-guardian/values.yaml >charts/apigw-guardian/files/values.yaml
	@tool=$$(GO='$(GO)' tools/install helm-docs) && \
		"$$tool" --chart-search-root=charts --sort-values-order=file --log-level=warning

.PHONY: corpus
corpus: build ## Capture the corpus of AdmissionReviews, which the tests share, from a real API server
	$(say) 'capture the review corpus'
	@$(call run-e2e,capture)
	$(say) 'write the answers to it: review their difference'
	@$(GO) test -count=1 ./pkg/webhook -run TestAnswersOfTheCorpus -update

.PHONY: man
man: require-go ## Write the man pages of all commands into bin/man
	@$(GO) test -count=1 ./cmd/apigw-guardian -run TestEachCommandHasAManPage -args -man=$(CURDIR)/$(BIN)/man
	$(say) 'to read one: man $(BIN)/man/apigw-guardian.1'

##@ Release it (docs/release.md)

.PHONY: release
release: require-go ## Make the files of a release in dist: binaries, image, chart, manifests, bills of materials, checksums
	@$(GO) build -o $(BIN)/e2e-release ./e2e/release && $(BIN)/e2e-release build

.PHONY: release-verify
release-verify: require-go ## Fail unless dist has exactly the files of its checksums, signed by RELEASE_PUBLIC_KEY
	@$(GO) build -o $(BIN)/e2e-release ./e2e/release && $(BIN)/e2e-release verify

.PHONY: release-twice
release-twice: release ## Make the release again in a clone of the repository elsewhere, and fail if a digest differs
	@clone=$$(mktemp -d) && trap 'rm -rf "$$clone"' EXIT && git clone --quiet . "$$clone/elsewhere" && $(MAKE) -C "$$clone/elsewhere" release && \
		diff dist/SHA256SUMS "$$clone/elsewhere/dist/SHA256SUMS" && echo 'two runs, the same digests'

# Each Kubernetes release is built first, which takes many minutes.
COMPAT_VERSIONS ?= 1.28.15 1.30.14 1.32.13 1.34.4 1.36.3 1.37.2
.PHONY: compat
compat: require-go ## Run the end-to-end tests on each of COMPAT_VERSIONS, and print a table
	@$(build-e2e)
	@$(GO) build -o $(BIN)/e2e-compat ./e2e/compat && exec $(BIN)/e2e-compat $(COMPAT_VERSIONS)

.PHONY: clean
clean: ## Remove bin and dist
	rm -rf $(BIN) dist

##@ Variables
#% K8S_VERSION = Kubernetes release for demo, test, bench and corpus (default 1.37.2; also 1.30.14, 1.28.15)
#% DEMO_STAY = 0 ends the demo after its last step; 1 keeps it up without a terminal too
#% RACE = 1 makes test run the unit tests under Go's race detector (needs a C compiler)
#% COVER = 1 makes test print the statement coverage of unit and end-to-end tests together
#% E2E_SKIP_BROWSER = 1 skips the tests of audit web in a browser where chromium is missing
#% E2E_LONG = 1 gives the test of CA rotations leaves of 30 s and CAs of 3 min: it takes 5 to 7 minutes
#% FUZZ_TIME = how long fuzz spends on each target (default 10m)
#% BENCH_PARTS = what bench measures through the API server: P1 P5 P8 P9 P10 P11 P12 P13 P15 (default all)
#% BENCH_ATTACK = part of an attack's name: P13 measures those attacks only
#% E2E_FULL = 1 gives test the floods, outages and lifetimes that e2e has
#% RELEASE_VERSION = version of release (default the git tag, or v0.0.0-gCOMMIT)
#% RELEASE_REGISTRY = registry of the image that the chart of the release names, such as ghcr.io/apigw-guardian
#% RELEASE_PLATFORMS = platforms, such as "linux/amd64 linux/arm64" (default those, darwin and windows)
#% RELEASE_KEY = private SSH key that signs the release (default: not signed)
#% RELEASE_PUBLIC_KEY = public key that release-verify checks the signature with (default: checksums only)
#% COMPAT_VERSIONS = Kubernetes releases of compat
#% TEST_ARGS = more arguments for go test; likewise BENCH_ARGS, LINT_ARGS

.PHONY: require-go
require-go:
	@command -v $(GO) >/dev/null 2>&1 || { \
		echo "make: $(GO) not found. Install Go $$(awk '$$1 == "go" { print $$2 }' go.mod) or newer, from https://go.dev/dl/ or your distribution," \
			"and put its bin directory into PATH." >&2; exit 127; }
