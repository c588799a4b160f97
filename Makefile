# make setup   everything: runtime, tests, training      make demo   the system on real video
# make test    all tests                                 make check  format, lint, types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
SECONDS ?=
SOURCE ?=
PORT ?= 8080
WORKERS ?= 3

.PHONY: setup demo test check format clean help

help:
	@sed -n 's/^# //p' Makefile | head -2

setup: $(VENV)/.runtime $(VENV)/.test $(VENV)/.train

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "storeguard needs Python 3.11 or newer; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the runtime part (a minute or two the first time)"
	$(PIP) install -c constraints.txt setuptools wheel
	$(PIP) install -c constraints.txt --no-build-isolation -e ".[demo]"
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	@echo "installing the test part"
	$(PIP) install -c constraints.txt --no-build-isolation -e ".[demo,test]"
	@touch $@

$(VENV)/.train: $(VENV)/.runtime
	@echo "installing the training part"
	$(PIP) install -c constraints.txt --no-build-isolation -e ".[demo,train]"
	@touch $@

demo: $(VENV)/.runtime
	$(BIN)/storeguard demo --port $(PORT) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SOURCE),--source '$(SOURCE)')

test: $(VENV)/.test $(VENV)/.train
ifdef PYTEST
	$(BIN)/python -m pytest $(PYTEST)
else
	@# Those with Ray by themselves: each starts a dozen processes. Both parts run, whatever fails.
	@failed=0; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --ignore tests/system || failed=1; \
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/system || failed=1; \
	exit $$failed
endif

check: $(VENV)/.test $(VENV)/.train
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
