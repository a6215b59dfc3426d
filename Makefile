# Every target makes its own environment, in .venv; the first time that takes some minutes, for Horovod is built.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# No target needs an activated shell: hvdtrain, mpirun and the tools are those of .venv first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# Open MPI refuses to run as root, which in a container everybody is.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## train on the embedded digits with two workers on this machine
	hvdtrain data demo runs/digits
	mpirun -np 2 --bind-to none --oversubscribe hvdtrain train --config demo --data.dir runs/digits \
	    --run.name "demo-$$(date +%Y%m%d-%H%M%S)"

.PHONY: test
test: setup test-setup lint ## all checks and all tests: what CI runs
	python -m pytest

.PHONY: soak
soak: setup test-setup ## every fault that is foreseen, many times: what was tried, survived and lost; an hour
	python -m pytest --soak tests/faults tests/cluster/test_cut_link.py tests/cluster/test_preemption.py \
	    tests/multiproc/test_agreement.py \
	    tests/multiproc/test_preempt.py::test_again_and_again_by_any_signal_to_anybody \
	    tests/multiproc/test_elastic.py::test_two_kills_and_a_growth_cost_time_alone

.PHONY: test-image
test-image: setup ## build docker/Dockerfile.cpu with podman and train in it: as root on Debian, some minutes
	docker/test-image.sh

.PHONY: bench
bench: setup ## measure this machine against every goal, then check plans against what others published; a quarter of an hour
	hvdtrain bench all --dir runs/bench
	hvdtrain plan --validate

.PHONY: test-setup
test-setup:
	@docker/test-setup.sh

.PHONY: lint
lint: setup ## formatting, types and shell scripts
	python -m ruff check
	python -m ruff format --check
	python -m mypy
	shellcheck docker/*.sh hvdtrain/slurm/*.sh benchmarks/*.sh tests/cluster/hosts tests/cluster/slurm-up tests/cluster/slurm-down tests/metrics/certificates/make.sh

.PHONY: doctor
doctor: setup ## would a run work on this machine, and if not, why
	hvdtrain doctor

.PHONY: setup
setup: ## the environment alone: PYTHON=... and HVDTRAIN_*: see docker/setup.sh --help
	@GOALS="$(MAKECMDGOALS)" docker/setup.sh

.PHONY: wheelhouse
wheelhouse: setup ## DIR=folder: all wheels for a machine without a network
	@docker/wheelhouse.sh "$(DIR)"

.PHONY: clean
clean: ## remove what was made here, but no runs
	rm -rf .venv build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
