# playpen: every target does its own set-up. Needs Python 3.11, make and the Python package registry.
PYTHON ?= python3.11
PYTHON := $(shell command -v $(PYTHON) >/dev/null 2>&1 && echo $(PYTHON) || echo python3)
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)

# pip's own folder of wheels, where one is set, may hold a CPU build of torch: let uv see it.
FIND_LINKS := $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)
ifneq ($(strip $(FIND_LINKS)),)
export UV_FIND_LINKS := $(shell echo $(FIND_LINKS) | tr ' ' ',')
endif
export UV_PYTHON := $(PYTHON)

.PHONY: help setup demo test lint pin clean

help:
	@echo "make demo    the whole job on the embedded world: no hub, no account, no GPU"
	@echo "make test    linters, types and the test suite"
	@echo "make setup   the environment in .venv, with the extras offline, prompts, ray and sagemaker and the developers' tools"
	@echo "make pin     resolve every dependency again and write the exact versions into pyproject.toml"

.tools/bin/uv:
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet uv==$(UV_VERSION)

# --inexact: what an earlier target installed stays.
setup: $(filter .tools/%,$(UV))
	$(UV) sync --quiet --compile-bytecode --inexact --extra offline --extra prompts --extra ray --extra sagemaker --group dev

demo: $(filter .tools/%,$(UV))
	$(UV) sync --quiet --compile-bytecode --inexact --no-default-groups
	.venv/bin/playpen run demo

# A process a core, at most four (each takes a GB), with whole files, so that what a file's tests share is made once.
test: setup lint
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright

pin: $(filter .tools/%,$(UV))
	UV=$(UV) $(PYTHON) tools/pin.py

clean:
	rm -rf .venv .tools uv.lock dist
