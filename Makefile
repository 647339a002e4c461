PYTHON ?= python3
BIN := .venv/bin

.PHONY: install study poster test tests test-slow lint browser clean

install: .venv/installed  ## install knowhue into .venv/

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'knowhue needs Python 3.11 or newer; choose one: make PYTHON=python3.12')"
	@echo 'Installing into .venv/: downloads several hundred megabytes and takes one to ten minutes'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

study: install  ## a study on the built-in images; the report is runs/demo/report.html
	$(BIN)/knowhue study --preset demo --out runs/demo

poster:  ## the poster's study; takes hours: make poster PICTURES=FOLDER WEIGHTS=FILE, see docs/poster.md
	@test -d "$(PICTURES)/train" -a -d "$(PICTURES)/val" || { echo 'make poster PICTURES=FOLDER WEIGHTS=FILE: PICTURES should be a folder with train/ and val/. Found "$(PICTURES)".'; exit 2; }
	@test -f "$(WEIGHTS)" || { echo 'make poster PICTURES=FOLDER WEIGHTS=FILE: WEIGHTS should be a file with weights of a ResNet-18. Found "$(WEIGHTS)".'; exit 2; }
	$(MAKE) install
	$(BIN)/python studies/poster/lay_out.py "$(PICTURES)" runs/poster/images
	cp "$(WEIGHTS)" runs/poster/weights.safetensors
	$(BIN)/knowhue study --plan studies/poster/tuning.yaml --out runs/poster/tuning
	$(BIN)/python studies/poster/choose.py runs/poster/tuning --plan studies/poster/plan.yaml
	$(BIN)/knowhue study --plan studies/poster/plan.yaml --out runs/poster/main
	$(BIN)/python studies/poster/parts.py runs/poster/main

test: install browser  ## all checks that a change must pass
	$(MAKE) --jobs lint tests

# If PYTHONDONTWRITEBYTECODE is set, each process that a test starts compiles all sources again
tests: install  ## each file in one process; without reordering by number of tests, which would run the slowest files last
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: install  ## all combinations of which `make test` tests a sample, such as each kind of damage to each file of a study
	$(BIN)/python -m pytest -n auto -m slow

browser:  ## Chromium for the tests of the page; without it they are skipped
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || \
	echo "No Chromium, and apt-get cannot install it here: the tests of the page in a browser are skipped."

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

clean:
	rm -rf .venv build
