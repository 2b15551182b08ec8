# From a clean clone, `make demo` and `make test` do all set-up themselves.
# Another Python: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-long test-review check bench clean help

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## Draw a synthetic cohort, run the whole method on it, name the report
	$(BIN)/millie demo --out demo-output

test: $(STAMP) ## Lint, types, import contracts and the short test suite with coverage
	$(MAKE) check
	$(BIN)/python -m pytest -n 2 -m 'not long and not review_long' --cov --cov-report=term:skip-covered

test-long: $(STAMP) ## Everything, long suites included
	$(BIN)/python -m pytest -n 2

test-review: $(STAMP) ## The whole suite of the review app, in Chromium too, on SQLite and on PostgreSQL
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,review-test]'
	$(BIN)/python -m pytest tests/review
	$(BIN)/python tests/review/with_postgres.py $(BIN)/python -m pytest tests/review

check: $(STAMP) ## Lint, types, import contracts
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	MILLIE_REVIEW_DATA=$$(mktemp -d) $(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Measurements for people; they never fail a build
	$(BIN)/python -m pytest benchmarks --benchmark-only -o python_files='bench_*.py' -m ''

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
