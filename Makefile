# Two commands matter: `make demo` and `make test`. Each does all its own set-up. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
ARGS ?=

.PHONY: help demo run test lint check kits hostile benchmarks validation screenshots engine gvisor browser prepare messages clean

help:
	@echo "make demo          the arena with a real challenge, teams, duels and boards (ARGS=--exit: stop after printing;"
	@echo "                   ARGS='--scenario NAME': another game, such as synthetic-membership)"
	@echo "make run           the arena without demo data"
	@echo "make test          linters, types, and all tests with real containers and a real browser"
	@echo "make lint          linters and types alone"
	@echo "make kits          the base images and the starter kits"
	@echo "make hostile       hostile images and archives against the sandbox, on runc and on gVisor (ARGS=--mutations)"
	@echo "make gvisor        the second wall: this machine's engine learns of gVisor (as root)"
	@echo "make benchmarks    the four ratios"
	@echo "make validation    docs/validation.md: does the scoring itself leak or flatter? (PIP_OPTIONS: an index of CPU wheels)"
	@echo "make screenshots   pictures of every page of the running demo"
	@echo "make messages      collect texts for translation"

$(VENV)/.ready: pyproject.toml constraints.txt client/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' --editable client
	touch $@

engine:
	@deploy/ensure engine

gvisor: engine
	@deploy/ensure gvisor

browser:
	@deploy/ensure tests

prepare: $(VENV)/.ready
	@$(MANAGE) migrate --verbosity 0
	@$(MANAGE) collectstatic --no-input --verbosity 0

demo: engine prepare
	@$(MANAGE) demo $(ARGS)

run: engine prepare
	@$(MANAGE) serve $(ARGS)

kits: engine $(VENV)/.ready
	@$(BIN)/python starter_kits/build.py

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/djlint --quiet --check --lint anomed_site/templates challenges/templates sandbox/templates
	$(MANAGE) makemigrations --check --dry-run --verbosity 0

test: engine gvisor browser kits lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

hostile: engine gvisor kits
	@$(BIN)/python -m tests.hostile $(ARGS)

benchmarks: engine prepare kits
	$(BIN)/python -m benchmarks $(ARGS)

validation: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_OPTIONS) --editable '.[validation]'
	$(BIN)/python -m benchmarks validation

screenshots: browser $(VENV)/.ready
	$(BIN)/python docs/screenshots.py $(ARGS)

messages: $(VENV)/.ready
	$(MANAGE) makemessages --locale de --no-obsolete --no-wrap --ignore .venv --ignore var --ignore starter_kits \
	    --ignore client --ignore tests --ignore benchmarks
	$(MANAGE) compilemessages --verbosity 0

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
