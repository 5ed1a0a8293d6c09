PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help local-up local-down status monitor test lint format bench k8s-render k8s-deploy k8s-upgrade k8s-status k8s-uninstall image compose-up compose-down

ENV ?= production

help: ## Show the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

local-up: ## Set everything up and start the whole system; prints its URLs
	@$(PYTHON) -m cluster.bootstrap run && $(BIN)/ai-assistant up

local-down: ## Stop everything that local-up started
	@$(BIN)/ai-assistant down

status: ## Say what runs, where, with which versions
	@$(BIN)/ai-assistant status

monitor: ## Watch the running system with Prometheus; prints its URL
	@$(PYTHON) -m cluster.monitoring.programs && $(BIN)/python -m cluster.monitoring.local

test: ## Set everything up and run all tests with coverage
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --cov --cov-report=html --durations=25

lint: ## Check style and types
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: ## Rewrite the code in the house style
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: ## Measure speed and memory of a running stack; tables and JSON in benchmarks/results
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/python -m benchmarks

k8s-render: ## Print the Kubernetes manifest of ENV (production, local); needs no Helm and no cluster
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/python -m cluster.chart render $(ENV)

k8s-deploy: ## Install ENV on the cluster that kubectl talks to, and wait until it serves
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/python -m cluster.kubernetes deploy $(ENV)

k8s-upgrade: ## Bring an installed ENV up to date; kuberay/UPGRADE.md says what which change costs
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/python -m cluster.kubernetes upgrade $(ENV)

k8s-status: ## Say what runs on the cluster
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/python -m cluster.kubernetes status $(ENV)

k8s-uninstall: ## Remove the release; volumes stay
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/python -m cluster.kubernetes uninstall $(ENV)

image: ## Build the container image of this version for this machine
	@docker build -f cluster/Dockerfile -t ai-assistant:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) .

compose-up: ## Start the system in containers (PROFILES="monitoring ollama redis", DEV=1); needs Docker
	@$(PYTHON) -m cluster.compose up $(PROFILES:%=--profile %) $(if $(DEV),--dev)

compose-down: ## Stop the containers; data stay
	@$(PYTHON) -m cluster.compose down
