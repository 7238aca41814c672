# Every target sets up what it needs: Python 3.11+, a JDK 17+, Maven, g++ and a package registry are enough.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
TOOLS := .cache/tools
# uv of the machine, or one of our own in .cache/tools.
UV := $(or $(shell command -v uv),$(TOOLS)/bin/uv)
# The interpreter is the machine's: its headers are needed to build one extension.
export UV_PYTHON_DOWNLOADS := never
export UV_PYTHON := $(PYTHON)

.PHONY: help demo up test test-vllm .test-units .test-daemons check lint fmt proto dashboards page bench wheel manifests setup jars tools clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: setup jars ## the whole job on a real Kafka, step by step (FAST=1: under 90 s the second time; ARCH=qwen2)
	$(BIN)/lte demo $(if $(FAST),--fast) $(if $(ARCH),--arch $(ARCH))

up: setup jars ## a development broker and a daemon, kept in .lte/ until Ctrl-C
	$(BIN)/lte up

test: check jars ## lint, types and the whole test suite, in two processes (ARGS: what pytest is given, in one)
ifdef ARGS
	$(BIN)/pytest $(ARGS)
else
	@$(MAKE) --no-print-directory --keep-going -j2 .test-units .test-daemons
endif

# Made once: vLLM for CPUs, 6 GB.
VLLM ?= .cache/vllm
test-vllm: setup jars ## the vLLM engine on a real vLLM, on the CPU (LONG=1: more swaps)
	UV=$(UV) ops/vllm/install.sh $(abspath $(VLLM))
	LTE_TEST_VLLM=$(abspath $(VLLM)) LTE_LONG=$(LONG) $(BIN)/pytest tests/unit/answer/engine/test_engine_contract.py tests/integration/test_vllm.py -k vllm

# Tests of parts, and those that start brokers and daemons.
.test-units:
	$(BIN)/pytest --ignore tests/integration --ignore tests/kafka

.test-daemons:
	$(BIN)/pytest tests/integration tests/kafka

check: lint ## lint, format and types; nothing is changed
	$(BIN)/mypy

lint: setup ## ruff: rules and format; nothing is changed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: setup ## format the code and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: setup ## generate daemon/rpc/gen from the protos
	$(BIN)/python -m daemon.rpc.generate

dashboards: setup jars ## Grafana's dashboards and the runbook's page from their tables, and pictures of them (needs Prometheus)
	$(BIN)/python -m ops.monitoring.tour

page: setup jars ## a picture of the gateway's page, docs/page.png (needs Chromium)
	$(BIN)/python -m ops.demo.page_picture

bench: setup jars ## speed and memory beside a peer (NAME=ingest, freshness, ..., all)
	$(BIN)/lte bench $(or $(NAME),all)

wheel: setup ## build the wheel into dist/
	$(UV) build --wheel --quiet

manifests: ## resolve ops/k8s by kustomize into ops/k8s/rendered (needs kubectl)
	@for name in base overlays/cpu overlays/gpu gateway; do \
		kubectl kustomize ops/k8s/$$name > ops/k8s/rendered/$$(basename $$name).yaml; \
	done

setup: tools $(VENV)/.complete ## the Python environment

# Compiled once: else each start compiles again wherever PYTHONDONTWRITEBYTECODE is set.
$(VENV)/.complete: pyproject.toml uv.lock $(UV)
	$(UV) sync --frozen --compile-bytecode
	@$(BIN)/python -m compileall -q daemon lte_runtime ops
	@touch $@

# pip brings uv from the same registry as everything else.
$(TOOLS)/bin/uv:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet uv

tools:
	@PYTHON="$(PYTHON)" ops/preflight.sh

jars: setup ## the broker's jars, through Maven
	@$(BIN)/python -c 'from ops.kafka.broker import fetch_jars; fetch_jars()'

clean: ## remove what was built; the state in .lte/ stays
	rm -rf $(VENV) $(TOOLS) dist build ops/kafka/target .mypy_cache .ruff_cache .pytest_cache
