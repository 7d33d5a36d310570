# bulkhead: what people type. `make help` lists the targets.
#
# Set-up is part of every target that needs it: packages by name through apt (with sudo only
# if not root), modules through go, the examples' packages through npm. Nothing else is fetched.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
LISTEN  ?= 127.0.0.1:8080
DATA    ?= $(CURDIR)/.build/data
PRESET  ?= standard
FUZZ_EXECS ?= 1000000
FUZZ_ONLY  ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

BIN      := $(CURDIR)/bin
BINARIES := bulkhead bulkhead-launcher bulkhead-gateway bulkhead-worker
SEAT     := bulkhead-securityseat
EXAMPLES := $(patsubst %/package.json,%,$(wildcard examples/*/package.json))

# Rootless runs have no delegated cgroup unless systemd gave one; that must be said aloud.
ifneq ($(shell id -u),0)
RUN_FLAGS ?= --accept cgroup
endif

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- set-up ---------------------------------------------------------------------------------

# apt PACKAGES TEST: installs PACKAGES when the shell test TEST fails.
define apt
	@if ! { $(2); } >/dev/null 2>&1; then \
	  command -v apt-get >/dev/null || { echo "make: please install $(1): this system has no apt-get" >&2; exit 1; }; \
	  echo "make: installing $(1)"; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $(1) >/dev/null 2>&1 \
	  || { $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $(1) >/dev/null; }; \
	fi
endef

NODEJS := supervisor/tenants/bundle/nodejs

.PHONY: setup
setup: setup-nodejs ## install what building needs, link V8's headers, make the modules of Node.js
	@command -v $(GO) >/dev/null || { echo "make: Go is missing: install it from your distribution or go.dev, then run make again" >&2; exit 1; }
	$(call apt,g++,command -v g++)
	$(call apt,libseccomp-dev pkg-config,command -v pkg-config && pkg-config --exists libseccomp)
	@GO="$(GO)" sandboxworker/engine/native/link-headers.sh

# What workers import as node:buffer and so on is made of npm packages, at build time.
.PHONY: setup-nodejs
setup-nodejs: $(NODEJS)/dist/buffer.js

$(NODEJS)/node_modules/.package-lock.json: $(NODEJS)/package-lock.json
	@$(MAKE) setup-npm
	@echo "make: npm packages of $(NODEJS)"
	@cd $(NODEJS) && npm ci --no-audit --no-fund --ignore-scripts --silent && touch node_modules/.package-lock.json

$(NODEJS)/dist/buffer.js: $(NODEJS)/node_modules/.package-lock.json $(wildcard $(NODEJS)/src/*.js $(NODEJS)/gen/*.go)
	@command -v $(GO) >/dev/null || { echo "make: Go is missing: install it from your distribution or go.dev, then run make again" >&2; exit 1; }
	@$(GO) run ./$(NODEJS)/gen $(NODEJS)

.PHONY: setup-capnp
setup-capnp:
	$(call apt,capnproto,command -v capnp)

.PHONY: setup-npm
setup-npm:
	$(call apt,nodejs npm,command -v npm)

.PHONY: examples
examples: setup-npm ## install the npm packages of the examples
	@for d in $(EXAMPLES); do \
	  if [ ! -d $$d/node_modules ] || [ $$d/package-lock.json -nt $$d/node_modules/.package-lock.json ]; then \
	    echo "make: npm packages of $$d"; (cd $$d && npm ci --no-audit --no-fund --ignore-scripts --silent); \
	  fi; \
	done

# ---- build, run, test -----------------------------------------------------------------------

.PHONY: build
build: setup ## build the four binaries, and the attacker's seat of their tests, into bin/
	@mkdir -p $(BIN)
	@echo "make: building $(BINARIES) $(SEAT)"
	@$(GO) build $(BUILDFLAGS) -ldflags "-X main.version=$(VERSION)" -o $(BIN)/ $(addprefix ./cmd/,$(BINARIES))
	@$(GO) build $(BUILDFLAGS) -o $(BIN)/$(SEAT) ./securitytests/seat

.PHONY: run
run: build examples ## serve the examples, and a service for one of them, on 127.0.0.1:8080
	@mkdir -p $(DATA) $(DATA)/inventory
	@$(GO) build -o $(BIN)/ ./examples/stock/inventory
	@sed 's|/srv/bulkhead|$(DATA)|' examples/policy.yaml > $(DATA)/policy.yaml
	@$(BIN)/inventory --socket $(DATA)/inventory/http.sock & \
	exec $(BIN)/bulkhead serve --listen $(LISTEN) --preset $(PRESET) --config $(DATA)/policy.yaml --tenants examples --data $(DATA) --index $(RUN_FLAGS)

.PHONY: test
test: build examples ## run the whole test suite
	$(GO) test -p 1 -timeout 20m ./...

# V8 and Go have their own ideas of faults and signal stacks, and V8's static data counts as leaks. GCC
# takes an empty v8::Maybe for uninitialised once it instruments it.
.PHONY: asan
asan: setup ## test the C++ under AddressSanitizer
	CGO_CXXFLAGS="-g -O1 -fsanitize=address -Wno-maybe-uninitialized" ASAN_OPTIONS=detect_leaks=0:handle_segv=0:use_sigaltstack=0 \
	  $(GO) test -asan -count=1 ./sandboxworker/engine ./sandboxworker/runtime

.PHONY: fuzz
fuzz: setup ## fuzz every decoder FUZZ_EXECS times (FUZZ_ONLY=REGEXP: some); prints a table
	@$(GO) run ./securitytests/fuzz -execs $(FUZZ_EXECS) -only '$(FUZZ_ONLY)'

.PHONY: bench
bench: build ## measure this host: speed beside its peers, and the bars of its containment
	$(call apt,wrk,command -v wrk)
	@$(MAKE) setup-npm
	@cd bench/peers && { [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --silent; }
	$(GO) run ./bench

.PHONY: conformance
conformance: build ## run Web Platform Tests of a checkout (DIR=…; ARGS: flags of ./bench/conformance)
	@[ -n "$(DIR)" ] || { echo "make: which checkout of web-platform-tests/wpt? make conformance DIR=/path/to/wpt" >&2; exit 2; }
	@$(GO) run ./bench/conformance -dir "$(DIR)" $(ARGS)

# ---- keeping the tree in order --------------------------------------------------------------

.PHONY: generate
generate: setup setup-capnp ## regenerate the code of schema/ and the generated docs
	@GO="$(GO)" schema/generate.sh
	@$(GO) test -count=1 ./policy ./supervisor/launcher ./securitytests/arrows -run 'Generated|UpToDate' -args -update
	@$(GO) test -count=1 ./sandboxworker/runtime -run EncodingsUpToDate -args -update

.PHONY: format
format: ## format Go
	@gofmt -w $$(git ls-files '*.go' | grep -v '^schema/gen/')

.PHONY: check
check: setup setup-capnp ## format, vet, lint, generate; ends in a clean tree
	@bad=$$(gofmt -l $$(git ls-files '*.go' | grep -v '^schema/gen/')); [ -z "$$bad" ] || { echo "make: not gofmt-ed:" $$bad >&2; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod verify >/dev/null
	$(GO) mod tidy -diff
	@$(MAKE) generate
	@git diff --exit-code --stat || { echo "make: the tree is not clean: commit what generate and format changed" >&2; exit 1; }

.PHONY: install
install: ## install binaries and the systemd units below PREFIX
	@$(MAKE) build BUILDFLAGS=-trimpath
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/bulkhead $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)/etc/bulkhead/tenants
	install -m 0755 $(BIN)/bulkhead $(DESTDIR)$(PREFIX)/bin/bulkhead
	install -m 0755 $(BIN)/bulkhead-launcher $(BIN)/bulkhead-gateway $(BIN)/bulkhead-worker $(BIN)/$(SEAT) $(DESTDIR)$(PREFIX)/libexec/bulkhead/
	sed 's|@PREFIX@|$(PREFIX)|g' cmd/bulkhead-launcher/systemd/bulkhead.service.in > $(DESTDIR)$(PREFIX)/lib/systemd/system/bulkhead.service
	install -m 0644 cmd/bulkhead-launcher/systemd/bulkhead.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/bulkhead.socket
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	@if command -v systemd-analyze >/dev/null; then systemd-analyze security --offline=true --no-pager $(DESTDIR)$(PREFIX)/lib/systemd/system/bulkhead.service | tail -n 1; \
	else echo "make: no systemd-analyze here: the unit's security score was not asked for"; fi

.PHONY: clean
clean: ## remove build products
	rm -rf $(BIN) .build
