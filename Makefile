# make run            everything on this machine; DEMO=1 queues the demonstration recipes, PORT=8600 chooses the port
# make test           all tests but the slow ones; make test-all: these too; make bench: the tables in benchmarks/
# make setup          only the environment;  make lint: what CI checks;  make lock: pin the dependencies anew
#
# Needs make and Python 3.11 or 3.12 with venv. PYTHON=... chooses the interpreter, VENV=... the environment's folder.

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SUITABLE := import sys, ensurepip, venv; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 13))
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup

.PHONY: setup run test test-all bench lint lock
.DELETE_ON_ERROR:

setup: $(VENV)/.installed

run: setup
	@$(BIN)/slimboard up $(if $(PORT),--port $(PORT)) $(if $(DEMO),--demo)

test: $(VENV)/.installed-dev
	@$(BIN)/python tests/chromium.py >/dev/null || $(BIN)/playwright install chromium || echo "the browser tests are skipped" >&2
	$(PYTEST)

test-all: $(VENV)/.installed-dev
	@$(BIN)/python tests/chromium.py >/dev/null || $(BIN)/playwright install chromium
	$(PYTEST) -m ""

bench: $(VENV)/.installed-bench
	@for name in $(sort $(basename $(notdir $(filter-out %byte_tokenizer.py,$(wildcard benchmarks/[a-z]*.py)))) measuring pages); do \
		echo; echo "## $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock:
	python3 .ci/lock.py $(foreach version,3.11 3.12,$(or $(PYTHON$(version)),python$(version)))

$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3.12 python3 python; do \
		if $$python -c '$(SUITABLE)' 2>/dev/null; then \
			echo "making $(VENV) with $$($$python --version)"; \
			exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "Slimboard needs Python 3.11 or 3.12 with its venv module, and found none." >&2; \
	echo "Install it (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 1

# Everything is pinned by the lock, so the project itself is installed without looking for dependencies.
$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing what requirements.lock names into $(VENV); the first time takes some minutes"
	@$(PIP) install -q --upgrade pip
	@$(PIP) install -q -r requirements.lock
	@PYTHONWARNINGS=ignore $(PIP) install -q --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@$(PIP) install -q -r requirements.lock -r requirements-dev.lock
	@touch $@

$(VENV)/.installed-bench: requirements-bench.lock $(VENV)/.installed-dev
	@$(PIP) install -q -r requirements.lock -r requirements-bench.lock
	@touch $@
