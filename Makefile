# Two commands from nothing: `make demo` shows the probe's table, `make test` checks everything.
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Stamps: an install is repeated only when pyproject.toml has changed.
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
INSTALLED_FOR_TESTS := $(VENV)/.installed-for-tests

# pyright would ask the network whether it is the newest.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint types contracts pytest format bench docs clean

help:
	@echo "make demo      install, then probe the three built-in generators"
	@echo "make test      install, then lint, types, contracts and pytest (each is a target of its own)"
	@echo "make format    rewrite the code in the project's format"
	@echo "make bench     run every benchmark in benchmarks/"
	@echo "make docs      install, then build the site of the documentation into build/site"
	@echo "make clean     remove the environment and caches (not .zoo, which may hold hours of training)"

demo: $(INSTALLED)
	$(BIN)/divlens probe zoo/ar zoo/mim zoo/diffusion --out demo-run

test: lint types contracts pytest

lint: $(INSTALLED_FOR_TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED_FOR_TESTS)
	$(BIN)/pyright

contracts: $(INSTALLED_FOR_TESTS)
	$(BIN)/lint-imports

pytest: $(INSTALLED_FOR_TESTS)
	$(BIN)/python -m pytest

format: $(INSTALLED_FOR_TESTS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED_FOR_TESTS)
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

docs: $(INSTALLED_FOR_TESTS)
	$(BIN)/python docs/build_site.py

clean:
	rm -rf $(VENV) dist build .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(CREATED):
	@command -v $(PYTHON) >/dev/null || { \
		echo "divlens needs Python 3.11 or newer, found no $(PYTHON). Name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "divlens needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(INSTALLED): pyproject.toml $(CREATED)
	@echo "Installing divlens into $(VENV). PyTorch is large: this takes a few minutes."
	$(PIP) install --quiet --editable .
	@touch $@

$(INSTALLED_FOR_TESTS): pyproject.toml $(CREATED)
	@echo "Installing divlens and what its tests need into $(VENV). PyTorch is large: this takes a few minutes."
	$(PIP) install --quiet --editable '.[test]'
	@touch $(INSTALLED) $@
