# The one way to run anything. `make help` lists the targets and variables.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PROFILE ?= cpu
STUDY ?= all
SEEDS ?=
DEVICE ?=
# The paper's runs take a whole GPU each.
JOBS ?= $(if $(filter paper,$(PROFILE)),1,$(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))
YES ?=
BUDGET ?=
OUT ?=
IN ?=
SPEED ?=
GLAM_DATA ?= build/data
PYTHON3 ?= python3
# The cpu profile's results are the ones in git; every other profile has a folder of its own beside them.
RESULTS ?= $(if $(filter cpu,$(PROFILE)),results,results/$(PROFILE))

BUILD := build/$(PROFILE)
PYTHON := .venv/bin/python
READING := 00_start_here 01_glam_block 02_cue_scenes 03_cost 05_ablation 06_camvid 08_non_local_upsampling \
  09_paper_and_release 10_volumes 11_volume_study 12_neighbours 13_speed 14_paper_scale
BENCH_THREADS ?= 2
BENCH_BUILD := build/bench/$(or $(DEVICE),cpu)
# Training at 2048 pixels, whose passes take two cores most of a minute; without it, its memory alone is measured.
LARGE ?= $(if $(filter cuda,$(DEVICE)),1)
BENCH := $(foreach size,256 512 1024 2048,encoder-forward-$(size)) $(foreach size,256 512 1024,encoder-training-$(size)) \
  $(foreach size,256 512 1024,model-forward-$(size) model-training-$(size)) \
  encoder-training-2048$(if $(LARGE),,.memory)
# Larger images under the whole model, and larger batches, are a GPU's.
BENCH += $(if $(filter cuda,$(DEVICE)),model-forward-2048 model-training-2048 \
  $(foreach batch,4 16,encoder-forward-512-$(batch) encoder-training-512-$(batch) model-training-512-$(batch)))
export GLAM_DATA := $(abspath $(GLAM_DATA))
# One thread a run: runs go in parallel, and the number of threads decides the order of sums.
export OMP_NUM_THREADS := 1
# Freed memory stays with the process (glibc): handing it back and faulting it in again takes time in every step.
export MALLOC_MMAP_THRESHOLD_ := 33554432
export MALLOC_TRIM_THRESHOLD_ := 4000000000
export PYTHONWARNINGS := ignore

.PHONY: help setup reproduce quick plan study results report bench bench-paper gpu-run gpu-merge readme test lint lab \
  camvid clean

help: ## explain every target and variable
	@echo "Targets:"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'
	@echo "Variables (now):"
	@printf '  %s|%s\n' \
	  'PROFILE=$(PROFILE)' 'size of the studies: quick (a smoke run), cpu (the default), gpu, paper' \
	  'STUDY=$(STUDY)' 'all, or names with commas: context,decoders,mixers,release,camvid,volumes_...' \
	  'SEEDS=$(SEEDS)' 'seeds a variant; empty: as many as the profile says' \
	  'JOBS=$(JOBS)' 'runs at a time, one thread each' \
	  'LARGE=$(LARGE)' '1: bench also times training at 2048 pixels on a CPU' \
	  'YES=$(YES)' '1: profile paper does not ask before it starts' \
	  'DEVICE=$(DEVICE)' 'cpu, cuda or auto; empty: what the profile says' \
	  'GLAM_DATA=$(GLAM_DATA)' 'folder that holds camvid/; absent data are left out, and the report says so' \
	  'BUDGET=$(BUDGET) OUT=$(OUT) SPEED=$(SPEED)' 'of gpu-run: seconds, folder, groups of the speed benchmark to measure first' \
	  'IN=$(IN)' 'of gpu-merge: the file that gpu-run packed' \
	  'RESULTS=$(RESULTS)' 'where records, tables, figures and the report go' | column -t -s '|'

setup: .venv/.installed ## make the environment: .venv from requirements.lock

