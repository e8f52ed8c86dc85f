# make run    train and evaluate on the purchase log that comes with the package
# make test   the whole test suite
# make lint   style, types, import contracts, the benchmark table
# make docs   the site, in build/site: pages and public names, without a network
# make gpu    everything that a CUDA device has to show, in under eight minutes
# make clean  remove what these made; runs/ stays
#
# Each makes .venv if it is not there. PYTHON=python3.12 picks the interpreter, ARGS adds to the
# command: make run ARGS="trainer.max_epochs=5", make test ARGS="-k events". GPU_PYTHON=python3 lets
# `make gpu` use an environment that is there already, in place of .venv.

PYTHON ?= python3
ARGS ?=
GPU_PYTHON ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test lint docs gpu clean

run: .venv/installed
	$(BIN)/recsys train experiment=quickstart $(ARGS)

test: .venv/installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup $(ARGS)

lint: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m benchmarks.report --check

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)
	@echo "The site is build/site/index.html; with its search: python3 -m http.server -d build/site"

gpu: $(if $(GPU_PYTHON),,.venv/installed-test)
	$(or $(GPU_PYTHON),$(BIN)/python) -m benchmarks.gpu $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .*_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/pyvenv.cfg:
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/pyvenv.cfg
	@echo "Installing recsys and what it needs into .venv; torch makes this a few minutes"
	@$(PIP) --editable .
	@touch $@

.venv/installed-test: pyproject.toml constraints.txt | .venv/pyvenv.cfg
	@echo "Installing recsys, what it needs and its tests into .venv; torch makes this a few minutes"
	@$(PIP) --editable ".[test]"
	@touch .venv/installed $@

.venv/installed-docs: pyproject.toml constraints.txt | .venv/pyvenv.cfg
	@echo "Installing recsys and what makes its site into .venv"
	@$(PIP) --editable ".[docs]"
	@touch .venv/installed $@
