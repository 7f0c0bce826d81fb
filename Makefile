# make demo   the whole way in toy kitchens: data, pre-training, fine-tuning, selection, 20 trials, report
# make test   all quick tests
# make bench  benchmarks (never part of the tests)
# Each sets up the virtual environment it needs and is safe to repeat.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ptr-fast-installed
NATIVE := setup.py CMakeLists.txt $(shell find csrc -type f)

export MUJOCO_GL ?= egl
export PYTHONHASHSEED ?= 0

.PHONY: setup demo test test-slow bench lint format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[sim,dali,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/ptr-fast demo --out outputs/demo

test: $(STAMP)
	@$(BIN)/python -m pytest

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

bench: $(STAMP)
	@$(BIN)/python -m pytest benchmarks
	@$(BIN)/python -m benchmarks.bench_step

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf build outputs $(STAMP) ptr_fast/_native*.so
