# make demo | test | test-all | lint | install. The first call makes .venv; PYTHON chooses its interpreter (3.11+).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-all lint

install: .venv/installed

.venv/installed: setup.py constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

TASK ?= segmentation

demo: install
	$(BIN)/python tools/demo.py $(TASK)

# a worker a core, each with some 2 GB of memory
SIDE_BY_SIDE := -n auto --maxprocesses 8 --dist worksteal

test: install lint
	$(BIN)/python -m pytest -m "processes and not slow and not gpu"
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not processes and not slow and not gpu"

test-all: install lint
	$(BIN)/python -m pytest -m "processes and not gpu"
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not processes and not gpu"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
