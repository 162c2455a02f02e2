# Two commands do all the set-up on a fresh machine with Python 3.11 or newer and make:
#   make sample   a first map, made from a simulated landscape
#   make test     the tests that need nothing but the environment
# make test-system is for what else must be installed, such as QGIS: a test whose program is missing skips, unless
# WETMAP_REQUIRE names it (WETMAP_REQUIRE=qgis), and then it fails.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
TIMES ?= 20
SEED ?= 7

.PHONY: sample test test-system torture fuzz audit lock lint docs reference format clean

sample: $(VENV)/.installed
	$(BIN)/wetmap run pipelines/sample.yaml

# One thread for each of the test processes: together they fill the cores, and threads that wait for a core spin.
test: $(VENV)/.installed-dev lint docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not system"

test-system: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m system tests/system

# Every fault many times, at moments drawn from SEED; the table of what was lost goes into torture.md.
torture: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 WETMAP_TORTURE=$(TIMES) WETMAP_TORTURE_SEED=$(SEED) WETMAP_TORTURE_TABLE=torture.md \
		$(BIN)/python -m pytest tests/system/test_faults.py

# Input that nobody meant: 20 times as many examples as make test, at random, and then the parsers led by coverage, each
# for WETMAP_FUZZ_SECONDS (60).
fuzz: $(VENV)/.installed-dev
	$(PIP) install --quiet --constraint constraints.txt --editable '.[fuzz]'
	OMP_NUM_THREADS=1 WETMAP_FUZZ=20 $(BIN)/python -m pytest -n $(WORKERS) --timeout 1800 tests/fuzz
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.atheris_parsers

# Known holes of the packages that constraints.txt pins. It asks the Python Package Index over the network, and fails
# where it cannot. The tool has an environment of its own: it is no part of wetmap.
audit: $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

# The hashes of all files that constraints.txt pins, from the Python Package Index.
lock: $(VENV)/bin/python
	$(BIN)/python .ci/lock.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell README.md CHANGELOG.md docs wetmap tests pipelines aoi

# The site, into site/: every link is checked, and every page must have its place.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The pages that are written from the recipe's schema and the commands.
reference: $(VENV)/.installed-dev
	$(BIN)/python docs/make_reference.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("wetmap needs Python 3.11 or newer, and this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
