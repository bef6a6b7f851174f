# Needs Python 3.11 or newer and make; everything else goes into .venv, pinned and hashed.
.DEFAULT_GOAL := help
.PHONY: help serve demo test test-all bench check image check-image sbom lock wheels clean python

SUITS := -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))'
# PYTHON=/path/to/python3 chooses another one.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p $(SUITS) 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/run.stamp
DEV := $(VENV)/dev.stamp
BENCH := $(VENV)/bench.stamp

# Wheels only: with a source archive, pip would run code to build it, and want a compiler.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
LOCKED := $(INSTALL) --require-hashes --only-binary :all:

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

serve: $(RUN) ## start the service on 127.0.0.1:8000 (ARGS="--port 9000" for options)
	@$(BIN)/lossd serve $(ARGS)

demo: $(RUN) ## start the service, send it three examples, print the losses, stop it
	@$(BIN)/python -m benchmarks.demo

# Who is done first takes over from the other; three on two cores took as long. The tests start some
# 100 processes: each would compile all modules where Python is told not to keep them.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q --numprocesses 2 --dist worksteal

test: $(DEV) ## run every test (ARGS="-k npz" for pytest's options)
	@$(PYTEST) $(ARGS)

test-all: $(DEV) ## run every test on every kernel, and more of what is random
	@LOSSD_KERNELS=all LOSSD_COMPILE=all LOSSD_SIMULATE=all LOSSD_FUZZ_EXAMPLES=40000 $(PYTEST) $(ARGS)

bench: $(BENCH) ## measure kernels, requests, attacks, starts (ARGS="http --quick" to try)
	@$(BIN)/python -m benchmarks $(ARGS)

check: $(DEV) ## lint, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict

image: ## build the container image (BASE=python:3.13-slim NAME=lossd)
	@BASE="$(BASE)" NAME="$(NAME)" deploy/build_image.sh $(ARGS)

# Needs root and buildah, and no engine.
check-image: ## run what buildah built as an orchestrator would: a user, a read-only root
	@$(PYTHON) deploy/check_image.py $(NAME)

sbom: $(DEV) ## write the bill of materials of what runs, lossd.cdx.json (CycloneDX)
	@$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application \
		--output-reproducible --of JSON -o lossd.cdx.json requirements/run.txt
	@echo "lossd.cdx.json: $$(grep -c '"purl"' lossd.cdx.json) components"

UV := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-annotate --no-emit-index-url \
	--custom-compile-command "make lock" $(ARGS)

lock: $(RUN) ## resolve requirements/*.txt anew (ARGS=--upgrade for the newest)
	@$(INSTALL) uv==0.13.9
	@$(UV) --output-file requirements/run.txt
	@$(UV) --extra dev --constraint requirements/run.txt --output-file requirements/dev.txt
	@$(UV) --extra bulk --extra dask --constraint requirements/dev.txt \
		--output-file requirements/bulk.txt
	@$(UV) --extra cuda --constraint requirements/dev.txt --output-file requirements/cuda.txt
	@$(subst pyproject.toml,--group build,$(UV)) --constraint requirements/dev.txt \
		--output-file requirements/build.txt

wheels: $(RUN) ## download what benchmarks/cuda/check.sh needs on a machine without a network
	@$(BIN)/python -m benchmarks.cuda.wheels

clean: ## remove .venv and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find kernels service benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

python:
	@[ -n "$(PYTHON)" ] && $(PYTHON) $(SUITS) 2>/dev/null || { \
		echo "lossd needs Python 3.11 or newer, with venv (on Debian: apt install python3-venv);" \
		"to name one: make PYTHON=/path/to/python3" >&2; exit 1; }

$(RUN): requirements/run.txt requirements/build.txt pyproject.toml | python
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(LOCKED) -r requirements/run.txt -r requirements/build.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUN) requirements/dev.txt
	@echo "adding the tools for tests to $(VENV)"
	@$(LOCKED) -r requirements/dev.txt
	@touch $@

$(BENCH): $(RUN)
	@echo "adding the peers to compare with to $(VENV)"
	@$(INSTALL) --only-binary :all: --no-build-isolation --editable ".[bench]"
	@touch $@
