# SPDX-License-Identifier: MIT OR Apache-2.0
# `make` says what there is. Build output and the lab's image live outside the checkout, in $(CACHE).

CACHE ?= $(or $(MIDPLANE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/midplane)
export MIDPLANE_CACHE := $(CACHE)
# Keyed by the compiler: cargo itself tells apart what the sources and the lock file make of it.
export CARGO_TARGET_DIR ?= $(CACHE)/target-$(shell rustc -V | tr -dc 'a-z0-9.' | cut -c1-24)
export CARGO_TERM_COLOR ?= never

PACKAGES := ipmi-mux bmc-sim usb-gadget-drive smbus-monitor kvm-bus device-manager midplane group-member

.PHONY: help
help:
	@echo 'make demo        a blade in a virtual machine with ipmi-mux at work, then a shell in it'
	@echo 'make test        build, lint, unit tests and the lab: what every commit must pass'
	@echo 'make test-full   all of that, and what takes longer'
	@echo 'make bench       measurements beside the peers [ONLY=program]'
	@echo 'make fuzz        every decoder, [SECONDS=600] each'
	@echo 'make packages    the Debian packages, into $(CACHE)/debs'
	@echo 'make lab-shell   a root shell on a fresh blade'

.PHONY: lint
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	tests/check-sources
	tests/check-licences

.PHONY: unit
unit:
	tests/lab/setup
	cargo test --workspace --all-features --locked

.PHONY: packages
packages:
	tests/lab/debs $(PACKAGES)

.PHONY: test
test: lint unit packages
	tests/lab/scenarios

.PHONY: test-full
test-full: lint unit packages
	tests/check-capture
	SMBUS_MONITOR_HOURS=168 cargo test --release --locked --package smbus-monitor --test week
	tests/mutants ipmi-mux
	tests/mutants usb-gadget-drive
	tests/mutants group
	tests/mutants kvm-bus
	tests/mutants device-manager
	tests/mutants secure-link
	tests/conformance/usb-gadget-drive $(CARGO_TARGET_DIR)/release/usb-gadget-drive
	tests/lab/scenarios --full

.PHONY: bench
bench: packages
	tests/bench/run $(ONLY)

.PHONY: fuzz
fuzz:
	fuzz/run $(or $(SECONDS),600)

.PHONY: demo
demo: packages
	tests/demo

.PHONY: lab-shell
lab-shell: packages
	tests/lab/shell
