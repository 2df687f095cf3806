# Each target creates what it needs: a virtual environment in .venv with the packages of pyproject.toml.

PYTHON ?= python3
BIN := .venv/bin
VGGSCOPE := $(BIN)/vggscope
PARALLEL := --numprocesses auto --dist worksteal
# Python compiles a module when it first imports it, and keeps the result. pip would compile all of torch's.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all fuzz lowest lint types check bench bench-check docs gallery gallery-peers web web-serve clean
.DELETE_ON_ERROR:

demo: .venv/installed  ## the three main commands
	$(VGGSCOPE) summary D
	$(VGGSCOPE) diagram E -o vgg19.svg
	$(VGGSCOPE) diff A --ref torchvision

test: .venv/installed-test  ## three minutes: one parameter set of each test, few generated examples, no slow test
	$(BIN)/python -m pytest --quick $(PARALLEL)

test-all: .venv/installed-test  ## the whole suite
	$(BIN)/python -m pytest $(PARALLEL)

fuzz: .venv/installed-test  ## thousands of odd inputs, where `test-all` tries hundreds
	$(BIN)/python -m pytest tests/test_fuzz.py tests/test_checkpoint.py tests/test_diff_proofs.py --hypothesis-profile fuzz

lowest: .venv-lowest/installed  ## quick tests with the lowest versions that pyproject.toml claims: downloads another torch
	.venv-lowest/bin/python -m pytest --quick --parameter-sets 3 $(PARALLEL)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev  ## mypy, and a user's project with mypy and, where node is installed, pyright
	$(BIN)/mypy
	$(BIN)/mypy tests/typed
	if command -v node >/dev/null; then $(BIN)/pyright --pythonpath $(BIN)/python --project tests/typed/pyrightconfig.json; fi

check: test-all lint types docs demo  ## what must pass before a change lands

bench: .venv/installed-bench  ## half an hour: write docs/benchmarks.md, vggscope and other tools in turn
	$(BIN)/python benchmarks/peers.py

bench-check: .venv/installed-bench  ## a minute: fail if a ratio is twice as bad as its bound
	$(BIN)/python benchmarks/peers.py --check

docs: .venv/installed-dev  ## the documentation as a site, in docs/_build/html
	$(BIN)/sphinx-build -W -n -q -b html docs docs/_build/html

gallery: .venv/installed  ## draw docs/gallery.md and its pictures again
	$(BIN)/python docs/gallery.py

gallery-peers: .venv/installed-bench  ## the same networks drawn by other tools too, in docs/_build/peers/index.html
	$(BIN)/python benchmarks/peer_pictures.py

web: web/_site/index.html  ## the site that runs vggscope in a browser, in web/_site: needs Node and npm

web-serve: web  ## serve the site on this machine alone: http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory web/_site $(PORT)

PORT ?= 8000
WEB := $(shell find vggscope web/page web/python -type f -not -name '*.pyc')

web/_site/index.html: web/build.py $(WEB) web/node_modules/.package-lock.json .venv/installed-test
	$(BIN)/python web/build.py

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund --silent
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "vggscope needs Python 3.10 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python $(INSTALL) --editable .
	@touch $@

.venv/installed-test: pyproject.toml | .venv/bin/python
	$(BIN)/python $(INSTALL) --editable '.[test]'
	@touch .venv/installed $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python $(INSTALL) --editable '.[dev]'
	@touch .venv/installed .venv/installed-test $@

.venv/installed-bench: pyproject.toml | .venv/bin/python
	$(BIN)/python $(INSTALL) --editable '.[dev,bench]'
	@touch .venv/installed .venv/installed-test .venv/installed-dev $@

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(INSTALL) --constraint constraints-lowest.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf web/_site web/node_modules .venv .venv-lowest .mypy_cache .pytest_cache .ruff_cache .hypothesis vgg19.svg
