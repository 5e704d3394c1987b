# Each target does its own set-up: a virtual environment in .venv, made once and remade when pyproject.toml changes.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   ?= demo

.PHONY: demo test lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   set up, simulate the example experiment, run the whole way, print the report's path"
	@echo "make test   set up, lint, type-check, run the tests"
	@echo "make lint   set up, lint, type-check"
	@echo "make clean  remove the environment and the demo"

$(READY): pyproject.toml
	@sh scripts/make-venv.sh "$(PYTHON)" "$(VENV)"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[formats,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/stemtomo simulate demo -o $(DEMO)/experiment
	$(BIN)/stemtomo run $(DEMO)/experiment/experiment.toml -o $(DEMO)/run
	@$(BIN)/stemtomo evaluate $(DEMO)/run $(DEMO)/experiment/truth.h5 > $(DEMO)/scores.json
	@echo "scores against the truth: $(DEMO)/scores.json"
	@for f in $(DEMO)/run/phases/*/solution.cif; do [ -e "$$f" ] && echo "solved: $$f"; done; :
	@echo "report: $(DEMO)/run/report.html"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

# One process a core, so one thread each.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

clean:
	rm -rf $(VENV) $(DEMO)
