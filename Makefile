# make demo   its uses in the terminal, then the page: make demo PORT=8000
# make test   the tests, with coverage, eight minutes on two cores
# make test-flask32   the tests of contexts, all, in the shape of the coming Flask 3.2
# make lint   ruff, mypy, pyright
# make docs   the documentation, warnings are errors
# make bench  the contract's numbers, twenty minutes
# make soak   a million tasks over all pools, thousands in a store, ten minutes: nothing
#             may be lost
# make crash  servers that are killed a hundred times, on two databases, half an hour
# make clean  drop all of what the above made
#
# Each makes .venv and installs into it what it needs, once.
# Another Python: make test PYTHON=python3.12
# Some tests:     make test PYTEST_ARGS='-k session'   (coverage is then low)
# More cores:     make test WORKERS=8

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
PORT ?=
WORKERS ?= 3

BIN := $(VENV)/bin
FLASK32 = $(BIN)/python -W error -m pytest -p flask32 $(PYTEST_ARGS) \
  tests/test_context_merged.py tests/test_context.py tests/test_files.py \
  tests/test_safe_request.py
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-flask32 lint docs bench soak crash clean
# A failed install must not leave its stamp.
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.installed-example
	$(BIN)/python example_app.py --demo
	$(BIN)/python example_app.py $(if $(PORT),--port $(PORT))

# Tests wait for processes, servers and a browser, so there are more workers than cores.
# Some of the processes that are measured are killed while they write: their files lie
# in one place, which goes with the run.
# With worksteal a worker has neighbouring tests, which share fixtures; loadgroup
# hangs when a worker is lost.
# A test of real servers, processes or a browser may fail for what runs beside it: it
# counts as failed if it also fails alone.
test: MEASURED = COVERAGE_FILE=$(CURDIR)/.coverage-parts/.coverage \
                 $(BIN)/coverage run -m pytest
# Hundreds of processes import the package: they find it compiled, and pytest its tests.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.installed-tests
	rm -rf .coverage .coverage-parts && mkdir .coverage-parts
	$(MEASURED) -n $(WORKERS) --dist worksteal $(PYTEST_ARGS) || \
	  { echo "What has failed runs again by itself:"; $(MEASURED) --last-failed; } || \
	  { rm -rf .coverage-parts; exit 1; }
	$(BIN)/coverage combine --quiet .coverage-parts
	rm -rf .coverage-parts
	$(BIN)/coverage report

# A plugin named by -p is imported before pytest has read its pythonpath.
test-flask32: export PYTHONPATH := $(CURDIR)/tests/support
test-flask32: $(VENV)/.installed-tests
	FLASK32_SESSION=push $(FLASK32) tests/test_extensions.py
	FLASK32_SESSION=lazy $(FLASK32)

# pyright takes the package from the first Python on PATH.
lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy flask_executor tests/typing_examples.py
	PATH="$(abspath $(BIN)):$$PATH" pyright --verifytypes flask_executor --ignoreexternal

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.installed-bench
	$(BIN)/python bench/run.py

soak: $(VENV)/.installed-bench
	$(BIN)/python bench/soak.py
	$(BIN)/python -m bench.graphs 3
	$(BIN)/python bench/soak_store.py

crash: $(VENV)/.installed-tests
	$(BIN)/python tests/crash/harness.py table 5 20

clean:
	rm -rf $(VENV) .ci-venvs .bench docs/_build build dist instance *.egg-info
	rm -rf .coverage .coverage.* .coverage-parts .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "There is no $(PYTHON) here: install Python 3.11 or newer, or name another," \
	         "as in make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, and $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per extra. Compat mode puts a plain path into the venv, which type
# checkers can follow; the default import hook they cannot.
$(VENV)/.installed-%: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --config-settings editable_mode=compat -e '.[$*]'
	touch $@
