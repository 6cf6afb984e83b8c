# make train   trains DAT on embedded data, no network; ARGS="model=two_tower data=movielens_1m" changes what it runs
# make ablation   DAT's parts on MovieLens-100K, 3 seeds, two runs at a time, then the report; interrupted, it goes on
# make test    the default tests; make check adds format, lint and types
VENV ?= .venv
PYTHON ?= python3
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

ABLATION := sweep=ablation experiment=movielens_100k hydra/launcher=joblib hydra.launcher.n_jobs=2 callbacks.progress=null trainer.enable_progress_bar=false

.PHONY: train ablation test check format benchmark clean

train: $(STAMP)
	$(BIN)/python src/train.py $(ARGS)

ablation: $(STAMP)
	$(BIN)/python src/train.py -m $(ABLATION) $(ARGS)
	$(BIN)/python src/report.py runs=$${TWOTOWER_OUTPUT_DIR:-outputs}/sweeps/ablation-movielens_100k

test: $(STAMP)
	$(BIN)/python -m pytest -n auto $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: $(STAMP)
	$(BIN)/python src/benchmark.py $(ARGS)

# Installed once, again when the requirements change. pip's own settings (index, proxy, cache) apply.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,sweep,export]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) outputs cache
