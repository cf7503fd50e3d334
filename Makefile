# make demo | demo-unilm | demo-ganlm | demo-tasks | test | test-faults | check | real | setup | bench-decode | bench-train |
# bench-start | bench-data | bench-unilm | bench-ganlm | bench-adapters | bench-serve | bench-save | bench-parallel.
# Each makes the environment itself if it is missing.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
DEMO_UNILM := runs/demo-unilm
DEMO_GANLM := runs/demo-ganlm
DEMO_TASKS := runs/demo-tasks
REAL := runs/real
BENCH_VENV := .venv-bench

.PHONY: setup lock demo demo-unilm demo-ganlm demo-tasks test test-faults check real bench-decode bench-train bench-start bench-data bench-unilm bench-ganlm bench-adapters bench-serve bench-save bench-parallel clean

setup: $(VENV)/.ready

# The lock names every file by its SHA-256; nothing else is installed, and nothing that another one asks for.
$(VENV)/.ready: requirements.lock
	@test -n "$(PYTHON)" || { echo "error: no Python found; give one: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) tests/tools/check_python.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	touch $@

# Makes the lock anew after a change of requirements or constraints; needs uv.
lock:
	uv pip compile --quiet --generate-hashes --no-annotate --no-header --python-version 3.11 \
		--python-platform x86_64-manylinux_2_28 requirements-dev.txt -o requirements.new
	$(PYTHON) tests/tools/lock.py requirements.new > requirements.lock
	rm requirements.new

# Trains a small GLM on the bundled data, then generates questions for entities it has never seen.
demo: setup
	$(BIN)/python finetune_generation.py configs/demo.json
	$(BIN)/python predict.py --model_name_or_path $(DEMO) --test_file data/dev.json --device cpu \
		--overwrite_output --output_file $(DEMO)/predictions.jsonl --metrics_file $(DEMO)/metrics.json \
		--report $(DEMO)/report

# The same with a UniLM, whose texts are drawn beside the best ones.
demo-unilm: setup
	$(BIN)/python finetune_generation.py configs/unilm/demo.json
	$(BIN)/python predict.py --model_name_or_path $(DEMO_UNILM) --test_file data/dev.json --device cpu \
		--overwrite_output --output_file $(DEMO_UNILM)/predictions.jsonl --metrics_file $(DEMO_UNILM)/metrics.json
	$(BIN)/python predict.py --model_name_or_path $(DEMO_UNILM) --test_file data/dev.json --device cpu \
		--overwrite_output --output_file $(DEMO_UNILM)/samples.jsonl --select_topk False --top_p 0.9 \
		--num_return_sequences 3 --show 5

# The same with a GanLM and its three losses.
demo-ganlm: setup
	$(BIN)/python finetune_generation.py configs/ganlm/demo.json
	$(BIN)/python predict.py --model_name_or_path $(DEMO_GANLM) --test_file data/dev.json --device cpu \
		--overwrite_output --output_file $(DEMO_GANLM)/predictions.jsonl --metrics_file $(DEMO_GANLM)/metrics.json

# One frozen GLM and three tasks: that of the demo, and two that are learnt as adapters of under 5 % of its weights.
demo-tasks: setup
	$(BIN)/python data/make_tasks.py $(DEMO_TASKS)/data
	$(BIN)/python finetune_generation.py configs/demo.json --do_eval False --output_dir $(DEMO_TASKS)/base
	$(BIN)/python finetune_generation.py configs/adapters/demo.json --train_file polite=$(DEMO_TASKS)/data/polite.train.json \
		--output_dir $(DEMO_TASKS)/polite
	$(BIN)/python finetune_generation.py configs/adapters/demo.json --train_file kind=$(DEMO_TASKS)/data/kind.train.json \
		--output_dir $(DEMO_TASKS)/kind
	rm -rf $(DEMO_TASKS)/all
	$(BIN)/python -m glm adapters join $(DEMO_TASKS)/polite $(DEMO_TASKS)/kind --output_dir $(DEMO_TASKS)/all
	$(BIN)/python predict.py --model_name_or_path $(DEMO_TASKS)/base --adapters $(DEMO_TASKS)/all --device cpu --overwrite_output \
		--test_file $(DEMO_TASKS)/data/mixed.json --output_file $(DEMO_TASKS)/predictions.jsonl \
		--metrics_file $(DEMO_TASKS)/metrics.json
	$(BIN)/python predict.py --model_name_or_path $(DEMO_TASKS)/base --test_file data/dev.json --device cpu --overwrite_output \
		--output_file $(DEMO_TASKS)/alone.jsonl --show 0
	$(BIN)/python benchmarks/demo_tasks.py

# Two processes side by side, each file of tests in one of them.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Every fault one after the other, then every guard taken away: an hour of two cores.
test-faults: setup
	$(BIN)/python -m pytest -m "fault or sweep" -rP -q
	$(BIN)/python tests/mutations.py

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

# Times many clients of `predict.py --serve` against one: make bench-serve ARGS="--models runs/demo --clients 16"
bench-serve: setup
	$(BIN)/python benchmarks/serve.py $(ARGS)

# Times training against PaddleNLP and torch: make bench-train ARGS="--data train.json --tokenizer FILE"
bench-train: setup $(BENCH_VENV)/.ready
	$(BIN)/python benchmarks/train.py $(ARGS)

# Times whole processes from their start: make bench-start ARGS="--model runs/demo"
bench-start: setup
	$(BIN)/python benchmarks/start.py $(ARGS)

# Times UniLM against torch: make bench-unilm ARGS="--data train.json --tokenizer vocab.txt"
bench-unilm: setup $(BENCH_VENV)/.ready
	PYTHONPATH=. $(BIN)/python benchmarks/unilm.py $(ARGS)

# Times GanLM against transformers' BART and torch: make bench-ganlm ARGS="--tables decode"
bench-ganlm: setup $(BENCH_VENV)/.ready
	PYTHONPATH=. $(BIN)/python benchmarks/ganlm.py $(ARGS)

# Times adapters and transformers' GPT-2: make bench-adapters ARGS="--tables training"
bench-adapters: setup $(BENCH_VENV)/.ready
	$(BIN)/python benchmarks/adapters.py --peer_python $(BENCH_VENV)/bin/python $(ARGS)

# Times what is done to data: make bench-data ARGS="--measure check score --records FILE --tokenizer FILE"
bench-data: setup
	$(BIN)/python benchmarks/data.py $(ARGS)

# Times a checkpoint's writing: make bench-save ARGS="--model configs/model/base.json --repeats 5"
bench-save: setup
	$(BIN)/python benchmarks/save.py $(ARGS)

# Counts what tensor parallelism exchanges and saves, over CPU processes: make bench-parallel ARGS="--shapes tiny"
bench-parallel: setup
	$(BIN)/python benchmarks/parallel.py $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH_VENV) $(DEMO)