.venv/.installed: requirements.lock pyproject.toml
	@echo "installing the environment into .venv (once, some minutes)"
	@test -x $(PYTHON) || $(PYTHON3) -m venv .venv
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

reproduce: setup ## train every variant, write tables, figures, executed notebooks and the report
	@$(PYTHON) -m glamlib.runs.plan --profile $(PROFILE) --study $(STUDY) --build $(BUILD) --results $(RESULTS) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(DEVICE),--device $(DEVICE))
ifeq ($(PROFILE),paper)
	@$(PYTHON) -m glamlib.bench.confirm --build $(BUILD) --results $(RESULTS) $(if $(filter 1,$(YES)),--yes)
endif
	@$(MAKE) --no-print-directory -j $(JOBS) PLANNED=1 results

quick: ## the same study at smoke size, in minutes
	@$(MAKE) --no-print-directory reproduce PROFILE=quick

ifdef PLANNED
include $(BUILD)/plan.mk

# Notebooks and report read all studies; a part of them (STUDY=...) gives its records and tables.
# The notebooks ask what the smaller profiles answer: the paper's has records and tables.
results: $(if $(filter all,$(STUDY)),$(if $(filter paper,$(PROFILE)),,$(RESULTS)/report.html $(if $(filter results,$(RESULTS)),build/readme.done)),) $(TABLES)

# One run. The record is the target and the notebook's last act: a run that was cut off leaves none.
$(RESULTS)/runs/%/record.json: $(BUILD)/plan/%.json
	@echo "run $*"
	@$(PYTHON) -m glamlib.runs.notebook notebooks/04_train.ipynb $(BUILD)/runs/$*.ipynb --plan $< --set results=$(RESULTS)

$(RESULTS)/tables/%.csv:
	@$(PYTHON) -m glamlib.report.tables $(RESULTS) $*

$(RESULTS)/tables/cost.csv: $(BUILD)/code.txt
	@echo "table $@"
	@$(PYTHON) -m glamlib.cost.table $(RESULTS)

$(RESULTS)/tables/neighbours_cost.csv: $(BUILD)/code.txt
	@echo "table $@"
	@$(PYTHON) -m glamlib.cost.neighbours $(RESULTS)

# A minute and a half, and one; at smoke size the notebooks count a few models themselves.
ifneq ($(PROFILE),quick)
$(RESULTS)/notebooks/03_cost.ipynb: $(RESULTS)/tables/cost.csv
$(RESULTS)/notebooks/12_neighbours.ipynb: $(RESULTS)/tables/neighbours_cost.csv
endif

$(RESULTS)/notebooks/%.ipynb: notebooks/%.ipynb $(BUILD)/code.txt
	@echo "notebook $*"
	@$(PYTHON) -m glamlib.runs.notebook $< $@ --set profile=$(PROFILE) results=$(RESULTS)

# These read tables, and all but the first draw figures from them.
$(foreach name,00_start_here 05_ablation 06_camvid 09_paper_and_release 11_volume_study 12_neighbours 13_speed,$(RESULTS)/notebooks/$(name).ipynb): $(TABLES)

$(RESULTS)/report.html: notebooks/07_report.ipynb $(READING:%=$(RESULTS)/notebooks/%.ipynb) $(TABLES)
	@echo "report $@"
	@$(PYTHON) -m glamlib.runs.notebook $< $(BUILD)/07_report.ipynb --set profile=$(PROFILE) results=$(RESULTS)
	@$(PYTHON) -m glamlib.report.page report $(BUILD)/07_report.ipynb $@

build/readme.done: $(RESULTS)/report.html
	@$(PYTHON) -m glamlib.report.page readme README.md results
	@touch $@
endif

bench: setup ## time and memory of Swin and GLAM by image size (an hour alone on two cores), and their notebook
	@$(MAKE) --no-print-directory BENCHED=1 $(RESULTS)/tables/speed.csv
	@$(PYTHON) -m glamlib.runs.notebook notebooks/13_speed.ipynb $(RESULTS)/notebooks/13_speed.ipynb \
	  --set profile=$(PROFILE) results=$(RESULTS)

