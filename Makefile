# Every target makes the Python environment .venv by itself and reuses it; nothing outside this folder is changed.
# `make PYTHON=/path/to/python3` chooses the Python to build it with.

VENV := .venv
PY := $(VENV)/bin/python
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python)
MAKES_VENVS := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
RUNS := import sys, pip; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-long lab app notebooks exercises class screenshots bench clean FORCE
.NOTPARALLEL:
.SUFFIXES:

help: ## list these targets
	@echo "Words to Pixels: make ..."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.ready-run ## draw pictures from sentences, then train a small model live and score it
	$(PY) -m course_lib demo

test: $(VENV)/.ready-dev ## style and every test, two at a time
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -n 2 --dist worksteal

test-quick: $(VENV)/.ready-dev ## units and parity only
	$(PY) -m pytest -m "not slow"

test-long: $(VENV)/.ready-dev ## thousands of odd command lines, settings, captions, pictures and checkpoints
	$(PY) -m pytest tests/test_fuzz.py --hypothesis-profile=long

lab: $(VENV)/.ready-run ## open the notebooks in JupyterLab, on this machine only
	@if [ -d notebooks ]; then page=/lab/tree/notebooks; else page=/lab; fi; set -x; \
	$(PY) -m jupyterlab --ip=127.0.0.1 --ServerApp.root_dir=. --LabApp.default_url=$$page

# a page made of a .py file; of JupyterLab's extensions only those that show widgets
VOILA := --VoilaConfiguration.extension_language_mapping .py=python \
	--VoilaConfiguration.extension_allowlist=@jupyter-widgets/jupyterlab-manager \
	--VoilaConfiguration.extension_allowlist=@voila-dashboards/widgets-manager8

app: $(VENV)/.ready-dev ## the prompt studio as a page of its own, on this machine only
	$(PY) -m voila docs/app.py --Voila.ip=127.0.0.1 --Voila.auto_token=True $(VOILA)

notebooks: $(VENV)/.ready-dev ## write and run the lessons whose text has changed; ONLY="03 07" or ONLY=all: those
	$(PY) tests/build_notebooks.py $(ONLY)

exercises: $(VENV)/.ready-dev ## write and run the solutions whose text has changed, and take the answers out for a class
	$(PY) tests/build_exercises.py $(ONLY)

class: $(VENV)/.ready-dev ## an nbgrader course folder in class/, with every exercise as an assignment
	$(PY) tests/make_class.py class

screenshots: $(VENV)/.ready-dev ## pictures of the explorers, for pages without a kernel; needs Chromium
	$(PY) tests/screenshots.py

bench: $(VENV)/.ready-dev ## how fast the course is on this machine, as data/BENCH.md; ONLY="steps explorers": those tables
	$(PY) tests/bench $(if $(ONLY),--only $(ONLY))

clean: ## remove .venv and caches; keeps data/, runs/ and samples/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. .made holds the folder it was made for; .unfinished is there while something is being written.
# The rule always looks, and leaves .made alone while the environment is sound: then nothing is installed again.
FORCE:

$(VENV)/.made: FORCE
	@if [ ! -e $(VENV)/.unfinished ] && [ "$$(cat $@ 2>/dev/null || pwd)" = "$$(pwd)" ] && $(PY) -c '$(RUNS)' 2>/dev/null; \
	then [ -e $@ ] || pwd > $@; exit 0; fi; \
	if [ -e $(VENV) ]; then echo "$(VENV) is unfinished, moved or too old: it is made anew."; fi; \
	for python in $(PYTHONS); do \
	    if "$$python" -c '$(MAKES_VENVS)' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo 'No Python 3.11 or newer that can make environments was found. Tried: $(PYTHONS)'; \
	    echo "Install one (python.org; Debian and Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12)"; \
	    echo "or name yours: make PYTHON=/path/to/python3"; \
	    exit 1; \
	fi >&2; \
	echo "Making $(VENV) with $$("$$found" --version) ($$found) ..."; \
	rm -rf $(VENV) && mkdir $(VENV) && touch $(VENV)/.unfinished && "$$found" -m venv $(VENV) && pwd > $@ && rm $(VENV)/.unfinished

EXTRAS-dev := [dev]

$(VENV)/.ready-run $(VENV)/.ready-dev: $(VENV)/.ready-%: $(VENV)/.made pyproject.toml
	@echo "Installing the course and its packages into $(VENV); the first time takes some minutes and about 2 GB of disk (more with CUDA) ..."
	@touch $(VENV)/.unfinished
	@$(PY) -m pip install -qq --disable-pip-version-check -e ".$(EXTRAS-$*)" || { \
	    echo "The installation failed: pip says why above. Without a network or with a full disk, put that right and"; \
	    echo "type the same command again; if pip found no torch for this Python: make PYTHON=python3.12"; exit 1; } >&2
	@touch $(VENV)/.ready-run $@ && rm $(VENV)/.unfinished
