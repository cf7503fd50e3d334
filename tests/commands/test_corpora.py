"""`show --objective` prints samples as the model sees them; `check --corpus` what is wrong in running text."""

import json

import numpy as np
import pytest

from glm.commands import check, show
from glm.data.corpus_store import MemoryCorpus
from glm.errors import InputError, UsageError
from glm.models.glm import FAMILY

TEXTS = ["春天来了，山上的花都开了，孩子们跑到田野里放风筝。", "这座古老的石桥建于明朝，至今已有六百多年的历史。"]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("objective", ["token", "sentence", "document"])
def test_a_sample_of_an_objective(texts, sentencepiece_file, tokenizer, capsys, objective):
    argv = [texts, "--objective", objective, "--tokenizer_name_or_path", str(sentencepiece_file)]
    assert show.main([*argv, "--seq_length", "40", "--seed", "7", "--short_seq_prob", "0"]) == 0
    printed = capsys.readouterr().out
    pretraining = FAMILY.pretraining.build(tokenizer, seq_length=40, short_seq_prob=0.0)
    corpus = MemoryCorpus([[ids] for ids in tokenizer.encode_text(TEXTS)])
    sample = pretraining.draw(corpus, 0, np.random.default_rng([7, 0, 0]), objective)
    assert f"{len(sample)} tokens, {sample.num_labels} with loss" in printed
    (example,) = sample.examples
    rows = [line.split("│") for line in printed.splitlines() if "│" in line][-len(sample) :]
    assert [int(row[2]) for row in rows] == [*example.source_ids, *example.target_ids]
    assert [int(row[3]) for row in rows][len(example.source_ids) :] == example.target_position_ids[0].tolist()
    assert [row[5].split()[-1] for row in rows][-len(example.labels) :] == [str(label) for label in example.labels]


def test_objectives_of_show(texts, sentencepiece_file):
    base = [texts, "--tokenizer_name_or_path", str(sentencepiece_file)]
    with pytest.raises(UsageError, match="--objective masked: use token, sentence, document, or any"):
        show.main([*base, "--objective", "masked"])
    with pytest.raises(UsageError, match="give --line N for a record, or --objective NAME"):
        show.main(base)
    with pytest.raises(UsageError, match="give --line N"):
        show.main([*base, "--line", "1", "--objective", "any"])


def test_check_of_a_corpus(tmp_path, texts, sentencepiece_file, capsys):
    path = tmp_path / "bad.jsonl"
    rows = [
        TEXTS[0],
        "",
        TEXTS[0],
        "桥",
        "一 [sMASK] 二",
        *[f"{n}。版权所有，未经许可不得转载本站。" for n in range(3)],
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows), encoding="utf-8")
    argv = ["--corpus", "--tokenizer_name_or_path", str(sentencepiece_file), "--format", "json", "--most_repeats", "2"]
    assert check.main([texts, *argv]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == 0
    assert check.main([str(path), *argv]) == 1
    found = json.loads(capsys.readouterr().out)["files"][0]
    assert (found["read"], found["used"], found["refused"]) == (8, 6, 2)
    problems = {group["kind"]: group["first"] for group in found["problems"]}
    assert problems["empty field"] == [f"{path}, line 2, field text: empty"]
    assert problems["command token"][0].startswith(f"{path}, line 5, field text: holds the command token [sMASK]")
    assert problems["duplicate row"] == [f"{path}, line 3: is {path}, line 1 once more"]
    assert problems["short document"][0].startswith(f"{path}, line 4: ")
    assert problems["repeated passage"] == [f"{path}: 3 documents hold 版权所有，未经许可不得转载本站"]
    with pytest.raises(UsageError, match="--most_repeats 3: has no effect without --corpus"):
        check.main([str(path), "--tokenizer_name_or_path", str(sentencepiece_file), "--most_repeats", "3"])
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(InputError, match="none.txt: no document in it"):
        check.main([str(tmp_path / "none.txt"), *argv])
