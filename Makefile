# Two commands matter: `make serve` and `make test`. Everything they need is made on the way; `make help` lists the rest.
# Steps leave stamps in .venv/stamps, so a second run does only what changed.

HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?=
TEST_MODELS := smollm2-135m gemma3-270m

BIN := .venv/bin
STAMPS := .venv/stamps
BUILD := build/dev
ARM_BUILD := build/arm
ARM_COMPILER := aarch64-linux-gnu-g++
NATIVE_CODE := $(shell find native -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.inc' \) 2>/dev/null)
BUILD_FILES := CMakeLists.txt $(shell find native -type f \( -name '*.cmake' -o -name CMakeLists.txt \) 2>/dev/null)

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve build model test test-slow test-models native-tests arm-tests bench format clean \
	lint lint-style lint-house lint-imports lint-types

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: build model ## Set up, get the default model, serve the chat page (PORT=8000 HOST=127.0.0.1 MODEL=name)
	@$(BIN)/vivace serve $(if $(MODEL),--model $(MODEL)) --host $(HOST) --port $(PORT)

build: $(STAMPS)/installed ## Create .venv, compile the core, install vivace (editable)

model: build
	@$(BIN)/vivace models pull $(or $(MODEL),smollm2-135m)

test: lint native-tests arm-tests $(STAMPS)/wheel-checked test-models ## The whole gate: style, types, contracts, C++ tests, Python tests
	$(BIN)/ctest --test-dir $(BUILD) --output-on-failure --no-tests=error
	$(BIN)/python -m pytest

test-slow: native-tests test-models ## The tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: lint-style lint-house lint-imports lint-types ## Style, sizes, hygiene, import contract, types (-k shows all failures)

lint-style: $(STAMPS)/dev-tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(NATIVE_CODE),$(BIN)/clang-format --dry-run -Werror $(NATIVE_CODE))

lint-house: $(STAMPS)/venv
	$(BIN)/python tools/check_sizes.py
	$(BIN)/python tools/check_hygiene.py

lint-imports: $(STAMPS)/dev-tools $(STAMPS)/installed
	$(BIN)/lint-imports --no-logo

lint-types: $(STAMPS)/dev-tools $(STAMPS)/installed
	$(BIN)/mypy

format: $(STAMPS)/dev-tools ## Format Python and C++ in place
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .
	$(if $(NATIVE_CODE),$(BIN)/clang-format -i $(NATIVE_CODE))

native-tests: $(STAMPS)/dev-tools $(STAMPS)/installed
	@$(BIN)/cmake -S . -B $(BUILD) -DVIVACE_TESTS=ON >/dev/null
	@$(BIN)/cmake --build $(BUILD)

# The NEON kernels, cross-compiled and run under an emulator where the machine has both.
arm-tests: $(STAMPS)/dev-tools
	@if command -v $(ARM_COMPILER) >/dev/null && command -v qemu-aarch64 >/dev/null; then \
		$(BIN)/cmake -S . -B $(ARM_BUILD) -G Ninja -DVIVACE_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux \
			-DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(ARM_COMPILER) -DCMAKE_EXE_LINKER_FLAGS=-static \
			-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64 >/dev/null && \
		$(BIN)/cmake --build $(ARM_BUILD) && \
		$(BIN)/ctest --test-dir $(ARM_BUILD) --output-on-failure --no-tests=error; \
	else echo "Arm tests skipped: they need $(ARM_COMPILER) and qemu-aarch64"; fi

# VIVACE_TEST_MODELS may name a folder that has the model files; otherwise they are pulled once into the user's cache.
test-models: $(STAMPS)/installed
	@if [ -n "$${VIVACE_TEST_MODELS:-}" ]; then echo "models from VIVACE_TEST_MODELS"; \
	else for name in $(TEST_MODELS); do $(BIN)/vivace models pull $$name || exit; done; fi

bench: build model ## Tokens per second of one sequence, prompt and decode
	$(BIN)/vivace bench raw --model $(or $(MODEL),smollm2-135m) --prompt 512 --decode 96

clean: ## Remove .venv and everything built
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(STAMPS)/venv:
	@PYTHON_FOUND="$$(PYTHON='$(PYTHON)' tools/check_machine.sh)" && "$$PYTHON_FOUND" -m venv .venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/build-tools: $(STAMPS)/venv pyproject.toml
	@echo "getting the build tools"
	@$(BIN)/python tools/install_group.py build && touch $@

$(STAMPS)/dev-tools: $(STAMPS)/venv pyproject.toml
	@echo "getting the development tools"
	@$(BIN)/python tools/install_group.py dev && touch $@

$(STAMPS)/installed: $(STAMPS)/build-tools pyproject.toml $(BUILD_FILES) $(NATIVE_CODE)
	@echo "compiling and installing vivace (the first time takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable . && touch $@

$(STAMPS)/wheel-checked: $(STAMPS)/installed tools/check_wheel.py
	$(BIN)/python tools/check_wheel.py
	@touch $@
