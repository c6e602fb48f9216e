# Everything a person does with a clone. `make` alone lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PROMPT ?= red apple
OUT ?= picture.png
SEED ?= 0
CLIP ?= walk.webp
FROM ?= red apple
TO ?= sunflower
SWIFT_VERSION := 6.2
LDM = Examples/.build/release/ldm
SOURCES := Package.swift Sources Tests Examples/Package.swift Examples/Sources Examples/ImageServer/Package.swift Examples/ImageServer/Sources \
  Benchmarks Integrations/Package.swift Integrations/Sources Integrations/Tests
# Imports point down only; an import that Package.swift does not name is an error.
# Colours are an option of the compiler, so that a build on a terminal would be another than one elsewhere, and take its minutes again.
BUILD := swift build -c release --no-color-diagnostics --explicit-target-dependency-import-check error
EXAMPLES := swift build -c release --no-color-diagnostics --package-path Examples
SERVER := swift build -c release --no-color-diagnostics --package-path Examples/ImageServer

.PHONY: help setup toolchain demo demo-video ldm install server train-lora train-shapes test test-server test-integrations api compatibility neon \
  bench bench-peers format lint docs clean

help: ## List these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

toolchain:
	@Scripts/require-swift $(SWIFT_VERSION)

setup: toolchain ## Install the system packages that are missing
	@Scripts/install-packages

demo: setup ## Make a picture: make demo PROMPT="red apple" OUT=apple.png SEED=0
	@$(MAKE) --no-print-directory ldm
	@$(LDM) txt2img --prompt "$$PROMPT" --seed "$$SEED" --output "$$OUT"

# Half a minute on two cores: 25 pictures, each shown on the way there and on the way back.
demo-video: setup ## Make a clip that walks between prompts: make demo-video CLIP=walk.webp
	@$(MAKE) --no-print-directory ldm
	@$(LDM) morph --prompt "$$FROM" --prompt "$$TO" --seed "$$SEED" --frames 48 --fps 12 --ping-pong --easing ease-in-out --batch-size 5 --output "$$CLIP"

export PROMPT OUT SEED FOLDER CLIP FROM TO PREFIX

ldm: setup ## Build the command-line tool
	@echo "Building (some minutes the first time) …"
	@$(EXAMPLES) --product ldm --quiet

install: ldm ## Install the tool: make install PREFIX=/usr/local
	@Scripts/install-ldm "$${PREFIX:-/usr/local}"

server: setup ## Start the picture server and its page: make server OPTIONS="--port 8080 --state pictures"
	@echo "Building (some minutes the first time) …"
	@$(SERVER) --product image-server --quiet
	@exec Examples/ImageServer/.build/release/image-server $(OPTIONS)

train-lora: setup ## Teach the embedded model a logo: make train-lora FOLDER=logo
	@echo "Building (some minutes the first time) …"
	@$(EXAMPLES) --product TrainLoRA --quiet
	@Examples/.build/release/TrainLoRA "$${FOLDER:-logo}"

train-shapes: setup ## Train a model from nothing in a quarter of an hour: make train-shapes FOLDER=shapes
	@echo "Building (some minutes the first time) …"
	@$(EXAMPLES) --product train-shapes --quiet
	@Examples/.build/release/train-shapes $${FOLDER:+--output "$$FOLDER"}

# One after the other: threads of many tests at once wait for one another longer than they compute.
RUN_TESTS := swift test -c release --no-color-diagnostics --skip-build --no-parallel

# What has no more than AVX2 must not fail where this processor passes: where it has more, all tests are run with those kernels too.
test: setup ## Run all tests, also with AVX2's kernels
	$(BUILD) --build-tests
	$(RUN_TESTS)
	$(EXAMPLES)
	swift build --no-color-diagnostics --package-path Benchmarks
	Scripts/check-api
	Tests/CommandLine/run
	Tests/Examples/run
	$(SERVER)
	Tests/ImageServer/run
	Tests/TrainShapes/run
	LATENTDIFFUSION_KERNELS=plain $(RUN_TESTS) --filter 'TensorTests.OperationTests|SinglePassTests'
	LATENTDIFFUSION_KERNELS=plain Tests/CommandLine/run 1-reference
	@if $(LDM) --version | grep -qE 'kernels (avx512|amx)'; then \
	  echo "Again, with the kernels of AVX2"; \
	  export LATENTDIFFUSION_KERNELS=avx2; \
	  $(RUN_TESTS) && Tests/CommandLine/run; \
	fi
	Tests/OutsidePackage/run

# Needs Chromium and its driver (Debian: chromium, chromium-driver), and a network for Python's packages.
test-server: setup ## Test the server with a browser, with the clients openai and webuiapi, with schemathesis, and under load
	$(SERVER)
	Tests/ImageServer/run
	Tests/ImageServer/page
	Tests/ImageServer/clients
	Tests/ImageServer/load

# The server is built with the adapters; this runs their own tests.
test-integrations: setup ## Test the adapters to swift-log and swift-metrics
	swift test -c release --no-color-diagnostics --package-path Integrations

api: setup ## Compare the public interface with that of the last tag
	Scripts/check-api

compatibility: setup ## Run the tests and write the tables of Docs/Compatibility.md
	$(BUILD) --build-tests
	@file=$$(mktemp -d)/comparisons && COMPARISONS="$$file" $(RUN_TESTS) && Scripts/write-compatibility "$$file"

neon: toolchain ## Compile the kernels for arm64, with NEON (on Debian with libc6-dev-arm64-cross)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && for file in Sources/CKernels/*.c; do \
	  clang --target=aarch64-unknown-linux-gnu -O2 -Wall -Werror -isystem /usr/aarch64-linux-gnu/include -ISources/CKernels/include \
	    -c "$$file" -o "$$folder/$$(basename "$$file").o" || exit 1; \
	done && echo "All kernels compile for arm64."

bench: setup ## Time kernels, layers and passes
	swift package --package-path Benchmarks --disable-sandbox benchmark

bench-peers: setup ## Compare with other engines: make bench-peers ROWS=unet-2,memory ROUNDS=5
	Benchmarks/Peers/run.sh $(if $(ROWS),--rows "$(ROWS)") $(if $(ROUNDS),--rounds "$(ROUNDS)")

format: toolchain ## Format the sources
	swift format -i -r --configuration .swift-format $(SOURCES)

lint: toolchain ## Check the format, the lengths of lines and files, and the code in the documents
	Scripts/check-lengths
	Scripts/check-documentation-code
	swift format lint --strict -r --configuration .swift-format $(SOURCES)

docs: toolchain ## Build the documentation, and check its links
	Docs/build.sh

clean: ## Remove what was built
	rm -rf .build Examples/.build Examples/ImageServer/.build Benchmarks/.build Integrations/.build
