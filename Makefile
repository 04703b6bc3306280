# Short names for the commands of the README and of docs/development.md. No logic lives here.

FUZZ_SECONDS ?= 10

.PHONY: demo test check fmt ci conformance autobahn bench fuzz-smoke clean-peers

demo:           # the gateway with a built-in demo server
	cargo run --release --quiet -- demo

test:           # everything that a change must pass, and what that needs
	.ci/test

check:          # format, lints, documentation
	.ci/run check

fmt:            # formats the code
	cargo fmt --all

ci:             # what the machines run
	.ci/run

conformance:    # the official suite, against a server alone and through the gateway
	.ci/test conformance

autobahn:       # the WebSocket suite, against both ends of our codec; an hour
	.ci/autobahn

bench:          # the codecs; compares with the last run
	cargo bench

fuzz-smoke:     # each target for a moment; needs a nightly toolchain and cargo-fuzz
	cd fuzz && for target in $$(cargo +nightly fuzz list); do \
	  cargo +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

clean-peers:    # throws away what the tests installed
	rm -rf .peers
