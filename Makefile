.DEFAULT_GOAL := help
.PHONY: help run test test-alone test-beside test-faults faults-of-processes faults-of-servers test-clients test-deploy test-three test-host check fmt lint lint-deploy types imports unit bench soak stack stack-down clean
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile

.venv/ready: setup.cfg constraints.txt dev/setup-venv
	PYTHON=$(PYTHON) dev/setup-venv
	touch $@

.venv-deploy/ready: constraints-deploy.txt dev/setup-deploy
	PYTHON=$(PYTHON) dev/setup-deploy
	touch $@

run: .venv/ready ## Run soraka on the embedded default (ARGS='--data-dir DIR ...')
	exec $(BIN)/soraka standalone $(ARGS)

test: .venv/ready check ## Every check and every test, with the real servers
	dev/stack install
	CI=true $(BIN)/pytest tests/unit tests/contract -m timed $(ARGS)
	rm -f .coverage .coverage.*
	$(MAKE) --no-print-directory --jobs 3 --output-sync test-alone test-beside test-host lint-deploy
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered
	$(MAKE) --no-print-directory test-faults
	$(MAKE) --no-print-directory test-clients
	$(BIN)/python -m bench smoke --on servers --seconds 3

# Halves that bear each other, and the host, and would not bear the faults.
COVERED = CI=true COVERAGE_FILE=.coverage.$@ $(BIN)/pytest -m 'not timed' \
	--cov --cov-report= --cov-fail-under=0 --durations=15 $(ARGS)
test-alone:
	$(COVERED) tests/unit tests/acceptance
test-beside:
	$(COVERED) tests/contract tests/simulation tests/browser

FAULTS = CI=true $(BIN)/pytest --durations=15
test-faults: .venv/ready ## Processes and servers killed, cut off and slowed down under load (ARGS='-k ...')
	dev/stack install
ifeq ($(ARGS),)
	$(MAKE) --no-print-directory --jobs 2 --output-sync faults-of-processes faults-of-servers
else
	$(FAULTS) tests/faults $(ARGS)
endif

# Halves of the same length, each with servers of its own: they mostly wait for what is to time out.
OF_PROCESSES := $(addprefix tests/faults/test_,processes.py clock.py standalone.py)
faults-of-processes:
	$(FAULTS) $(OF_PROCESSES)
faults-of-servers:
	$(FAULTS) tests/faults $(addprefix --ignore=,$(OF_PROCESSES))

test-host: .venv/ready .venv-deploy/ready ## Playbooks against one host that boots, with all roles
	dev/stack install
	$(BIN)/pytest -x tests/deploy/single.py $(ARGS)

test-deploy: .venv/ready .venv-deploy/ready ## Playbooks against six hosts that boot: lost, upgraded, added, removed
	dev/stack install
	$(BIN)/pytest -x tests/deploy/cluster.py $(ARGS)

test-three: .venv/ready .venv-deploy/ready ## Playbooks against three hosts: restored, and one replaced
	dev/stack install
	$(BIN)/pytest -x -s tests/deploy/three.py $(ARGS)

test-clients: .venv/ready ## The examples in Go, Java, Node.js, C++ and Python, built and run
	dev/stack install
	dev/setup-examples
	$(MAKE) --no-print-directory -C examples
	CI=true $(BIN)/pytest tests/clients --durations=5 $(ARGS)

check: lint types imports ## The checks that run nothing

unit: .venv/ready ## The tests that need no server
	$(BIN)/pytest tests/unit $(ARGS)

fmt: .venv/ready ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: .venv/ready ## ruff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

lint-deploy: .venv-deploy/ready ## ansible-lint, and the syntax of the playbooks
	cd ansible && PATH="$(CURDIR)/.venv-deploy/bin:$$PATH" ansible-lint
	cd ansible && for book in *.yml; do \
	  "$(CURDIR)/.venv-deploy/bin/ansible-playbook" -i inventories/single --syntax-check "$$book" || exit 1; \
	done

types: .venv/ready ## mypy, strict
	$(BIN)/mypy

imports: .venv/ready ## The import contracts of setup.cfg
	$(BIN)/lint-imports --no-logo

bench: .venv/ready ## The benchmarks of bench/README.md
	dev/stack install
	$(BIN)/python -m bench $(ARGS)

soak: .venv/ready ## Faults at random for long (ARGS='--minutes 30 --seed 7')
	dev/stack install
	$(BIN)/python -m tests.faults.soak $(ARGS)

stack: ## Start Kafka, ZooKeeper, Redis and nginx on loopback (ARGS='--ports auto ...')
	dev/stack up $(ARGS)

stack-down: ## Stop them
	dev/stack down $(ARGS)

clean: ## Remove what setup and runs have made
	$(MAKE) -C examples clean
	rm -rf .venv .venv-deploy .stack-libs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
