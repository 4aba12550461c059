# make sweep: a report from real faces on this machine. make test: everything this machine can check.
# make torture: the long fault drills. make gpu: promises and speed on a GPU, in minutes. PYTHON= and VENV= may be given.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: sweep test torture gpu lint types format bench install

sweep: $(INSTALLED)
	$(BIN)/python jobs/sweep_gan.py cluster=local

# a thread each: those of several workers would spin on each other's processors
test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 4

torture: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --timeout 900

# any Python with torch, numpy, pandas, pyarrow, pillow, pyyaml, omegaconf, pydantic, scipy, rich and pytest will do
GPU_PYTHON = PYTHONPATH=$(CURDIR) $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

gpu:
	$(GPU_PYTHON) -m pytest -c tests/gpu/pytest.ini -m gpu -rs tests/gpu
	$(GPU_PYTHON) tests/gpu/bench.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)
	$(BIN)/python tests/bench.py

install: $(INSTALLED)

$(INSTALLED): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing); FaceFactory needs Python 3.11 or newer."; \
	  echo "  on a cluster:   module avail python; module load python/3.11 (or newer), then make again"; \
	  echo "  with uv:        uv python install 3.12 && make $(MAKECMDGOALS) PYTHON=\"\$$(uv python find 3.12)\""; \
	  echo "  with conda:     conda create -n py312 python=3.12 && make $(MAKECMDGOALS) PYTHON=\"\$$(conda run -n py312 which python)\""; \
	  exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "error: no venv module; on Debian/Ubuntu: apt-get install python3-venv, then make again"; exit 2; }
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@
