# What every part of the project honours. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Built Rust code; set CARGO_TARGET_DIR to share it between clones.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
# What is expensive and does not change with every commit: Kubernetes programs, node image, tools.
export VMETAL_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vmetal
export PATH := $(VMETAL_CACHE)/tools/bin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

.PHONY: help setup build artifacts policies demo demo-down test test-fast bench lint audit docs release mirror

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install what is missing: Debian packages, Rust targets, Go, a Terraform client
	@scripts/setup

build: ## build every program
	@cargo build --locked --workspace --bins --examples

artifacts: build ## build everything the demo and the acceptance tests need
	@scripts/artifacts

policies: build ## build the policy components only
	@"$(CARGO_TARGET_DIR)/debug/vmetal" policy build --out "$(CARGO_TARGET_DIR)/artifacts/policies" policies/{cost,place}-*

demo: setup artifacts ## from (virtual) bare metal to a Ready node, with the real terraform, or OpenTofu
	@"$(CARGO_TARGET_DIR)/debug/vmetal-demo" up

demo-down: ## end the demo and remove everything it made
	@if [ -x "$(CARGO_TARGET_DIR)/debug/vmetal-demo" ]; then "$(CARGO_TARGET_DIR)/debug/vmetal-demo" down; else echo "no demo was built"; fi

lint: ## format, clippy, licences and advisories
	@scripts/lint

audit: ## known vulnerabilities in what we build with (needs the public advisory database)
	@cargo deny --locked check --hide-inclusion-graph advisories

docs: ## make generated files anew; BREAKING=1 where the provider's schema may break its users
	@cargo run --locked -q -p vmetal-lifecycle --example lifecycle-page > docs/lifecycle.md
	@cargo build --locked -q --workspace --example reference --example comparison
	@"$(CARGO_TARGET_DIR)/debug/examples/comparison"
	@"$(CARGO_TARGET_DIR)/debug/examples/reference" $(if $(BREAKING),--breaking)

release: ## the provider for registries: static programs, zips, check sums; PLATFORMS=, VMETAL_RELEASE_KEY=
	@scripts/setup --release
	@scripts/release

# The last release that was built, or RELEASE=DIR with the files of one that was downloaded.
VERSION ?= $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
RELEASE ?= $(CARGO_TARGET_DIR)/dist/$(VERSION)

mirror: ## install a release for use without a registry: DIR= where to, RELEASE= and VERSION= which
	@[ -n "$(DIR)" ] || { echo "say where to: make mirror DIR=/srv/terraform" >&2; exit 2; }
	@[ -d "$(RELEASE)" ] || { echo "there is no release in $(RELEASE): make release" >&2; exit 2; }
	@cargo run --locked -q -p vmetal-release -- mirror --release "$(VERSION)" --dir "$(RELEASE)" --to "$(DIR)"

test-fast: ## the inner loop: unit and property tests
	@cargo test --locked --workspace --lib --bins

bench: ## measure, beside peers; NAME=fleet for one, QUICK=1 for a small version
	@scripts/bench $(NAME)

test: ## everything CI runs, in order
	@scripts/test
