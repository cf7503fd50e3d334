"""lm-evaluation-harness against the server, in a Python of its own that has it (`GLM_LM_EVAL_PYTHON`)."""

import json
import os
import subprocess

import numpy as np
import pytest

from serving.test_openai import by_hand

QUESTIONS = [
    ("青石镇位于河的", ["北岸", "水", "一百度"], 0),
    ("水在零度", ["结冰", "跑步"], 0),
    ("春天来了，山上的", ["书", "花都开了"], 1),
    ("火车从东站", ["出发", "多喝水", "少吃盐"], 2),
]
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{text}}}}"
{more}
"""
CHOICES = """\
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
TEXTS = """\
doc_to_target: "{{choices[gold]}}"
target_delimiter: ""
generation_kwargs: {until: ["。"], max_gen_toks: 6}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""

pytestmark = pytest.mark.skipif(
    not os.environ.get("GLM_LM_EVAL_PYTHON"), reason="set GLM_LM_EVAL_PYTHON to a Python with lm_eval"
)


def run_harness(folder, port: int, name: str) -> dict:
    """The results file of the tasks in a folder."""
    address = f"base_url=http://127.0.0.1:{port}/v1/completions,model={name},max_length=60,num_concurrent=1"
    command = [os.environ["GLM_LM_EVAL_PYTHON"], "-m", "lm_eval", "--model", "local-completions"]
    command += ["--model_args", address, "--tasks", "own_choices,own_texts", "--include_path", str(folder)]
    command += ["--output_path", str(folder / "out"), "--log_samples"]
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    environment["no_proxy"] = "127.0.0.1"
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (results,) = (folder / "out").rglob("results_*.json")
    return json.loads(results.read_text(encoding="utf-8")) | {"folder": results.parent}


def test_a_task_of_choices_and_one_of_texts(program, checkpoint, make_writer, tmp_path):
    _, port = program
    data = tmp_path / "data.jsonl"
    rows = [{"text": text, "choices": choices, "gold": gold} for text, choices, gold in QUESTIONS]
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    for name, kind, more in (("own_choices", "multiple_choice", CHOICES), ("own_texts", "generate_until", TEXTS)):
        task = TASK.format(name=name, kind=kind, data=data, more=more)
        (tmp_path / f"{name}.yaml").write_text(task, encoding="utf-8")
    found = run_harness(tmp_path, port, str(checkpoint))
    writer = make_writer()
    source, tokenizer = writer.encoder.geometry.lay_out([], []), writer.encoder.tokenizer
    right = []
    for text, choices, gold in QUESTIONS:
        sums = []
        for choice in choices:
            ids, start = tokenizer.encode_text(text + choice), len(tokenizer.encode_text(text))
            scores = [row[number] for row, number in zip(by_hand(writer, source, ids), ids, strict=True)]
            sums.append(sum(scores[start:]))
        right.append(int(np.argmax(sums)) == gold)
    assert found["results"]["own_choices"]["acc,none"] == pytest.approx(np.mean(right))
    assert found["n-samples"]["own_texts"]["effective"] == len(QUESTIONS)
