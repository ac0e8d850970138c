# `make` alone lists the targets.  PYTHON=python3.13 works in a virtual environment of its own.

ifdef PYTHON
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
else
PYTHON := python3
VENV := .venv
endif
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHECKERS := $(VENV)/.checkers
COMPOSE := $(VENV)/.compose
SITE := $(VENV)/.site

.PHONY: help install demo format check check-conf test lab fuzz lab-oldest lab-systemd lab-containers lab-django bench faults docs
.DEFAULT_GOAL := help

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 21

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(CHECKERS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[conf]'
	@touch $@

$(COMPOSE): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[containers]'
	@touch $@

$(SITE): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

install: $(INSTALLED) ## editable install with the dev dependencies, in .venv

# In a terminal the server gets a process group of its own (set -m): Ctrl-C is then for it alone,
# and its exit code 0 is that of make, which would otherwise die of the same SIGINT.
demo: $(INSTALLED) ## serve the Django project of the tests on http://127.0.0.1:8000/
	$(BIN)/python tests/django_project/manage.py prepare
	@echo 'http://127.0.0.1:8000/ (admin: admin, admin); Ctrl-C stops'
	@case "$$(ps -o stat= -p $$$$ 2>&1)" in *+*) set -m ;; esac; \
	$(BIN)/forkmaster -c conf/gunicorn.py project.wsgi

format: $(INSTALLED) ## ruff format, ruff check --fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

check: $(INSTALLED) ## ruff, mypy --strict, generated files are fresh
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python scripts/generate_docs.py --check

check-conf: $(CHECKERS) ## every file of conf/ with the program that reads it
	PATH="$(abspath $(BIN)):$$PATH" scripts/check_conf.sh

test: $(INSTALLED) ## unit and http tests, then those with real servers
	$(BIN)/python -m compileall -q forkmaster  # or each of many servers would, where none may write
	$(BIN)/python -m pytest -n 2 -m "not lab" tests/unit tests/http
	$(BIN)/python -m pytest -n 4 --dist loadgroup -m "not lab" tests/process tests/e2e tests/deploy

lab: $(INSTALLED) ## the tests that take long: faults of the machine, load, browsers; or TESTS=…
	$(BIN)/python -m pytest -n 4 -m lab $(or $(TESTS),tests/http tests/process tests/e2e tests/deploy)

fuzz: $(INSTALLED) ## damaged requests for 60 seconds, or SECONDS=600
	$(BIN)/python scripts/fuzz_http.py $(or $(SECONDS),60)

lab-oldest: $(INSTALLED) ## the tests with the oldest libraries that pyproject.toml allows
	$(BIN)/python scripts/lab_oldest.py

lab-systemd: $(INSTALLED) ## the units of conf/systemd under a real systemd, in a container
	$(BIN)/python scripts/lab_systemd.py

lab-containers: $(COMPOSE) ## the files of conf/docker and conf/kubernetes, with podman
	$(BIN)/python scripts/lab_containers.py

lab-django: ## the demo project on Django 4.2, 5.2 and the newest that PYTHON takes
	PYTHON=$(PYTHON) scripts/lab_django.sh

bench: $(INSTALLED) ## the table of docs/benchmarks.md
	$(BIN)/python scripts/benchmark.py

faults: $(INSTALLED) ## what faults cost, counted by clients that retry nothing; 20 minutes
	$(BIN)/python -m pytest -n 2 tests/process/test_machine.py tests/process/test_faults.py
	FORKMASTER_FLEETS=3400 $(BIN)/python -m pytest -n 2 --timeout 600 tests/unit/master/test_simulation.py
	$(BIN)/python scripts/faults.py

docs: $(SITE) ## regenerate the generated pages, and build the site of docs/ in site/
	$(BIN)/python scripts/generate_docs.py
	$(BIN)/zensical build --strict --clean
