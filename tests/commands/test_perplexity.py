"""`python -m glm perplexity` as its users call it."""

import json
import math

import numpy as np
import paddle
import pytest

from glm.__main__ import main
from glm.errors import InputError, UsageError
from glm.models.glm import FAMILY
from glm.models.protocol import GeometryOptions

TEXTS = ["青石镇位于河的北岸，距离省会约3公里。", "水在零度结冰，在一百度沸腾；铁的熔点要高得多。"]


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model(seed=3, vocab_size=352).save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture
def measure(checkpoint, capsys):
    """A function: the figures of a file."""

    def measure(path, *argv):
        main(
            ["perplexity", "--model_name_or_path", str(checkpoint), "--test_file", str(path), "--device", "cpu"]
            + ["--format", "json", *map(str, argv)]
        )
        return json.loads(capsys.readouterr().out)

    return measure


def test_a_window_is_one_forward(measure, tiny_model, tokenizer, tmp_path):  # check 7
    path = tmp_path / "one.txt"
    path.write_text(TEXTS[0] + "\n", encoding="utf-8")
    found = measure(path, "--seq_length", 64)
    ids = tokenizer.encode_text(TEXTS[0])
    geometry = FAMILY.geometry(tokenizer, GeometryOptions("[gMASK]"))
    source = [tokenizer.cls_token_id, ids[0], tokenizer.special_ids["[gMASK]"]]
    batch = geometry.collate([[geometry.example(source, ids[1:], tgt_length=len(ids) - 1)]], len(ids) + 3, 0)
    with paddle.no_grad():
        loss = float(tiny_model(seed=3, vocab_size=352)(**{k: paddle.to_tensor(v) for k, v in batch.items()}))
    assert found["scored ids"] == len(ids) - 1 and found["windows"] == 1
    assert found["perplexity (id)"] == pytest.approx(math.exp(loss), rel=1e-4)


@pytest.mark.parametrize("more", [[], ["--unidirectional"], ["--overlap", 5]])
def test_the_batch_size_has_no_effect(measure, file, more):  # check 7
    found = [measure(file, "--seq_length", 16, "--per_device_eval_batch_size", size, *more) for size in (1, 2, 8)]
    sums = [figures["sum of losses"] for figures in found]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-5)
    assert found[0]["documents"] == 2 and found[0]["windows"] > 2


def test_the_table(checkpoint, file, capsys):
    options = ["--model_name_or_path", str(checkpoint), "--test_file", str(file), "--device", "cpu"]
    main(["perplexity", *options, "--seq_length", "32"])
    assert "perplexity (character)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--seq_length", 16, "--overlap", 0], "--overlap 0: use 1 to 15"),
        (["--seq_length", 16, "--overlap", 16], "--overlap 16: use 1 to 15"),
        (["--seq_length", 2], "--seq_length 2: use 3 or more"),
        (["--seq_length", 2000], "--seq_length 2000: the model has 100 positions"),
        (["--blank", "<mask>"], "--blank <mask>: GLM has"),
        (["--per_device_eval_batch_size", 0], "use 1 or more"),
    ],
)
def test_options_out_of_range(measure, file, argv, told):
    with pytest.raises(UsageError, match=told):
        measure(file, *argv)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"text": ""}', "line 1, field text: empty"),
        ('{"text": 3}', "line 1, field text: int where text"),
        ('{"words": "x"}', r"no field text \(fields: words\)"),
        ('{"text": "a[gMASK]"}', r"line 1, field text: holds the command token \[gMASK\]"),
        ("not JSON", "line 1: not JSON"),
        ("", "no text in it"),
    ],
)
def test_texts_that_cannot_be_used(measure, tmp_path, content, told):
    path = tmp_path / "bad.jsonl"
    path.write_text(content + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=told):
        measure(path, "--seq_length", 32)


def test_texts_too_short_to_score(measure, tmp_path, tokenizer):
    path = tmp_path / "short.txt"
    path.write_text("\n\n", encoding="utf-8")
    with pytest.raises(InputError, match="no text in it"):
        measure(path, "--seq_length", 32)
