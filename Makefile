# make train      trains DAT on generated data; ARGS="model=two_tower data=movielens_1m" changes it
# make ablation   DAT's parts on MovieLens-100K, 3 seeds, then the report; run it again to resume
# make study      a search with equal budgets, its confirmation and the report, on generated data
# make benchmark  times a training step beside a bare PyTorch loop; ARGS="benchmark=evaluation"
# make test       runs the default tests; make lint checks format, lint, types and Dockerfile
# make check      runs both
# make torchrec   installs what model.sharding=torchrec needs
# make site       builds the documents as a site, build/site/index.html
# make lock       updates constraints.txt; ARGS=--upgrade takes the newest allowed versions
VENV ?= .venv
PYTHON ?= python3
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

ABLATION := sweep=ablation experiment=movielens_100k callbacks.progress=null trainer.enable_progress_bar=false
# Variants of one shape in one pass where a GPU is; on a CPU two processes are faster.
GPU := test "$${CUDA_VISIBLE_DEVICES-0}" && nvidia-smi -L 2>/dev/null | grep -q ^GPU
LAUNCHER = $(shell if $(GPU); then echo hydra/launcher=fused; else echo hydra/launcher=joblib hydra.launcher.n_jobs=2; fi)

FBGEMM = $(shell if $(GPU); then echo fbgemm-gpu==1.8.0; else echo fbgemm-gpu-cpu==1.8.0; fi)

STUDY := data.reader.num_users=400 data.reader.num_items=200 trainer.max_epochs=9 callbacks.epochs=null \
	callbacks.progress=null trainer.enable_progress_bar=false
SWEEPS := $${TWOTOWER_OUTPUT_DIR:-outputs}/sweeps

.PHONY: install train ablation study test lint check format benchmark torchrec site lock clean

install: $(STAMP)

train: $(STAMP)
	$(BIN)/python src/train.py $(ARGS)

ablation: $(STAMP)
	$(BIN)/python src/train.py -m $(ABLATION) $(LAUNCHER) $(ARGS)
	$(BIN)/python src/report.py runs=$${TWOTOWER_OUTPUT_DIR:-outputs}/sweeps/ablation-movielens_100k

study: $(STAMP)
	$(BIN)/python src/train.py -m sweep=search variant=dat,two_tower budget=6 $(STUDY) $(ARGS)
	$(BIN)/python src/train.py -m sweep=confirm search=$(SWEEPS)/search-synthetic seeds=3
	$(BIN)/python src/report.py runs=[$(SWEEPS)/confirm-search-synthetic,$(SWEEPS)/search-synthetic]

test: $(STAMP)
	$(BIN)/python -m pytest -n auto $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

check: lint test

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: $(STAMP)
	$(BIN)/python src/benchmark.py $(ARGS)

torchrec: $(STAMP)
	$(BIN)/python -m pip install --no-deps --requirement requirements/torchrec.txt $(FBGEMM)

site: $(STAMP)
	$(BIN)/python docs/site.py

# One file for all platforms and Python versions, with markers. Keeps the comments at its top,
# except the last one.
lock:
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet uv
	cp constraints.txt $(VENV)/lock/pins.txt
	$(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
		--extra dev --extra sweep --extra export --extra duckdb --extra tensorboard --output-file $(VENV)/lock/pins.txt $(ARGS) pyproject.toml
	{ grep '^#' constraints.txt | grep -v '^# Resolved'; \
		echo "# Resolved by $$($(VENV)/lock/bin/uv --version) on $$($(VENV)/lock/bin/python -V), $$(uname -sm), $$(date -I)."; \
		cat $(VENV)/lock/pins.txt; } > $(VENV)/lock/constraints.txt
	mv $(VENV)/lock/constraints.txt constraints.txt

# Installs again when the requirements change. pip's own settings (index, proxy, cache) apply.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,sweep,export,duckdb,tensorboard]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) outputs cache
