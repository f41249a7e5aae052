# Everything a developer types. `make run` and `make test` need nothing but Python 3.11+, make and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= What is the capital of France?

.PHONY: run env dev test test-fast sanitize check lint types imports format bench-peers bench clean

run: $(VENV)/.installed  ## ask a small language model a question
	$(BIN)/inference-pio run smollm2-135m-instruct "$(PROMPT)" --temperature 0

env: $(VENV)/.installed  ## the environment, without asking anything

dev: $(VENV)/.dev  ## the environment with linters, tests and the reference implementations

# torch first: the native kernels are built against the installed one, so the build must not be isolated.
$(VENV)/.installed: pyproject.toml setup.py constraints.txt $(wildcard src/inference_pio/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt setuptools torch numpy
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev,reference]'
	touch $@

test: $(VENV)/.dev  ## lint, types, import rules and every test
	$(MAKE) check
	$(BIN)/pytest

# PART=tests/engine (or any folder or file of tests) takes seconds; all of it takes two minutes on two cores.
PART ?=
test-fast: $(VENV)/.dev  ## the daily loop: everything but the slow tests, or PART of it
	$(BIN)/pytest -m "not slow" $(PART)

# A copy of the package whose kernels stop at the first access outside memory and at the first undefined behaviour. The
# sanitizer's runtime has to be there before Python: it is loaded first. A build that failed must not look like a pass.
ifeq ($(origin CXX),default)
CXX := c++
endif
SANITIZED := build/sanitized
RUNTIME = $(if $(findstring clang,$(shell $(CXX) --version)),libclang_rt.asan-$(shell uname -m).so,libasan.so)
CHECKS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
sanitize: $(VENV)/.dev  ## the kernels' tests, with address and undefined behaviour sanitizers in the C++
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -r src setup.py pyproject.toml README.md LICENSE $(SANITIZED)
	find $(SANITIZED) -name '*.so' -delete
	cd $(SANITIZED) && CXX="$(CXX) $(CHECKS) $(if $(findstring clang,$(RUNTIME)),-shared-libasan)" CXXFLAGS="-O1 -g1" \
		$(abspath $(BIN))/python setup.py -q build_ext --inplace
	test -f $(SANITIZED)/src/inference_pio/_native.so
	PYTHONPATH=$(abspath $(SANITIZED))/src ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		LD_PRELOAD="$(shell $(CXX) -print-file-name=$(RUNTIME)) $(shell $(CXX) -print-file-name=libstdc++.so)" \
		$(BIN)/pytest -q --capture=sys -m "not slow" tests/ops

check: lint types imports  ## everything that reads the code without running it

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

# The scripts of benchmarks/ are packages of their own beside the engine's.
BENCHMARKS := PYTHONPATH=benchmarks $(BIN)/python -m

# Without NAME: our rows of the table, beside what the machine can do and the last recorded run.
# NAME is plugin/benchmark: one of a plugin's six. make bench NAME=llama/accuracy OPTIONS="--quick --json"
NAME ?=
bench: $(VENV)/.installed  ## our speed: share of the machine's, change since the last record; or a plugin's benchmark
	$(if $(NAME),$(BIN)/python -m inference_pio.models.$(subst /,.benchmarks.benchmark_,$(NAME)),$(BENCHMARKS) roofline) $(OPTIONS)

bench-peers: $(VENV)/.dev  ## our engine against llama.cpp, OpenVINO, Transformers and vLLM, in the same run
	$(BENCHMARKS) peers $(OPTIONS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find src -name '*.so' -delete
