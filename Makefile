# The targets make .venv by themselves. Variables: EXPERIMENT, ARGS (key=value ...), RUN, RUNS, MODEL, PROMPT, PYTHON.
PYTHON ?= python3
PY := .venv/bin/python
ARGS ?=
.DEFAULT_GOAL := help
.PHONY: help setup train sweep describe data evaluate score generate benchmark report test lint format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/installed  ## make .venv with the pinned dependencies and this project

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'gcnn needs Python 3.11 or newer; call make PYTHON=python3.x' >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev,wandb]'
	@touch $@

train: setup  ## train EXPERIMENT with ARGS; without either, compare a GCNN with an LSTM on Shakespeare
ifneq ($(strip $(EXPERIMENT)$(ARGS)),)
	$(PY) scripts/train.py experiment=$(or $(EXPERIMENT),quickstart) $(ARGS)
else
	$(PY) scripts/train.py experiment=quickstart
endif

test: setup  ## run the tests, in under 5 minutes
	$(PY) -m pytest

lint: setup  ## check style and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: setup  ## mend style and format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
