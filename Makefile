# make demo   install, make a small data set, train on it, test, predict: the whole way in a few minutes on a CPU
# make test   install with the test extras and run the tests
# make docs   build the documents as a site into site/, every warning an error
# make check  everything that must hold before a change lands: lint, types, tests, docs, wheel
# make lock   choose the newest versions that fit pyproject.toml and write them to locks/

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs check lint lock clean

demo: .venv/run
	$(BIN)/python examples/make_demo_data.py demo/data
	$(BIN)/iwin train iwin_nano_demo --work-dir demo/run
	$(BIN)/iwin test iwin_nano_demo demo/run/best.safetensors --eval top_k_accuracy mean_class_accuracy
	$(BIN)/iwin predict demo/data/val/rise/000.mp4 demo/data/val/shrink/000.mp4 --checkpoint demo/run/best.safetensors

test: .venv/test
	$(BIN)/pytest

docs: .venv/test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: test lint docs
	$(BIN)/pytest -m "slow or parity"
	ATEN_CPU_CAPABILITY=avx2 $(BIN)/pytest tests/models
	PYTHON=$(PYTHON) bash tests/check_wheel.sh

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: .venv/test
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --quiet --output-file locks/run.txt
	$(BIN)/uv pip compile pyproject.toml --extra test --extra docs --constraint locks/run.txt --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet \
	  --output-file locks/test.txt

clean:
	rm -rf .venv demo dist site work_dirs

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"iwin needs Python 3.11 or newer, $(PYTHON) is {v.major}.{v.minor}; name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

# The stamp of an environment is newer than its lock and the package's metadata, or it is made again.
.venv/run .venv/test: .venv/%: .venv/bin/python locks/%.txt pyproject.toml
	$(BIN)/pip install --quiet --require-hashes --requirement locks/$*.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@
