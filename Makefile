# make demo | test | check | real | bench-decode | bench-data | setup. Each makes the environment itself if it is missing.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
REAL := runs/real
BENCH_VENV := .venv-bench

.PHONY: setup demo test check real bench-decode bench-data clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# Trains a small GLM on the bundled data, then generates questions for entities it has never seen.
demo: setup
	$(BIN)/python finetune_generation.py configs/demo.json
	$(BIN)/python predict.py --model_name_or_path $(DEMO) --test_file data/dev.json --device cpu \
		--overwrite_output --output_file $(DEMO)/predictions.jsonl --metrics_file $(DEMO)/metrics.json

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests/test_import_direction.py

# make real DATA=folder-with-train.json-and-dev.json TOKENIZER=cog-pretrain.model
real: setup
	@test -n "$(DATA)" -a -n "$(TOKENIZER)" || { echo "usage: make real DATA=FOLDER TOKENIZER=FILE"; exit 2; }
	$(BIN)/python finetune_generation.py configs/real.json --tokenizer_name_or_path "$(TOKENIZER)" \
		--train_file "$(DATA)/train.json" --dev_file "$(DATA)/dev.json" --output_dir $(REAL)
	$(BIN)/python predict.py --model_name_or_path $(REAL) --test_file "$(DATA)/dev.json" --overwrite_output \
		--output_file $(REAL)/predictions.jsonl --metrics_file $(REAL)/metrics.json --show 10

$(BENCH_VENV)/.ready: benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

# Times decoding against PaddleNLP, transformers and CTranslate2: make bench-decode ARGS="--shapes base --repeats 5"
bench-decode: setup $(BENCH_VENV)/.ready
	$(BIN)/python benchmarks/decode.py $(ARGS)

# Times what is done to data: make bench-data ARGS="--measure check score --records FILE --tokenizer FILE"
bench-data: setup
	$(BIN)/python benchmarks/data.py $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(DEMO)
