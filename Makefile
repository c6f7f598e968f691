# Everything a developer types. `setup` comes first by itself and is quick when nothing is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup teardown demo test check bench

help: ## says what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## installs what this machine lacks and starts Docker Engine when none answers
	@scripts/setup.sh

teardown: ## stops the Docker Engine that setup started, if it did
	@scripts/teardown.sh

demo: setup ## tells the whole story on this machine; ARGS="--keep" leaves the dashboard up
	cargo build --package roadstead-cli
	target/debug/roadstead demo $(ARGS)

test: setup ## every test, none skipped
	cargo nextest run --workspace --profile ci

check: setup ## format and lints, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

bench: setup ## measures, beside a floor in the same run
	scripts/bench.sh $(ARGS)
