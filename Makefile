# Each target starts from a bare clone: it makes a virtual environment, installs the pinned versions, and runs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
WORKERS ?= 2
INSTALLED = $(VENV)/.installed
COMPAT ?= $(VENV)/oldest
APP ?= $(VENV)/app
MODEL ?= runs/demo/model
COMPAT_TESTS = $(addprefix tests/tempclr_kernels/test_triton_, interpreter.py pairwise.py) $(addprefix tests/tempclr/test_, \
	configuration_tempclr.py modeling_tempclr.py processing_tempclr.py losses.py trainer.py) \
	$(addprefix tests/tempclr_hub/test_, loopback.py publish.py push_model.py push_prepared.py push_trainer.py \
	trainer_push.py)

.PHONY: demo app test test-all app-test compat lint coverage docs claims soak audit clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,dev]'
	$(BIN)/python -m pip install --quiet --no-deps aeon==1.6.0  # its recordings, for an example; it wants an older numba
	touch $@

$(COMPAT)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(COMPAT)
	$(COMPAT)/bin/python -m pip install --quiet --upgrade pip -c constraints-oldest.txt
	$(COMPAT)/bin/python -m pip install --quiet -c constraints-oldest.txt -e '.[demo,dev]'
	touch $@

$(APP)/.installed: pyproject.toml constraints-app.txt
	$(PYTHON) -m venv $(APP)
	$(APP)/bin/python -m pip install --quiet --upgrade pip -c constraints-app.txt
	$(APP)/bin/python -m pip install --quiet -c constraints-app.txt -e '.[app,demo]' pytest pytest-timeout playwright
	touch $@

demo: $(INSTALLED)  ## the main job, end to end, on generated videos: runs/demo/report.md
	$(BIN)/tempclr demo --output_dir runs/demo

app: $(APP)/.installed  ## the page to look at alignments, by the demo's model or MODEL=folder-or-id
	$(APP)/bin/tempclr app --model $(MODEL)

test: $(INSTALLED)  ## every quick test, in parallel
	$(BIN)/python -m pytest -q -n $(WORKERS)

test-all: $(INSTALLED)  ## the slow tests too
	$(BIN)/python -m pytest -q -n $(WORKERS) -m 'not gpu and not browser'

app-test: $(APP)/.installed  ## the page in a browser: needs Debian's chromium
	$(APP)/bin/python -m pytest -q -m browser tests/tempclr/test_app_browser.py

# transformers' own common tests, from the source distribution of the version in an environment: pip alone fetches it.
define common_tests
	$(1)/bin/python -m pip install --quiet --no-deps parameterized==0.9.0  # they import it
	$(1)/bin/python -m pip download --quiet --no-deps --no-binary transformers --dest $(1)/source transformers==$(2)
	tar -xzf $(1)/source/transformers-$(2).tar.gz -C $(1)/source
	touch $(1)/source/transformers-$(2)/tests/__init__.py  # they import it, and it is not distributed
	TRANSFORMERS_SDIST=$(1)/source/transformers-$(2) OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -q -n $(WORKERS) \
		--expect-common modeling=250 --expect-common processing=30 tests/common
endef
version = $(shell sed -n 's/^transformers==//p' $(1))

compat: $(COMPAT)/.installed $(INSTALLED)  ## the oldest versions we support, in an environment of their own; transformers' tests on both
	$(call common_tests,$(COMPAT),$(call version,constraints-oldest.txt))
	$(call common_tests,$(VENV),$(call version,constraints.txt))
	$(COMPAT)/bin/python -m pytest -q -n $(WORKERS) -m 'not gpu' tests/tempclr_kernels/test_triton_compile.py
	$(COMPAT)/bin/python -m pytest -q -n $(WORKERS) $(COMPAT_TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(WORKERS) -m 'not gpu and not browser' --cov --cov-report=term --cov-fail-under=90

docs: $(INSTALLED)  ## docs/api again, from docstrings and --help; README's tables, from benchmarks/results
	$(BIN)/python docs/generate_api.py
	$(BIN)/python benchmarks/readme.py

claims: $(INSTALLED)  ## the papers' claims on generated videos, an hour or more each: docs/claims.md, docs/tclr.md; goes on where it stopped
	$(BIN)/python benchmarks/claims.py
	$(BIN)/python benchmarks/claims.py --confirm
	$(BIN)/python benchmarks/tclr_claims.py

soak: $(INSTALLED)  ## kills, damaged videos, a million rows, 10,000 steps: minutes; what was tried is in runs/soak
	$(BIN)/python benchmarks/soak_videos.py
	$(BIN)/python benchmarks/soak_resume.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/soak_memory.py

audit: $(INSTALLED)  ## known vulnerabilities of the pinned packages, by a service on the network
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(BIN)/python .ci/audit $(VENV)/audit/bin/pip-audit constraints.txt
	$(BIN)/python .ci/audit $(VENV)/audit/bin/pip-audit constraints-app.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
