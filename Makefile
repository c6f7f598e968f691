# Everything a developer types. `setup` comes first by itself and is quick when nothing is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup teardown demo test test-clients check schema bench bench-load chaos seeds mutants
# check and test would wait for each other's lock on the target directory anyway.
.NOTPARALLEL:

help: ## says what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## installs what this machine lacks and starts Docker Engine when none answers
	@scripts/setup.sh

teardown: ## stops the Docker Engine that setup started, if it did
	@scripts/teardown.sh

demo: setup ## tells the whole story on this machine; ARGS="--keep" leaves the dashboard up
	cargo build --package roadstead-cli
	"$${CARGO_TARGET_DIR:-target}/debug/roadstead" demo $(ARGS)

# nextest runs no documentation tests. They come first, so that its summary has the last word. What looks at
# the answers that all tests had comes after them.
test: setup ## every test, none skipped; ARGS is handed to nextest
	@if grep -rqE --include='*.rs' '^ *//[/!] ```' */src; then set -x; cargo test --workspace --doc; fi
	rm -rf "$${CARGO_TARGET_DIR:-target}/tmp/answers"
	cargo nextest run --workspace --profile ci $(ARGS)
	$(if $(ARGS),,cargo nextest run --package roadstead-sandbox --test answered --profile ci --ignore-default-filter)

test-clients: setup ## the sandbox's scenarios through the AWS command line and ecs-deploy
	cargo nextest run --package roadstead-cli --test scenarios --profile ci --ignore-default-filter -E 'test(/^other_clients::/)' $(ARGS)

check: setup ## format and lints, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

schema: ## writes pipelines/pipeline.schema.json anew after a change of keys or of docs/pipeline-file.md
	ROADSTEAD_WRITE_SCHEMA=1 cargo nextest run --package roadstead-pipelines -E 'test(the_committed_schema)'

bench: setup ## push to image beside a script, and idle memory; about 20 minutes on a quiet machine, ARGS="--pairs 2 --contexts 2" for less
	cargo bench --package roadstead-cli --bench push -- $(ARGS)

bench-load: setup ## what one server takes, beside its floors; ten minutes once built, ARGS="webhooks logs --postgresql --keep docs/benchmarks"
	cargo bench --package roadstead-server --package roadstead-cli --bench load -- $(ARGS)

chaos: setup ## kills, stops, cuts and throttles the real parts for minutes; ARGS="--minutes 30 --seed 7 --database sqlite"
	cargo bench --profile dev --package roadstead-cli --bench chaos-run -- $(ARGS)

seeds: ## simulated stories by the thousand, against the promises; ARGS=2000 says how many
	SEEDS=$(or $(ARGS),1000) cargo nextest run --profile seeds --cargo-profile seeds --package roadstead-server --test simulation -E 'test(every_seed)' --no-capture

mutants: setup ## breaks one promise after the other in a copy and expects a test to notice; ARGS="i05-no-fence" for some
	scripts/mutants.sh $(ARGS)
