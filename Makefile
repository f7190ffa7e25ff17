# The targets make .venv by themselves. Variables: EXPERIMENT, ARGS (key=value ...), RUN, RUNS, LATENCY, MODEL,
# PROMPT, INPUT, OUTPUT, FIGURE, SCALE, NPROC, PYTHON.
PYTHON ?= python3
PY := .venv/bin/python
ARGS ?=
LAUNCH = $(PY) $(if $(NPROC),-m torch.distributed.run --standalone --nproc-per-node=$(NPROC) --)
export PROMPT  # read by the shell, whatever quotes it has
.DEFAULT_GOAL := help
.PHONY: help setup train sweep describe data evaluate score generate benchmark benchmark-softmax benchmark-train profile report reproduce reproduce-report test torture lint format

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

setup: .venv/installed  ## make .venv with the pinned dependencies and this project

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'gcnn needs Python 3.11 or newer; call make PYTHON=python3.x' >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev,wandb,sweep]' </dev/null
	@touch $@

ifneq ($(strip $(EXPERIMENT)$(ARGS)),)
train: setup  ## train EXPERIMENT with ARGS, in NPROC processes; without either, compare GCNN and LSTM on Shakespeare
	$(LAUNCH) scripts/train.py experiment=$(or $(EXPERIMENT),quickstart) $(ARGS)
else
TIME := $(shell date +%Y-%m-%d_%H-%M-%S)
GCNN := runs/quickstart/$(TIME)
LSTM := runs/quickstart_lstm/$(TIME)
train: setup
	$(PY) scripts/train.py experiment=quickstart run_dir=$(GCNN)
	$(PY) scripts/train.py experiment=quickstart_lstm run_dir=$(LSTM)
	$(PY) scripts/generate.py --run $(GCNN) --prompt "My lord," --save
	$(PY) scripts/generate.py --run $(LSTM) --prompt "My lord," --save
	$(PY) scripts/benchmark.py --quick --runs $(GCNN) $(LSTM) --out $(GCNN)/latency.json
	$(PY) scripts/report.py $(GCNN) $(LSTM) --latency $(GCNN)/latency.json
endif

sweep: setup  ## train EXPERIMENT for each combination in ARGS="model.gate=glu,relu seed=1,2", and write one table
	$(PY) scripts/train.py --multirun experiment=$(or $(EXPERIMENT),quickstart) $(ARGS)

describe: setup  ## print parameters, receptive field and FLOPs of MODEL (or all) beside Table 1
	@$(PY) scripts/describe.py $(MODEL) $(ARGS)

data: setup  ## encode a corpus ahead of training, as in ARGS="data=wikitext103 tokenizer=word"
	$(PY) scripts/prepare_data.py $(ARGS)

evaluate: setup  ## measure the perplexity of RUN, as in ARGS="--split valid" or ARGS="--file text.txt"
	@$(PY) scripts/evaluate.py --run $(RUN) $(ARGS)

score: setup  ## score standard input with RUN, or the files INPUT="dir/*.parquet" into the folder OUTPUT
	@$(LAUNCH) scripts/score.py --run $(RUN) $(if $(INPUT),--input $(INPUT) --output $(OUTPUT)) $(ARGS)

generate: setup  ## sample text from RUN after PROMPT
	@$(PY) scripts/generate.py --run $(RUN) --prompt "$$PROMPT" $(ARGS)

benchmark: setup  ## measure latency and throughput of the paper's architectures, or of RUNS
	$(PY) scripts/benchmark.py $(if $(RUNS),--runs $(RUNS)) $(ARGS)

benchmark-softmax: setup  ## measure the adaptive and the full softmax at growing vocabularies
	$(PY) scripts/benchmark_softmax.py $(ARGS)

benchmark-train: setup  ## measure training's speed beside the machine's own matrix product
	$(PY) scripts/benchmark_train.py $(ARGS)

profile: setup  ## print where a training step's time goes, by operator and module
	$(PY) scripts/benchmark_train.py --profile $(ARGS)

report: setup  ## write one page about RUNS, with LATENCY if given
	$(PY) scripts/report.py $(or $(RUNS),runs) $(if $(LATENCY),--latency $(LATENCY)) $(ARGS)

reproduce: setup  ## make FIGURE of the paper (all without) at SCALE=cpu, as in ARGS="data.path=DIR", in RUNS
	$(PY) scripts/reproduce.py $(if $(FIGURE),--figure $(FIGURE)) $(if $(SCALE),--scale $(SCALE)) $(if $(RUNS),--runs $(RUNS)) $(ARGS)

reproduce-report: setup  ## write docs/results/reproduction/ into docs/RESULTS.md, and as one page
	$(PY) scripts/reproduce_report.py $(ARGS)

test: setup  ## run the tests
	$(PY) -m pytest --numprocesses auto --dist loadfile

torture: setup  ## kill, starve and damage a real training run, and count what is lost: about 15 minutes, as root
	$(PY) tests/torture.py $(ARGS)

lint: setup  ## check style and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: setup  ## mend style and format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
