# Set-up and the two commands. After `make setup`, the plain tools work from the environment: . .venv/bin/activate
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help setup repro test test-slow torture audit experiment compare prefect prefect-stop verify doctor constraints

# What a user gives reaches the recipes as environment variables, and neither make nor the shell runs any of it.
unexport NAME SET NAMES REVISION MINUTES SEED
export GIVEN_NAME := $(value NAME)
export GIVEN_SET := $(value SET)
export GIVEN_NAMES := $(value NAMES)
export GIVEN_REVISION := $(value REVISION)
export GIVEN_MINUTES := $(value MINUTES)
export GIVEN_SEED := $(value SEED)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(READY)  ## make .venv with every dependency, as pinned in constraints.txt

repro: $(READY)  ## run the default experiment, from the data to the report
	dvc repro
	@cat results/report/summary.txt

test: $(READY)  ## linters, type checker, layer contracts and the test suite
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	pytest -m "not slow"

test-slow: $(READY)  ## the tests that take minutes
	pytest -m slow

torture: $(READY)  ## kill runs, damage files and parameters, change machines, for MINUTES=20: docs/robustness.md
	@python -m tests.torture --minutes "$${GIVEN_MINUTES:-20}" --seed "$${GIVEN_SEED:-0}"

audit: $(READY)  ## hold the pinned dependencies against published advisories, and their licences against pyproject.toml
	@python -m tests.audit

experiment: $(READY)  ## run one experiment of experiments.yaml: make experiment NAME=mnist-dcgan [SET="train.epochs=20 …"]
	@set -f; python -m flows.experiment "$$GIVEN_NAME" $$GIVEN_SET

compare: $(READY)  ## put finished experiments side by side on one page: make compare NAMES="mnist-quick mnist-vanilla-quick"
	@set -f; python -m flows.comparison $$GIVEN_NAMES

prefect: $(READY)  ## bring up Prefect on this machine: server, workers, deployments; as often as you like
	@python -m flows.setup

prefect-stop: $(READY)  ## end what `make prefect` started
	@python -m flows.setup --stop

verify: $(READY)  ## reproduce what is committed in an empty clone, and compare every output: make verify [REVISION=v1.0]
	@set -f; python -m flows.verify $$GIVEN_REVISION

doctor: $(READY)  ## say what accidents have left behind; with CLEAN=1, remove it
	@python -m flows.doctor $(if $(filter-out 0 no,$(value CLEAN)),--clean)

constraints:  ## choose the newest versions that pyproject.toml admits, and pin them all
	rm -rf $(VENV)
	$(MAKE) setup CONSTRAINTS=/dev/null
	$(VENV)/bin/pip freeze --all > constraints.txt
	touch $(READY)

CONSTRAINTS := constraints.txt
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "atelier needs Python 3.11 or newer, and this is " + sys.version.split()[0] + "; name another with make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint $(CONSTRAINTS) --upgrade pip
	$(VENV)/bin/pip install --quiet --constraint $(CONSTRAINTS) --group run --group dev
	@touch $(READY)
