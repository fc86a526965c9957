# `make demo` and `make test` need only Python 3.11 and make: each sets up .venv and then runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CLUSTER := $(VENV)/.installed-verl

export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test lint unit e2e test-cluster slow clean

demo: $(INSTALLED)
	$(BIN)/guide demo

test: $(CLUSTER) lint unit e2e test-cluster

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: $(INSTALLED)
	$(BIN)/pytest -q -n 2 --dist loadfile

e2e: $(INSTALLED)
	$(BIN)/pytest -q -m e2e

test-cluster: $(CLUSTER)
	$(BIN)/pytest -q -m cluster

slow: $(INSTALLED)
	$(BIN)/pytest -q -m slow

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[train,problems,guidance,code,dev]'
	touch $@

$(CLUSTER): $(INSTALLED)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[verl]'
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
