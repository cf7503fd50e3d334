"""Prediction where PaddleNLP cannot be imported: every family but mT5, and adapters."""

import json
import os
import subprocess
import sys
from pathlib import Path

import paddle
import pytest

from glm.adapters.files import add_adapter, lora_config, prefix_config
from glm.checkpoint.loading import load_config, load_model
from glm.models import registry
from tools.adapter_files import save_adapter

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "data" / "tokenizer"
SIZES = {"hidden_size": 32, "num_attention_heads": 2}
FAMILIES = {
    "glm": {"num_layers": 2},
    "mglm": {"num_layers": 2, "sandwich_ln": True},
    "unilm": {"num_hidden_layers": 2, "intermediate_size": 64},
    "ganlm": {"encoder_layers": 2, "generator_layers": 2, "discriminator_layers": 0, "mlp_size": 64},
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今天气很好去哪里公园。，？"]
RECORDS = [{"source": "今天天气很好。"}, {"source": "去公园。"}]
RUN = """
import json, sys
sys.modules["paddlenlp"] = sys.modules["datasets"] = None
import glm, predict
from glm.runtime.entry import run
for folder in {folders}:
    options = ["--device=cpu", "--task_name=paraphrase", "--src_length=40", "--tgt_length=6", "--num_beams=2"]
    files = ["--test_file", "{records}", "--output_file", folder + ".jsonl"]
    assert predict.main(["--model_name_or_path", folder, *options, *files]) == 0
    model = glm.load(folder, device="cpu", task_name="paraphrase", src_length=40, tgt_length=6, num_beams=2)
    found = model.generate({texts})
    with open(folder + ".jsonl", encoding="utf-8") as lines:
        assert [prediction.as_row()["predictions"] for prediction in found] == [
            json.loads(line)["predictions"] for line in lines
        ]
filling = ["--device=cpu", "--src_length=40", "--fill", "今天[MASK]。"]
assert predict.main(["--model_name_or_path", {folders}[0], *filling]) == 0
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[str]:
    """A folder of each family, and of each kind of adapter."""
    root = tmp_path_factory.mktemp("models")
    vocabulary = root / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    files = {"unilm": vocabulary, "ganlm": BUNDLED}
    for name, sizes in FAMILIES.items():
        family = registry.find(name)
        path = root / f"{name}.json"
        path.write_text(json.dumps({"model_type": name, **SIZES, **sizes}), encoding="utf-8")
        tokenizer = family.open_tokenizer(files.get(name, BUNDLED / "spm.model"))
        config = load_config(family, str(path), tokenizer)
        load_model(family, str(path), config).save_pretrained(root / name)
        family.save_tokenizer(tokenizer, root / name)
    for kind in ("lora", "prefix"):
        family, base = registry.find("glm"), str(root / "glm")
        tokenizer = family.open_tokenizer(root / "glm")
        model = load_model(family, base, load_config(family, base, tokenizer))
        if kind == "lora":
            adapter = lora_config(base, targets="dense|query_key_value", rank=2, alpha=4, dropout=0.0)
        else:
            adapter = prefix_config(base, model, tokens=2, projection=True)
        add_adapter(model, adapter)
        for weight in model.parameters():
            if not weight.stop_gradient:
                weight.set_value(weight + paddle.full_like(weight, 0.02))
        family.save_tokenizer(tokenizer, root / kind)
        save_adapter(model, adapter, root / kind)
    return [str(root / name) for name in (*FAMILIES, "lora", "prefix")]


def test_prediction_without_paddlenlp(folders, tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    code = RUN.format(folders=folders, records=records, texts=RECORDS)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_training_without_paddlenlp_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['paddlenlp'] = None; sys.argv = ['glm', 'train', 'x.json']\n"
    code += "from glm.__main__ import command; sys.exit(command())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: this needs paddlenlp; in the toolkit's folder: pip install '.[train]'"
    )
