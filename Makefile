# `make run` and `make test` are the README's two commands; the others are what a developer repeats.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(PYTHON) -m venv .venv && $(BIN)/pip install --quiet --constraint constraints.txt --editable

.PHONY: run test test-slurm lint format config clean

run:  ## install, run the default config, write results/report.html
	$(INSTALL) . && $(BIN)/snakemake --cores all

test:  ## install what the tests need, and pass them
	$(INSTALL) '.[test]' && $(BIN)/python -m pytest

test-slurm:  ## pass the tests on a cluster, a SLURM of their own, where its packages are installed
	$(INSTALL) '.[slurm,test]' && $(BIN)/python -m pytest -n0 tests/slurm

lint:  ## lint, format check, types, and Snakemake's own linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint

format:  ## put all code into the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

config:  ## write config/schema.json and the key tables of config/README.md from the config models
	$(BIN)/python -m tessera.config

clean:  ## remove everything a run has produced
	rm -rf logs .snakemake && find results -mindepth 1 ! -name README.md -delete
