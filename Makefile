# Everyday commands: make setup, demo, test, test-all, lint, bench, docs.
# PYTHON=python3.12 chooses the interpreter, ARGS=... goes to the tool that is run.

# The first interpreter in PATH that MLServer supports.
supported := import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c '$(supported)' 2>/dev/null && echo $$python && break; done)
version := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

VENV ?= .venv
bin := $(VENV)/bin
installed := $(VENV)/.installed-$(version)

# uv resolves in seconds what takes older pips many minutes; pip alone where uv cannot install.
extras := .[dev,docs,examples,remote]
quiet := --quiet --disable-pip-version-check
install = if uv --version >/dev/null 2>&1; then uv=uv; \
	else $(bin)/python -m pip install $(quiet) 'uv>=0.5,<1' && uv=$(bin)/uv; fi && \
	$$uv pip install --quiet --compile-bytecode --python $(bin)/python -e '$(extras)'

.PHONY: setup demo test test-rest test-all test-apiserver lint audit bench docs docs-version clean

setup: $(installed)

$(installed): pyproject.toml
	@$(PYTHON) -c '$(supported)' 2>/dev/null || { \
		echo "make: expected Python 3.10, 3.11 or 3.12, got '$(PYTHON)' $(version);" \
			"try make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "installing into $(VENV) with Python $(version)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(install) || $(bin)/python -m pip install $(quiet) -e '$(extras)'
	@touch $@

demo: setup
	@$(bin)/python examples/demo.py $(ARGS)

# Each process runs whole files of tests, in the order of the folders.
pytest := $(bin)/python -m pytest
parallel := --dist loadfile --no-loadscope-reorder

# What a newcomer runs: some minutes. ARGS chooses other tests, in one process.
test: setup
	$(pytest) $(if $(ARGS),$(ARGS),-n 2 $(parallel) -m "not heavy")

# What takes longer or needs more programs: tests/needs.py says which. Most of the time these tests wait, for
# servers, images and downloads.
test-rest: setup
	$(pytest) -n 4 $(parallel) -m heavy $(ARGS)

# Also changes the lines that are new on this branch, and looks for a test that fails.
test-all: setup
	$(pytest) -n 2 $(parallel) $(ARGS)
	$(bin)/python -m tests.mutation --since --seconds 1200

# Deploys to a real API server behind KServe's webhooks: ten minutes to build it once, and ten to run.
test-apiserver: setup
	PYTHON=$(bin)/python tests/deployment/cluster/real_apiserver.sh $(ARGS)

lint: setup
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports --no-cache

audit: setup
	$(bin)/python .ci/audit.py

bench: setup
	$(bin)/python -m benchmarks $(ARGS)

# Writes what is generated from the code, checks the spelling, and builds the site into build/site.
docs: setup
	$(bin)/python docs/generate.py
	$(bin)/codespell $(texts)
	$(mkdocs) build --strict --quiet --config-file $(site)

texts := *.md docs examples model-settings mlserver_pyfunc
site := docs/site/mkdocs.yml
mkdocs := NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs

# Adds the site as a version to the branch gh-pages: make docs-version VERSION=0.1
docs-version: setup
	$(bin)/mike deploy --config-file $(site) --update-aliases $(VERSION) latest
	$(bin)/mike set-default --config-file $(site) latest

clean:
	rm -rf $(VENV) .bench dist build
