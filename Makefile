# The targets make .venv by themselves. Variables, on the command line (make train ARGS="key=value ..."), and who takes them:
TAKES_train := EXPERIMENT ARGS NPROC
TAKES_sweep := EXPERIMENT ARGS
TAKES_describe := MODEL ARGS
TAKES_data := EXPERIMENT ARGS
TAKES_evaluate := RUN ARGS
TAKES_compare := RUNS ARGS
TAKES_score := RUN INPUT OUTPUT NPROC ARGS
TAKES_generate := RUN PROMPT ARGS
TAKES_benchmark := RUNS ARGS
TAKES_benchmark-softmax := ARGS
TAKES_benchmark-train := ARGS
TAKES_profile := ARGS
TAKES_gpu := ARGS
TAKES_report := RUNS LATENCY COMPARISON ARGS
TAKES_reproduce := FIGURE SCALE RUNS ARGS
TAKES_reproduce-report := ARGS
TAKES_torture := ARGS
PYTHON ?= python3
PY := .venv/bin/python
LAUNCH = $(PY) $(if $(NPROC),-m gcnn.training.launch --standalone --nproc-per-node=$(NPROC) --)
TARGETS := help setup test lint format $(patsubst TAKES_%,%,$(filter TAKES_%,$(.VARIABLES)))
.DEFAULT_GOAL := help
.PHONY: $(TARGETS)

# What make would pass over in silence, or see only after an hour: variables that a target does not take, words that are no targets
TAKEN := $(sort PYTHON $(foreach goal,$(MAKECMDGOALS),$(TAKES_$(goal))))
STRAY := $(strip $(foreach name,$(filter-out $(TAKEN) GCNN_% MAKEFLAGS CURDIR,$(.VARIABLES)),$(if $(findstring command,$(origin $(name))),$(name))))
ifneq ($(STRAY),)
KEYS := $(filter-out $(foreach target,$(TARGETS),$(TAKES_$(target))),$(STRAY))
$(error make $(MAKECMDGOALS) takes $(TAKEN), not $(STRAY)$(if $(KEYS),; what is for the command itself is typed as ARGS="$(foreach name,$(KEYS),$(name)=$(value $(name)))"))
endif
ifneq ($(filter-out $(TARGETS) .venv/installed,$(MAKECMDGOALS)),)
$(error make has no target $(filter-out $(TARGETS),$(MAKECMDGOALS)), but $(sort $(TARGETS)); what is for a command is typed as ARGS="...")
endif

# One word for the shell; a run; and "$$@" becomes the paths in a variable: one with its blanks where that is there, else
# several as the shell reads them
q = '$(subst ','\'',$(1))'
run = --run $(call q,$(or $(RUN),$(error give RUN=..., the folder of a run, or RUN=latest)))
paths = IFS=; set -- $$$(1); [ -e "$$1" ] || { unset IFS; eval "set -- $$$(1)"; }; unset IFS;
export PROMPT INPUT RUNS

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

setup: .venv/installed  ## make .venv with the pinned dependencies and this project

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'gcnn needs Python 3.11 or newer; call make PYTHON=python3.x' >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev,nbest,wandb,tensorboard,sweep]' </dev/null
	@touch $@

ifneq ($(strip $(EXPERIMENT)$(ARGS)$(NPROC)),)
train: setup  ## train EXPERIMENT with ARGS, in NPROC processes; without either, compare GCNN and LSTM on Shakespeare
	$(LAUNCH) scripts/train.py $(call q,experiment=$(or $(EXPERIMENT),quickstart)) $(ARGS)
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
	$(PY) scripts/train.py --multirun $(call q,experiment=$(or $(EXPERIMENT),quickstart)) $(ARGS)

describe: setup  ## print parameters, receptive field and FLOPs of MODEL (or all of full size) beside Table 1
	@$(PY) scripts/describe.py $(MODEL) $(ARGS)

data: setup  ## encode the corpus of EXPERIMENT ahead of training, or as in ARGS="data=wikitext103 tokenizer=word"
	$(PY) scripts/prepare_data.py $(if $(EXPERIMENT),$(call q,experiment=$(EXPERIMENT))) $(ARGS)

evaluate: setup  ## measure the perplexity of RUN, as in ARGS="--split valid" or ARGS="--file text.txt"
	@$(PY) scripts/evaluate.py $(run) $(ARGS)

compare: setup  ## compare two runs on the same text, RUNS="A B", as in ARGS="--split valid" or ARGS="--file text.txt"
	@$(if $(RUNS),$(call paths,RUNS),$(error give RUNS="A B", the folders of two runs)) $(PY) scripts/compare.py "$$@" $(ARGS)

score: setup  ## score standard input with RUN, or the files INPUT="dir/*.parquet" into the folder OUTPUT
	@$(if $(INPUT),$(call paths,INPUT)) $(LAUNCH) scripts/score.py $(run) $(if $(INPUT),--input "$$@" --output $(call q,$(or $(OUTPUT),$(error give OUTPUT=..., a folder for the scores)))) $(ARGS)

generate: setup  ## sample text from RUN after PROMPT
	@$(PY) scripts/generate.py $(run) --prompt="$$PROMPT" $(ARGS)

benchmark: setup  ## measure latency and throughput of the paper's architectures, or of RUNS
	$(if $(RUNS),$(call paths,RUNS)) $(PY) scripts/benchmark.py $(if $(RUNS),--runs "$$@") $(ARGS)

benchmark-softmax: setup  ## measure the adaptive and the full softmax at growing vocabularies
	$(PY) scripts/benchmark_softmax.py $(ARGS)

benchmark-train: setup  ## measure training's speed beside the machine's own matrix product
	$(PY) scripts/benchmark_train.py $(ARGS)

profile: setup  ## print where a training step's time goes, by operator and module
	$(PY) scripts/benchmark_train.py --profile $(ARGS)

gpu: setup  ## test and measure on a GPU within minutes, as in ARGS="--minutes 8 --text DIR"; on a CPU at toy size
	$(PY) scripts/benchmark_gpu.py $(ARGS)

report: setup  ## write one page about RUNS, with LATENCY and COMPARISON if given
	$(if $(RUNS),$(call paths,RUNS)) $(PY) scripts/report.py $(if $(RUNS),"$$@",runs) $(if $(LATENCY),--latency $(call q,$(LATENCY))) $(if $(COMPARISON),--comparison $(call q,$(COMPARISON))) $(ARGS)

reproduce: setup  ## make FIGURE of the paper (all without) at SCALE=cpu, as in ARGS="data.path=DIR", in RUNS
	$(PY) scripts/reproduce.py $(if $(FIGURE),--figure $(FIGURE)) $(if $(SCALE),--scale $(SCALE)) $(if $(RUNS),--runs $(call q,$(RUNS))) $(ARGS)

reproduce-report: setup  ## write docs/results/reproduction/ into docs/REPRODUCTION.md, and as one page
	$(PY) scripts/reproduce_report.py $(ARGS)

test: setup  ## run the tests
	$(PY) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

torture: setup  ## kill, starve and damage a real training run, and count what is lost: about 15 minutes, as root
	$(PY) tests/torture.py $(ARGS)

lint: setup  ## check style and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: setup  ## mend style and format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
