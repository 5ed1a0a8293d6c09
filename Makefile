PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help local-up local-down status test lint format bench

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

local-up: ## Set everything up and start the whole system; prints its URLs
	@$(PYTHON) -m cluster.bootstrap run && $(BIN)/ai-assistant up

local-down: ## Stop everything that local-up started
	@$(BIN)/ai-assistant down

status: ## Say what runs, where, with which versions
	@$(BIN)/ai-assistant status

test: ## Set everything up and run all tests with coverage
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --cov --cov-report=html --durations=25

lint: ## Check style and types
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: ## Rewrite the code in the house style
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: ## Measure speed and memory of a running stack; tables and JSON in benchmarks/results
	@$(PYTHON) -m cluster.bootstrap test && $(BIN)/python -m benchmarks