ifdef BENCHED
# One group at a time, and nothing beside it; what is there is kept, so that a bench that was cut off goes on.
.NOTPARALLEL:
MEASURE = OMP_NUM_THREADS=$(BENCH_THREADS) $(PYTHON) -m glamlib.bench.speed $* --out $@ --threads $(BENCH_THREADS) \
  $(if $(DEVICE),--device $(DEVICE))
# Passes of ten seconds meet whatever else a shared machine does: more rounds, for the ratio that the project is held to.
ROUNDS = $(if $(filter encoder-training-1024,$*),--rounds 9)

$(BENCH_BUILD)/%.json:
	@echo "bench $*"
	@$(MEASURE) $(ROUNDS)

$(BENCH_BUILD)/%.memory.json:
	@echo "bench $*, memory alone"
	@$(MEASURE) --rounds 0

$(RESULTS)/tables/speed.csv: $(BENCH:%=$(BENCH_BUILD)/%.json)
	@$(PYTHON) -m glamlib.bench.speed_table $^ --out $@
endif

# Always measured anew, and nothing beside it.
bench-paper: setup ## the loader's and a training step's speed, hours foretold for profile paper (minutes on a CPU)
	@OMP_NUM_THREADS=$(BENCH_THREADS) $(PYTHON) -m glamlib.study.paper_speed $(RESULTS) --threads $(BENCH_THREADS) \
	  $(if $(DEVICE),--device $(DEVICE))
	@$(PYTHON) -m glamlib.runs.notebook notebooks/14_paper_scale.ipynb $(RESULTS)/notebooks/14_paper_scale.ipynb \
	  --set profile=$(PROFILE) results=$(RESULTS)

# A lent machine has its own torch and no network: nothing is installed there.
gpu-run: ## what is missing of the gpu profile, as much as fits into BUDGET seconds; packed into OUT
	@test -n '$(BUDGET)' -a -n '$(OUT)' || { echo 'error: make gpu-run BUDGET=seconds OUT=folder'; exit 2; }
	@$(if $(wildcard $(PYTHON)),$(PYTHON),$(PYTHON3)) -m glamlib.study.slot --budget $(BUDGET) --out $(OUT) \
	  --study $(STUDY) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SPEED),--speed $(SPEED))

gpu-merge: setup ## put what gpu-run packed (IN) among results/gpu, and make its tables, figures and report anew
	@test -n '$(IN)' || { echo 'error: make gpu-merge IN=file'; exit 2; }
	@$(PYTHON) -m glamlib.study.parcel $(IN) results/gpu
	@$(PYTHON) -m glamlib.runs.plan --recorded results/gpu --build build/gpu-merged
	@if ls results/gpu/speed/*.json > /dev/null 2>&1; then \
	  $(PYTHON) -m glamlib.bench.speed_table results/gpu/speed/*.json --out results/gpu/tables/speed.csv; fi
	@$(MAKE) --no-print-directory -j $(JOBS) PROFILE=gpu BUILD=build/gpu-merged PLANNED=1 results

readme: setup ## put the headline table of results/ into README.md
	@$(PYTHON) -m glamlib.report.page readme README.md results

test: setup ## the tests, fast ones first
	@$(PYTHON) -m pytest -q -n $(JOBS)

lint: setup ## ruff's rules and format, and stripped notebooks
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/nbstripout --verify notebooks/*.ipynb

lab: setup ## JupyterLab on the notebooks
	@.venv/bin/jupyter lab --notebook-dir . notebooks/00_start_here.ipynb

camvid: setup ## fetch CamVid (from its public repository, verified) into GLAM_DATA
	@$(PYTHON) -m glamlib.data.fetch_camvid $(GLAM_DATA)/camvid

clean: ## remove what was built, but for the environment, fetched data and results/
	rm -rf $(filter-out build/data,$(wildcard build/*)) results/quick
