# Needs Python 3.11 and make; everything else comes into .venv, in the versions of uv.lock.

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Whatever environment make is called from, the work happens in this one.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH UV_PROJECT_ENVIRONMENT

# Trust what the machine trusts, where it has a list: networks with a certificate of their own.
ROOTS := /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem
ifneq ($(wildcard $(ROOTS)),)
export UV_SYSTEM_CERTS ?= true
endif

.DEFAULT_GOAL := help
.PHONY: help up demo doctor migrate revision test check format audit bench chaos openapi clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(READY) ## Run everything on this machine until Ctrl-C; more options in ARGS
	@$(BIN)/pricebook up $(ARGS)

demo: $(READY) ## The same, with 3,000 demo items
	@$(BIN)/pricebook up --demo $(ARGS)

doctor: $(READY) ## Say what is wrong, and what to do
	@$(BIN)/pricebook doctor

migrate: $(READY) ## Bring the database to this version's schema
	@$(BIN)/pricebook migrate

revision: $(READY) ## Write a migration from the models while `make up` runs: MESSAGE="what changes"
	@$(BIN)/pricebook revision "$(MESSAGE)"

test: check ## Run everything that CI runs
	@$(BIN)/pytest -n 2 $(ARGS)

check: $(READY) ## Lint, types, imports, known dangers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --severity-level medium src migrations

format: $(READY) ## Format the code, and mend what can be mended by itself
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

audit: $(READY) ## Look for known holes in what we depend on (asks a service on the internet)
	@$(BIN)/pip-audit --skip-editable

bench: $(READY) ## Measure, beside a bare ASGI reference in the same run
	@$(BIN)/python -m tests.benchmarks $(ARGS)

chaos: $(READY) ## The tests that take minutes
	@$(BIN)/pytest -m chaos $(ARGS)

openapi: $(READY) ## Print the OpenAPI document
	@$(BIN)/pricebook openapi

clean: ## Remove the environment and the caches, not the data
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): uv.lock pyproject.toml | $(BIN)/uv
	@echo "Making the environment ready …"
	@$(BIN)/uv sync --locked --quiet --compile-bytecode
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Pricebook needs Python 3.11 or later: make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
