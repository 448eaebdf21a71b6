PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types docs bench clean

demo: $(STAMP)  ## set everything up and run one complete study on built-in data
	$(BIN)/prunescope demo

test: $(VENV)/.tested  ## set everything up and pass the tests
	$(BIN)/pytest -n auto --dist loadfile --cov --cov-report=term --cov-fail-under=90

lint: $(VENV)/.developed  ## ruff, lint and format
	$(BIN)/ruff check --no-cache . && $(BIN)/ruff format --no-cache --check .

types: $(VENV)/.developed  ## mypy
	$(BIN)/mypy

docs: $(VENV)/.tested  ## run every example of the documentation
	$(BIN)/pytest tests/test_docs.py

bench: $(VENV)/.tested  ## ours beside peers: prints ratios
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.tested: $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.developed: $(VENV)/.tested
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
