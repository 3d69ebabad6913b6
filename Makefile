# Each target starts from a bare clone: it makes a virtual environment, installs the pinned versions, and runs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
WORKERS ?= 2
INSTALLED = $(VENV)/.installed

.PHONY: demo test test-all lint coverage clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,dev]'
	touch $@

demo: $(INSTALLED)  ## the main job, end to end, on generated videos: runs/demo/report.md
	$(BIN)/tempclr demo --output_dir runs/demo

test: $(INSTALLED)  ## every quick test, in parallel
	$(BIN)/python -m pytest -q -n $(WORKERS)

test-all: $(INSTALLED)  ## the slow tests too
	$(BIN)/python -m pytest -q -n $(WORKERS) -m 'not gpu'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(WORKERS) -m 'not gpu' --cov --cov-report=term --cov-fail-under=90

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
