# make run     set up, run the notebook top to bottom, print the comparison   (make run EPOCHS=5 DATASET=path/to/images ...)
# make test    set up, run the tests            make check   lint and types
# make lab     set up, open Jupyter Lab         make clean   remove .venv and caches (never photos or results)

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/ready

# Any notebook parameter may be given in capitals: EPOCHS=5 becomes epochs=5.
NAMES      := $(filter-out PYTHON VENV,$(foreach v,$(.VARIABLES),$(if $(filter command line,$(origin $(v))),$(v))))
# The value as it was typed ($ is no variable of make), in single quotes for the shell (' within it escaped).
QUOTED      = '$(subst ','\'',$(value $(1)))'
PARAMETERS  = $(foreach v,$(filter-out MAKE%,$(NAMES)),$(shell echo $(v) | tr A-Z a-z)=$(call QUOTED,$(v)))

.PHONY: run test check lab clean

run: $(READY)
	@$(PY) -m src $(PARAMETERS)

test: $(READY)
	$(PY) -m pytest

check: $(READY)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

lab: $(READY)
	$(PY) -m jupyter lab Face_Recognition_Project.ipynb

# InsightFace asks for the CPU build of ONNX Runtime; beside the GPU build it wins and silently takes CUDA away. Both write to
# one folder, so both go and the GPU build comes back alone.
$(READY): requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --upgrade --quiet pip
	$(PY) -m pip install --quiet -r requirements.txt -c constraints.txt
	if $(PY) -m pip show --quiet onnxruntime-gpu 2>/dev/null; then \
	  $(PY) -m pip uninstall --quiet -y onnxruntime onnxruntime-gpu && \
	  $(PY) -m pip install --quiet --no-deps onnxruntime-gpu -c constraints.txt; fi
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
