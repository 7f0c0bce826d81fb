# make demo   the point in toy kitchens: operators' data, ten demonstrations, three methods, 40 trials each, report
# make test   all quick tests, in two processes
# make lint   ruff, clang-format and mypy say what is wrong; make format corrects what they can correct
# make test-isa  what computes, with the instruction sets of older processors (needs one with AVX2)
# make test-without-cuda  the native module as it is where no nvcc is found, then built as before
# make test-lerobot  LeRobot data sets and our policies in LeRobot, with the package itself, in .venv-lerobot (Python 3.12, from uv or here)
# make bench  benchmarks (never part of the tests); make peers first installs what they compare with, in .venv-peers
# make bench-gpu  what is measured on a GPU, in four programs; make gpu-wheels gathers what a machine without registry needs
# make docs   the pages of docs/ as a site
# make evidence-gpu  the grid of the published table on a GPU, for so long as EVIDENCE_MINUTES; the same command goes on
# Each sets up the virtual environment it needs and is safe to repeat.

PYTHON ?= python3
GPU_PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ptr-fast-installed
NATIVE := setup.py CMakeLists.txt $(shell find csrc -type f -not -name '*.pyc')

export MUJOCO_GL ?= egl
export PYTHONHASHSEED ?= 0

.PHONY: setup demo test test-isa test-without-cuda test-lerobot test-slow bench bench-gpu evidence-gpu gpu-wheels peers docs lint format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[sim,dali,robot,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/ptr-fast demo --out outputs/demo

test: $(STAMP)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

# PyTorch's own kernels, oneDNN, MKL and ours read these once per process. Triton's interpreter has no instruction set.
ISA_TESTS := tests/kernels tests/learners tests/nets tests/parity tests/native tests/data/test_resize.py tests/runtime/test_acting.py
ISA_PYTEST = $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not triton" --ignore tests/learners/test_stranger.py $(ISA_TESTS)
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 PTR_FAST_ISA=avx2
SSE  := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 PTR_FAST_ISA=baseline
test-isa: $(STAMP)
	@if grep -q avx512f /proc/cpuinfo; then echo "AVX2:" && $(AVX2) $(ISA_PYTEST); \
	else echo "AVX2: this processor has nothing newer, so make test is that run"; fi
	@echo "SSE:" && $(SSE) $(ISA_PYTEST)

# Few objects differ from the build with CUDA, so it costs seconds. The tests' module is replaced, and built again after it.
WITHOUT_CUDA_TESTS := tests/native tests/kernels/test_dispatch.py tests/verbs/test_info.py tests/runtime/test_control_loop.py
test-without-cuda: $(STAMP)
	@trap '$(BIN)/python setup.py -q build_ext --inplace' EXIT; \
	PTR_FAST_CUDA=0 $(BIN)/python setup.py -q build_ext --inplace && $(BIN)/python -m pytest $(WITHOUT_CUDA_TESTS)

# The package needs Python 3.12 and another torch than ours; without one or the other the tests are skipped and say why.
PYTHON312 ?= python3.12
LEROBOT_PYTHON ?= .venv-lerobot/bin/python
test-lerobot: $(STAMP)
	@test -x $(LEROBOT_PYTHON) || $(PYTHON312) -m venv .venv-lerobot 2>/dev/null \
	|| uv venv -q --seed --python 3.12 .venv-lerobot 2>/dev/null \
	|| echo "skipped: no Python 3.12 here, and no uv to get one"
	@test ! -x $(LEROBOT_PYTHON) || $(LEROBOT_PYTHON) -c 'import lerobot' 2>/dev/null \
	|| $(LEROBOT_PYTHON) -m pip install -q --disable-pip-version-check 'lerobot[dataset]==0.6.1' \
	|| { echo "skipped: the lerobot package cannot be installed here"; rm -rf .venv-lerobot; }
	@PTR_FAST_LEROBOT_PYTHON=$(abspath $(LEROBOT_PYTHON)) $(BIN)/python -m pytest -rs tests/datasets/test_lerobot_folders.py \
	tests/datasets/test_lerobot_package.py
	@! test -x $(LEROBOT_PYTHON) || { $(LEROBOT_PYTHON) -m pip install -q --disable-pip-version-check \
	'lerobot[dataset,training,diffusion]==0.6.1' pytest tyro msgpack websockets metaworld==3.1.1 mujoco==3.3.0 \
	&& $(LEROBOT_PYTHON) -m pip install -q --disable-pip-version-check --no-deps ./python/lerobot_policy_ptr \
	./python/lerobot_robot_ptr && HF_HUB_OFFLINE=1 PYTHONPATH=.:python $(LEROBOT_PYTHON) -m pytest -q -p no:cacheprovider -c /dev/null --rootdir . \
	python/lerobot_policy_ptr/tests python/lerobot_robot_ptr/tests; }

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

bench: $(STAMP)
	@$(BIN)/python -m pytest benchmarks
	@$(BIN)/python -m benchmarks.bench_step
	@$(BIN)/python -m benchmarks.bench_peers
	@$(BIN)/python -m benchmarks.bench_loop

# The interpreter whose torch sees a GPU: python3 where it does, else this environment's.
# GPU_ARGS: a program and its options, e.g. make bench-gpu GPU_ARGS=second
bench-gpu:
	@if $(GPU_PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; \
	then PYTHONPATH=.:python $(GPU_PYTHON) -m benchmarks.bench_gpu $(GPU_ARGS); \
	else $(MAKE) --no-print-directory $(STAMP) && $(BIN)/python -m benchmarks.bench_gpu $(GPU_ARGS); fi

# The grid of docs/compare.md in calls of ten minutes: each goes on where the last one stopped, and leaves rows and page.
# EVIDENCE_GRID: another grid; EVIDENCE_PER_GPU: trainings side by side on one GPU, which small networks do not fill.
EVIDENCE_GRID ?= deck
EVIDENCE_OUT ?= outputs/evidence-$(EVIDENCE_GRID)
EVIDENCE_MINUTES ?= 9
EVIDENCE_PER_GPU ?= 8
EVIDENCE := compare $(EVIDENCE_GRID) --out $(EVIDENCE_OUT) --minutes $(EVIDENCE_MINUTES) --per-gpu $(EVIDENCE_PER_GPU)
evidence-gpu:
	@if $(GPU_PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; \
	then PYTHONPATH=$(CURDIR):$(CURDIR)/python $(GPU_PYTHON) -m benchmarks.evidence_gpu $(EVIDENCE); \
	else $(MAKE) --no-print-directory $(STAMP) && $(BIN)/ptr-fast $(EVIDENCE); fi

# What a GPU machine without a registry may lack, as wheels for its interpreter: benchmarks/gpu/wheels.py unpacks them.
gpu-wheels: $(STAMP)
	@$(BIN)/python -m benchmarks.gpu.wheels $(GPU_WHEELS_ARGS)

# What the benchmarks compare with, in an environment of its own: d3rlpy pins another gymnasium.
PEERS := .venv-peers/.ptr-fast-installed
peers: $(PEERS)

$(PEERS): benchmarks/peers/requirements.txt
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

# The pages of docs/ as a site in outputs/site; a warning is an error. They read the sources, and need no build of them.
DOCS := .venv-docs/.ptr-fast-installed
docs: $(DOCS)
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --clean
	@echo "outputs/site/index.html"

$(DOCS): docs/requirements.txt
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

CSRC := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run -Werror $(CSRC)
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CSRC)

clean:
	rm -rf build outputs .venv-peers .venv-lerobot $(STAMP) ptr_fast/_native*.so
