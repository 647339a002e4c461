PYTHON ?= python3
BIN := .venv/bin

.PHONY: install study poster test tests test-slow lint browser clean

install: .venv/installed  ## make .venv/ with knowhue in it

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'knowhue needs Python 3.11 or newer; name one: make PYTHON=python3.12')"
	@echo 'Installing into .venv/: a download of some hundred megabytes, one to ten minutes'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

study: install  ## the main job on the built-in images, report in runs/demo/report.html
	$(BIN)/knowhue study --preset demo --out runs/demo

poster:  ## the poster's study, hours: make poster PICTURES=FOLDER WEIGHTS=FILE, see docs/poster.md
	@test -d "$(PICTURES)/train" -a -d "$(PICTURES)/val" || { echo 'make poster PICTURES=FOLDER WEIGHTS=FILE: PICTURES should be a folder with train/ and val/. Found "$(PICTURES)".'; exit 2; }
	@test -f "$(WEIGHTS)" || { echo 'make poster PICTURES=FOLDER WEIGHTS=FILE: WEIGHTS should be a file, weights of a ResNet-18. Found "$(WEIGHTS)".'; exit 2; }
	$(MAKE) install
	$(BIN)/python studies/poster/lay_out.py "$(PICTURES)" runs/poster/images
	cp "$(WEIGHTS)" runs/poster/weights.safetensors
	$(BIN)/knowhue study --plan studies/poster/tuning.yaml --out runs/poster/tuning
	$(BIN)/python studies/poster/choose.py runs/poster/tuning --plan studies/poster/plan.yaml
	$(BIN)/knowhue study --plan studies/poster/plan.yaml --out runs/poster/main
	$(BIN)/python studies/poster/parts.py runs/poster/main

test: install browser  ## everything that must hold before a change lands
	$(MAKE) --jobs lint tests

# Where the environment forbids to keep compiled sources, each process that a test starts would compile them anew
tests: install  ## a file to a process, the long ones first: by number of tests, as is usual, they would be last
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: install  ## every combination of what `make test` samples: each file of a study damaged in each way
	$(BIN)/python -m pytest -n auto -m slow

browser:  ## Chromium for the tests of the page; without it they are skipped, and say so
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
