# Two commands do everything on a fresh machine: `make search` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
STORAGE ?= postgresql

.PHONY: help install search test test-cluster lint format clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

install: $(VENV)/.installed  ## Create .venv and install archdsl in it

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"archdsl needs Python 3.11 to 3.13, and {sys.executable} is {v.major}.{v.minor}: run make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

search: install  ## Run the main search: specs/hybrid.arch
	$(BIN)/archdsl search specs/hybrid.arch

test: install lint  ## Run the whole test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-cluster: install  ## Four workers on a PostgreSQL server, killed at random (STORAGE=mysql: on MariaDB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,$(STORAGE)]'
	$(BIN)/python -m tests.studies.cluster --storage $(STORAGE) --workers 4 --kills 30 --trials 200

lint: install  ## Style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## Put the source into its one layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what make made
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
