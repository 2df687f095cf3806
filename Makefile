# Every target makes what it needs: a virtual environment in .venv, with the packages of pyproject.toml.

PYTHON ?= python3
BIN := .venv/bin
VGGSCOPE := $(BIN)/vggscope
# What pip does for an installed package, it does not do for an editable one.
COMPILE := $(BIN)/python -m compileall -q vggscope
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test fuzz lowest lint types check bench bench-check docs gallery clean
.DELETE_ON_ERROR:

demo: .venv/installed  ## the three main commands
	$(VGGSCOPE) summary D
	$(VGGSCOPE) diagram E -o vgg19.svg
	$(VGGSCOPE) diff A --ref torchvision

test: .venv/installed-test  ## the whole suite
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

fuzz: .venv/installed-test  ## thousands of odd inputs, where `test` tries dozens
	$(BIN)/python -m pytest tests/test_fuzz.py tests/test_checkpoint.py --hypothesis-profile fuzz

lowest: .venv-lowest/installed  ## the suite with the lowest versions that pyproject.toml claims: downloads another torch
	.venv-lowest/bin/python -m pytest -m 'not slow' --numprocesses auto --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

check: test lint types docs demo  ## what has to hold before a change lands

bench: .venv/installed-bench  ## docs/benchmarks.md: us and other tools in turn, ten minutes
	$(BIN)/python benchmarks/peers.py

bench-check: .venv/installed-bench  ## a minute: fails where a ratio is twice as bad as it should be
	$(BIN)/python benchmarks/peers.py --check

docs: .venv/installed-dev  ## the documentation as a site, in docs/_build/html
	$(BIN)/sphinx-build -W -n -q -b html docs docs/_build/html

gallery: .venv/installed  ## docs/gallery.md and its pictures, drawn anew
	$(BIN)/python docs/gallery.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "vggscope needs Python 3.10 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	$(COMPILE)
	@touch $@

.venv/installed-test: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[test]'
	$(COMPILE)
	@touch .venv/installed $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev]'
	$(COMPILE)
	@touch .venv/installed .venv/installed-test $@

.venv/installed-bench: pyproject.toml | .venv/installed-dev
	$(PIP) --editable '.[dev,bench]'
	@touch $@

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv .venv-lowest .mypy_cache .pytest_cache .ruff_cache .hypothesis vgg19.svg
