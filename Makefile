PYTHON ?= python3
BIN := .venv/bin

.PHONY: install study test lint clean

install: .venv/installed  ## make .venv/ with knowhue in it

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'knowhue needs Python 3.11 or newer; name one: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

study: install  ## the main job on the built-in pictures, report in runs/demo/report.html
	$(BIN)/knowhue study --preset demo --out runs/demo

test: install lint  ## everything that must hold before a change lands
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

clean:
	rm -rf .venv build
