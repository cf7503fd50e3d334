"""Trained in English, asked in Chinese: the whole of a run on real records. Takes minutes; set GLM_LONG_TESTS=1."""

import json
import os
from collections import Counter

import pytest

from tools.reference_files import reference_paths
from tools.run_tools import Workspace, read_lines, write_records

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(not os.environ.get("GLM_LONG_TESTS"), reason="takes minutes; set GLM_LONG_TESTS=1"),
]
SIZES = {"model_type": "mglm", "num_layers": 2, "hidden_size": 128, "num_attention_heads": 2}
SIZES |= {"max_sequence_length": 257, "vocab_size": 2560}
SIZES |= dict.fromkeys(("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob"), 0.0)
RECORDS, ASKED = 900, 120


def test_a_small_model_learns_its_records_and_is_asked_in_both_languages(real_data, tmp_path):
    english, chinese = (read_lines(real_data / "data" / "xnli" / f"dev.{name}.json") for name in ("en", "zh"))
    files = {"seen": english[:RECORDS], "en": english[RECORDS:][:ASKED], "zh": chinese[-ASKED:]}
    for name, rows in files.items():
        write_records(tmp_path / f"{name}.json", rows)
    (tmp_path / "model.json").write_text(json.dumps(SIZES), encoding="utf-8")
    run = Workspace(tmp_path, reference_paths("mglm", "*.model")[0]).finetune(
        "run",
        task_name="xnli",
        train_file=f"en={tmp_path / 'seen.json'}",
        dev_file=[f"{name}={tmp_path / name}.json" for name in files],
        do_eval=True,
        src_length=255,
        tgt_length=8,
        num_beams=None,
        num_train_epochs=8,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        learning_rate=1e-3,
        warmup_ratio=0.06,
    )
    (path,) = (run / "eval").glob("step-???.metrics.json")
    table = json.loads(path.read_text(encoding="utf-8"))
    assert list(table) == ["seen", "en", "zh", "mean"]
    majority = 100 * max(Counter(row["label"] for row in files["seen"]).values()) / RECORDS
    assert table["seen"]["accuracy"] > majority + 10
    assert table["mean"]["accuracy"] == pytest.approx(sum(table[name]["accuracy"] for name in files) / 3)
    assert {name: table[name]["records"] for name in files} == {"seen": RECORDS, "en": ASKED, "zh": ASKED}
