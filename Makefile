# On a fresh machine with only Python 3.11+ and make:
#   make quickstart   creates .venv, installs, runs the main job
#   make test         creates .venv if missing, runs every check
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: install quickstart test lint format docs lock release-check clean

install: $(READY)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11-3.13 is needed, this is %d.%d; name another one with: make PYTHON=python3.12 ..." % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint requirements.lock --editable '.[dev]'
	@touch $(READY)

quickstart: $(READY)
	$(BIN)/rice quickstart

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Several at a time, each on one core; then, one by one, those that use all cores or the clock.
test: lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m "not alone" --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m alone

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site, into site/; building asks nothing of any network.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Every extra in one file, without any index's address.
lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --all-extras --no-emit-index-url --no-header --no-annotate pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --constraint requirements.lock --editable '.[dev]'
	$(BIN)/python tests/licences.py

# Wheel and sdist, looked into and tried in a clean environment of each Python: make release-check PYTHONS="python3.12"
PYTHONS ?= python3.11 python3.12 python3.13
release-check: $(READY)
	$(BIN)/python tests/release.py --python $(PYTHONS) --keep dist

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis quickstart out site
