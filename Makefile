SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# no nodes needed; these tests mostly wait, so three processes share two cores with the other tests
APISERVER = $(BIN)/python -m pytest -n 3 --dist loadfile tests/apiserver
NODELESS = $(BIN)/python -m pytest -n 2 --dist loadfile
# builds the cluster's programs once per machine, before any test's timeout counts
PROGRAMS = $(BIN)/python -m tests.cluster build > /dev/null
.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(VENV)/.ready ## install every pinned dependency into .venv (torch with CUDA: 5.6 GB, once)

$(VENV)/.ready: requirements/dev.txt requirements/bootstrap.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=python3.12"; exit 1; }
	@echo "setup: installing pinned packages into $(VENV) (5.6 GB with torch on the first run, a few minutes)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements/dev.txt requirements/bootstrap.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --build-constraints requirements/build.txt -e .
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true # a worker starts in half the time; some files are templates
	@touch $@

.PHONY: pins
pins: ## resolve the pinned requirements again
	requirements/compile

.PHONY: generate
generate: setup ## write CRDs, RBAC, chart values, reference pages and dashboards from code
	$(BIN)/python -m hatchery_operator.codegen.generate
	$(BIN)/python -m manifests.monitoring.generate

.PHONY: check
check: setup ## lint, format, types, import rules, and that generated files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m hatchery_operator.codegen.generate --check
	$(BIN)/python -m manifests.monitoring.generate --check

.PHONY: test
test: setup ## everything: unit, contract, chart, monitoring, API server, and the pipeline on a real cluster (first run builds it, about an hour; later ones half of one)
	$(PROGRAMS)
	@echo "$(APISERVER) (beside the next command; its output follows)"
	@$(APISERVER) > $(VENV)/apiserver.log 2>&1 & apiserver=$$!; \
	$(NODELESS) tests/unit tests/contract tests/chart tests/monitoring; others=$$?; \
	wait $$apiserver; apiserver=$$?; cat $(VENV)/apiserver.log; exit $$((others + apiserver))
	$(BIN)/python -m pytest tests/e2e

.PHONY: test-unit
test-unit: setup ## tests that need no cluster (some 6 minutes)
	$(NODELESS) tests/unit tests/contract

.PHONY: test-monitoring
test-monitoring: setup ## metrics, alerts and dashboards against a real Prometheus (half a minute)
	$(BIN)/python -m pytest tests/monitoring

.PHONY: test-apiserver
test-apiserver: setup ## tests against etcd and kube-apiserver
	$(PROGRAMS)
	$(APISERVER)

.PHONY: test-e2e
test-e2e: setup ## the pipeline and its faults on a real cluster
	$(BIN)/python -m pytest tests/e2e

.PHONY: demo
demo: setup ## raw text to an evaluated model on a real cluster, live (first run about 18 min, later ones 3 to 5)
	$(BIN)/python -m tests.demo

.PHONY: cluster-up
cluster-up: setup ## start the local single-node Kubernetes (built from source the first time)
	$(BIN)/python -m tests.cluster up

.PHONY: cluster-down
cluster-down: setup ## stop it and leave nothing behind but the build cache
	$(BIN)/python -m tests.cluster down

.PHONY: images
images: setup ## build the operator and jobs images and push them to the local registry
	$(BIN)/python -m tests.cluster images

.PHONY: chart
chart: generate ## lint and render the Helm chart
	$(PROGRAMS)
	$(BIN)/python -m pytest tests/chart

.PHONY: bench-corpus
bench-corpus: setup ## corpus kernels against the published algorithms
	$(BIN)/python -m tests.bench.corpus

.PHONY: bench-pretrain bench-loop bench-encode bench-checkpoint bench-learning
bench-pretrain: bench-loop bench-encode bench-checkpoint bench-learning ## all measurements of the training stage, one after the other (12 min)

bench-loop: setup ## the training loop against HF Trainer and a bare loop; two workers against one
	$(BIN)/python -m tests.bench.pretrain

bench-encode: setup ## encoding against datasets.map; seeking; memory of a reader
	$(BIN)/python -m tests.bench.encode

bench-checkpoint: setup ## how long a checkpoint stops training
	$(BIN)/python -m tests.bench.checkpoint

bench-learning: setup ## what small models learn from the standard library
	$(BIN)/python -m tests.bench.learning

.PHONY: bench-operator
bench-operator: setup ## the operator against Kubeflow's training-operator on one API server (8 min, once 3 more to build it)
	$(BIN)/python -m tests.bench.operator

.PHONY: clean
clean: ## remove the virtual environment and caches of the checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
