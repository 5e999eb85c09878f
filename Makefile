# Every target does its own set-up. Needed: Python 3.11 or later; for the real servers of `make test` also Java 17,
# Maven and Node 20. ARGS goes to pytest or to the command, as in: make test ARGS="-k offsets".
#
# One environment, .venv, in two sizes: what a worker needs (`make demo`), and what the tests need (all else).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo check test unit lint types contracts docs picture bench chaos fuzz proof installed services-up services-down lock clean

# Without .pyc files each of the many short-lived Python processes would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
LIGHT := .venv/.light
SYNCED := .venv/.synced
CHAOS := --requests 5000 --faults 200 --minutes 12
LOCKED := pyproject.toml --quiet --generate-hashes --python-version 3.11 --no-header --no-emit-index-url
ARGS ?=

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(LIGHT) ## Train models on this machine, with no server at all
	@$(BIN)/tensorfleet demo $(ARGS)

test: installed ## Run all tests, on real servers, with coverage
	@$(BIN)/coverage erase
	@$(BIN)/pytest -n 3 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(PROVE) $(ARGS)

check: $(SYNCED) lint types contracts ## Check style, types and contracts, and run the unit tests of what has changed; a minute
	@$(BIN)/python -m tests.changed

unit: $(SYNCED) ## Run the tests that need no server and kill nothing
	@$(BIN)/pytest -m "not services and not chaos" $(ARGS)

lint: $(SYNCED) ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(SYNCED) ## Check types
	@$(BIN)/mypy

contracts: $(SYNCED) ## Check which package may import which
	@$(BIN)/lint-imports

docs: $(SYNCED) ## Build the documentation as a site into build/site; a dead link fails
	@PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

picture: $(SYNCED) ## Draw the README's picture of the demo anew, from a run of it
	@$(BIN)/python docs/demo_picture.py

bench: installed ## Measure, on real servers
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: installed ## Break everything while 5,000 requests are trained, and count; 12 minutes
	@$(BIN)/python -m tests.chaos $(if $(ARGS),$(ARGS),--seed 1 $(CHAOS))

fuzz: $(SYNCED) ## Try 1,000,000 cases of everything that people can send, and print what was found; 20 minutes
	@$(BIN)/python -m tests.fuzz $(if $(ARGS),$(ARGS),--seed 1 --cases 1000000)

proof: PROVE := --prove
proof: test chaos fuzz ## Prove everything, the checkers too: all tests, chaos of two seeds, every crash point, 1,000,000 cases; two hours
	@$(BIN)/python -m tests.chaos --seed 2 $(CHAOS)
	@$(BIN)/python -m tests.chaos.crash_points

installed: $(SYNCED)
	@$(BIN)/python -m tests.services install

services-up: $(SYNCED) ## Start Kafka, MongoDB, S3 and a schema registry, and print the settings to paste
	@$(BIN)/python -m tests.services up

services-down: $(SYNCED) ## Stop what services-up has started
	@$(BIN)/python -m tests.services down

lock: $(SYNCED) ## Pin anew, with hashes, what pyproject.toml asks for: workers run what the tests ran
	@$(BIN)/uv pip compile $(LOCKED) --group dev --output-file requirements-dev.txt
	@$(BIN)/uv pip compile $(LOCKED) --constraint requirements-dev.txt --output-file requirements.txt

clean: ## Stop servers, and remove the virtual environment, downloads and caches
	@if [[ -e .services/run.json && -e $(SYNCED) ]]; then $(BIN)/python -m tests.services down; fi
	@rm -rf .venv .services .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

define NEW_VENV
	find_python() { \
		for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
			if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				echo "$$python"; return; \
			fi; \
		done; \
		echo "Python 3.11 or later is needed, and none is installed" >&2; return 1; \
	}; \
	if [[ ! -x $(BIN)/python ]]; then \
		python=$$(find_python); \
		echo "Setting up .venv with $$($$python --version)"; \
		"$$python" -m venv .venv; \
	fi
endef
# pip before 24.2 trusts only certificates of its own; a company's is among the system's.
CERTS := $$($(BIN)/python -m pip config get global.cert 2> /dev/null \
	|| $(BIN)/python -c 'import ssl; print(ssl.get_default_verify_paths().cafile or "")')
PIP := PIP_CERT="$${PIP_CERT:-$(CERTS)}" $(BIN)/python -m pip --quiet --disable-pip-version-check

$(LIGHT): requirements.txt pyproject.toml
	@$(NEW_VENV)
	@echo "Installing what a worker needs: $$(grep -c '^[a-z].*==' requirements.txt) packages, 170 MB to download"
	@$(PIP) install --require-hashes --only-binary :all: --requirement requirements.txt
	@echo "Installing the command tensorfleet"
	@$(PIP) install --no-deps --editable .
	@touch $@

# uv takes pip's index, and the system's certificates.
$(SYNCED): export UV_SYSTEM_CERTS := true
$(SYNCED): requirements-dev.txt pyproject.toml
	@$(NEW_VENV)
	@echo "Installing what the tests need: $$(grep -c '^[a-z].*==' requirements-dev.txt) packages, 7.7 GB on disk"
	@$(PIP) install --require-hashes --requirement <(sed -n '/^uv==/,/# via/p' requirements-dev.txt)
	@index=$$($(BIN)/python -m pip config get global.index-url 2> /dev/null || true); \
	export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$index}}"; \
	if [[ -z $$UV_DEFAULT_INDEX ]]; then unset UV_DEFAULT_INDEX; fi; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements-dev.txt; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(LIGHT) $@
