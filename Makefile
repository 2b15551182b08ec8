# From a clean clone, `make demo` and `make test` do all set-up themselves.
# Another Python: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DOCS   := $(VENV)/.docs-installed
SITE   := build/site

.PHONY: demo test test-long test-review check bench docs docs-zip clean help licences sbom dist lock

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
	$(BIN)/ruff check src tests benchmarks release docs/conf.py docs/_extensions docs/review_client.py
	$(BIN)/ruff format --check src tests benchmarks release docs/conf.py docs/_extensions docs/review_client.py
	MILLIE_REVIEW_DATA=$$(mktemp -d) $(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Measurements for people; they never fail a build
	$(BIN)/python -m pytest benchmarks --benchmark-only -o python_files='bench_*.py' -m ''

licences: $(STAMP) ## Licences of the base install; fails where one is not permissive
	$(BIN)/python release/licences.py

sbom: $(STAMP) ## Bill of materials (CycloneDX): dependencies, scripts, weights and their data
	$(BIN)/python release/sbom.py dist/sbom.cdx.json

dist: $(STAMP) ## Wheel and source archive in dist/
	$(BIN)/hatchling build

lock: $(STAMP) ## Renew uv.lock from pyproject.toml, pinned as constraints.txt says
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv lock $$(sed -n 's/^[a-z].*/--upgrade-package &/p' constraints.txt)

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs,review-test]'
	@touch $@

docs: $(DOCS) ## Build the site with its tutorials, check it, name its first page
	rm -rf $(SITE)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -n -q -d build/doctrees docs $(SITE)
	MILLIE_SITE=$(SITE) $(BIN)/python -m pytest -n 0 tests/docs/test_site.py
	@echo "Open $(SITE)/index.html"

docs-zip: docs ## The site as one file, build/millie-docs.zip
	cd $(SITE) && $(abspath $(BIN))/python -m zipfile -c ../millie-docs.zip .

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
