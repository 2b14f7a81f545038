# make demo | check | test | lint | docs | wheel | interpreters | canary | clean. Each creates .venv and installs what it
# needs; the second time is quick.
#
# Which build of torch gets installed (CPU, CUDA, ROCm) is decided by pip's own settings: point PIP_EXTRA_INDEX_URL or
# PIP_FIND_LINKS at the builds you want, or install torch into .venv yourself before the first make.

# The first of these that runs and has the right version; or say `make PYTHON=/path/to/python3.11 ...`.
RIGHT_VERSION := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell $(p) -c '$(RIGHT_VERSION)' 2>/dev/null && echo $(p))))
CXX ?= g++

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
SLOW := bench e2e train
PACKAGE := pyproject.toml constraints.txt

.PHONY: demo check test lint docs wheel interpreters canary clean
.DELETE_ON_ERROR:

demo: .venv/.package
	@$(PY) scripts/demo.py

# What to run after every change: less than two minutes on two cores. Importing the folders that hold slow tests alone,
# such as those of MMSegmentation's side, takes long as well.
check: lint
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal -m "not slow" $(SLOW:%=--ignore=tests/%)

test: .venv/.dev
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal

lint: docs
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

docs: .venv/.dev
	@$(PY) -m mkdocs build --strict

wheel: .venv/.dev
	@rm -rf build dist
	@$(PY) -m build

# The fast tests of the built wheel in every Python here; and here on the newest versions of all dependencies.
interpreters: .venv/.dev
	@$(PY) scripts/check_interpreters.py

canary: .venv/.dev
	@$(PY) scripts/check_interpreters.py --pythons "$(PYTHON)" --newest

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Stamps: a file in .venv says that a step is done, and is older than what would make it out of date.

.venv/.python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found. Install one and say: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c '$(RIGHT_VERSION)' || { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13. Say: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Creating .venv with $(PYTHON)"
	@"$(PYTHON)" -m venv .venv || { echo "The venv module does not work. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

.venv/.torch: constraints.txt | .venv/.python
	@if nvidia-smi -L >/dev/null 2>&1; then \
	    echo "Installing torch $(TORCH) (a CUDA device is present; a download of some gigabytes)"; \
	    $(PIP) install -q "torch==$(TORCH)"; \
	else \
	    echo "Installing torch $(TORCH) (no CUDA device: the CPU build where pip's settings offer it)"; \
	    $(PIP) install -q "torch==$(TORCH)+cpu" 2>/dev/null || $(PIP) install -q "torch==$(TORCH)"; \
	fi
	@touch $@

.venv/.package: $(PACKAGE) .venv/.torch
	@echo "Installing pseudolabel and its dependencies (a few minutes the first time)"
	@$(PIP) install -q -c constraints.txt -e ".[train]"
	@touch $@

.venv/.dev: .venv/.package tests/exports/readers.txt
	@command -v $(CXX) >/dev/null || { echo "No C++ compiler ($(CXX)): the tests compare DenseCRF with pydensecrf, which is built from source. On Debian and Ubuntu: apt install g++"; exit 1; }
	@echo "Installing the tools for tests and linting"
	@$(PIP) install -q -c constraints.txt -e ".[train,dev]"
	@$(PIP) install -q --no-deps -r tests/exports/readers.txt
	@touch $@
