# Every target works by itself on a machine with make and Python 3.11 to 3.13; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first Python that is 3.11 to 3.13 and can make virtual environments.
PYTHON := $(shell for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 \
	&& { echo $$python; break; }; done)
BIN := .venv/bin
INSTALLED := .venv/installed
TENSORFLOW := $(shell sed -n 's/^tensorflow==/==/p' requirements.txt)
WORKERS ?= 2
PROFILE ?= paper

.PHONY: help install reproduce test test-jax test-long notebooks figures records bench lint format lab clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

install: $(INSTALLED)  ## make .venv and install everything (the GPU build too where nvidia-smi answers)

$(INSTALLED): requirements.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "batchscape needs Python 3.11, 3.12 or 3.13 with venv; found: $$(python3 --version 2>&1 || echo none)" >&2; exit 2; fi
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@if nvidia-smi >/dev/null 2>&1; then \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check "tensorflow[and-cuda]$(TENSORFLOW)"; fi
	@touch $@

reproduce: $(INSTALLED)  ## run the main job on the embedded digits: figures and verdicts under runs/quick/
	$(BIN)/batchscape reproduce

test: $(INSTALLED)  ## lint, then run every test and every notebook
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-jax: .venv-jax/installed  ## the tests of numbers on JAX, with TensorFlow not installed
	KERAS_BACKEND=jax .venv-jax/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		-o addopts="--strict-markers -q -m 'not long'" $(patsubst %,tests/test_%.py,$(ON_JAX))

test-long: $(INSTALLED)  ## the tests that take longer
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m long tests
	BATCHSCAPE_XLA=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(patsubst %,tests/test_%.py,engines accumulation)

# Long ones first, so that no worker waits for the other.
ON_JAX := gpu_benchmark parallel_seeds backends engines trajectory sharpness minima directions planes rprop schedules \
	private_names minima_peers data_forms objective_is_evaluate losses

.venv-jax/installed: requirements-jax.txt pyproject.toml
	@.venv-jax/bin/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv-jax
	.venv-jax/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-jax.txt
	@touch $@

notebooks: $(INSTALLED)  ## run the notebooks at paper profile and store their figures
	PROFILE=$(PROFILE) $(BIN)/jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb
	$(BIN)/nbstripout --extra-keys metadata.language_info notebooks/*.ipynb

figures: $(INSTALLED)  ## draw figures/ from the committed records in figures/data/
	$(BIN)/batchscape figures

records: $(INSTALLED)  ## run the studies at paper profile (a day on two cores) and write their tables to figures/data/
	$(BIN)/batchscape reproduce --profile paper --tables figures/data/digits
	$(BIN)/batchscape study gradient --profile paper --tables figures/data/noise
	$(BIN)/batchscape study gradient --profile mnist --tables figures/data/mnist
	$(BIN)/batchscape study minima --profile paper --tables figures/data/minima
	$(BIN)/batchscape study keskar-f1 --tables figures/data/keskar-f1
	$(BIN)/batchscape study keskar-c1 --tables figures/data/keskar-c1
	$(BIN)/batchscape study rates --profile paper --tables figures/data/rates
	$(BIN)/batchscape study rates --profile fashion --tables figures/data/rates-fashion
	$(BIN)/batchscape study rates --profile cifar --tables figures/data/rates-cifar
	$(BIN)/batchscape study rates --profile mnist --tables figures/data/rates-mnist
	$(BIN)/batchscape study cost --profile paper --tables figures/data/cost
	$(BIN)/batchscape study target --profile paper --tables figures/data/target
	$(BIN)/python benchmarks/definitions.py --record figures/data/definitions

bench: $(INSTALLED)  ## run the benchmarks: ours and the alternatives, interleaved
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/training.py --model cnn
	$(BIN)/python benchmarks/executors.py
	$(BIN)/python benchmarks/noise.py
	$(BIN)/python benchmarks/schedules.py
	$(BIN)/python benchmarks/parallel_seeds.py
	$(BIN)/python benchmarks/minima.py

lint: $(INSTALLED)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: $(INSTALLED)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

clean:  ## remove the environments and caches; runs/ stays
	rm -rf .venv .venv-jax .pytest_cache .ruff_cache .hypothesis
