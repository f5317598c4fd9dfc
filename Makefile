# Each recipe is a small script; `make` alone lists them.
.PHONY: help demo test bench status coverage campaign fuzz deny gpu-check clean
.DEFAULT_GOAL := help

help:
	@echo "make demo             build, then the whole loop on this machine with a real model"
	@echo "make test             format, lints, build, every test, documentation; what CI runs"
	@echo "make bench            benchmarks"
	@echo "make status           run every capability's command and write STATUS.md"
	@echo "make coverage         lines that tests execute, for core, planner, sim and audit"
	@echo "make campaign         long: every fuzz target and the soak test"
	@echo "make fuzz TARGET=..   one fuzz target (SECONDS_MAX=180)"
	@echo "make deny             licences, bans and, where its database can be had, advisories"
	@echo "make gpu-check        on a machine with a graphics card: check and time every way to it, signed"
	@echo "make clean            remove everything that was built"

demo:
	@bash scripts/demo.sh

test:
	@bash scripts/test.sh

bench:
	@bash scripts/bench.sh

status:
	@bash scripts/status.sh

coverage:
	@bash scripts/coverage.sh

campaign:
	@bash scripts/campaign.sh

fuzz:
	@bash scripts/fuzz.sh "$(TARGET)" "$(or $(SECONDS_MAX),180)"

deny:
	@bash scripts/deny.sh

gpu-check:
	@bash scripts/gpu-check.sh

clean:
	cargo clean
	rm -rf fuzz/target
