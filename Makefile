PYTHON ?= python3
BIN := .venv/bin
INPUTS := setup.cfg pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test postgresql lint docs bench

help: ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv .venv

# One stamp for each extra: nothing is installed again until its inputs change.
.venv/.installed-%: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[$*]'
	@touch $@

install: .venv/.installed-demo .venv/.installed-test .venv/.installed-lint ## install the package and its tools into .venv

demo: .venv/.installed-demo ## three recipients' images, attributed; report in demo/report.html
	$(BIN)/python experiments/demo/demo.py --out demo

test: export OMP_NUM_THREADS := 1
test: .venv/.installed-test ## run the tests, beside a PostgreSQL server where that is installed
	.ci/with-postgresql $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

postgresql: ## install Debian's PostgreSQL for the tests (as root)
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql

lint: .venv/.installed-lint ## check style, types and the order of rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: .venv/.installed-docs ## build the documentation: docs/_build/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "open docs/_build/index.html"

bench: .venv/.installed-demo ## measure speed and memory, each figure beside a peer or a limit
	$(BIN)/python experiments/performance/bench.py
