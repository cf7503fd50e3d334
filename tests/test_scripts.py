"""The two scripts as their users call them: results, options, and what they say of bad input."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import finetune_generation
import predict
from glm.data.punctuation import to_full_width
from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.models.glm import FAMILY as GLM
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer
from glm.options.data import DataArguments
from glm.prediction.setup import build_encoder
from glm.prediction.writer import Writer
from glm.runtime.entry import INCOMPLETE, run
from reference.beam_search import beam_search
from tools.run_tools import Workspace, arguments, make_workspace, read_lines, write_records
from tools.slow_model import next_logits, token_scores

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("scripts"), sentencepiece_file)


@pytest.fixture(scope="module")
def checkpoint(workspace) -> Path:
    """A model that has learnt a little, so that every option can still change what it says."""
    return workspace.finetune("checkpoint", max_steps=15, learning_rate=5e-3, logging_steps=5)


def predictions(workspace, checkpoint, tmp_path, **options) -> list[dict]:
    target = tmp_path / f"out-{len(list(tmp_path.iterdir()))}.jsonl"
    workspace.predict(
        **{
            "model_name_or_path": checkpoint,
            "test_file": workspace.folder / "train.json",
            "output_file": target,
            "show": 0,
            **options,
        }
    )
    return read_lines(target)


def texts(rows: list[dict]) -> list[list[str]]:
    return [[item["text"] for item in row["predictions"]] for row in rows]


def scores(rows: list[dict]) -> list[list[float]]:
    return [[item["score"] for item in row["predictions"]] for row in rows]


# -- predict.py


def test_one_line_per_record_in_input_order(workspace, checkpoint, tmp_path):
    records = read_lines(workspace.folder / "train.json")
    rows = predictions(workspace, checkpoint, tmp_path)
    assert [row["id"] for row in rows] == list(range(1, 21))  # line numbers: the data has no ids
    assert [row["source"] for row in rows] == [record["context"] for record in records]
    assert [row["answer"] for row in rows] == [record["answer"] for record in records]
    assert [row["reference"] for row in rows] == [record["question"] for record in records]
    assert all(list(row) == ["id", "source", "answer", "predictions", "reference"] for row in rows)


def test_results_do_not_depend_on_batch_size(workspace, checkpoint, tmp_path):
    one = predictions(workspace, checkpoint, tmp_path, per_device_eval_batch_size=1)
    many = predictions(workspace, checkpoint, tmp_path, per_device_eval_batch_size=7)
    assert texts(one) == texts(many)
    assert sum(scores(one), []) == pytest.approx(sum(scores(many), []), abs=1e-4)


def test_drawn_text_does_not_depend_on_batch_size(workspace, checkpoint, tmp_path):
    options = {"select_topk": "False", "temperature": 1.3, "top_k": 20}
    one = predictions(workspace, checkpoint, tmp_path, per_device_eval_batch_size=1, **options)
    many = predictions(workspace, checkpoint, tmp_path, per_device_eval_batch_size=20, **options)
    assert texts(one) == texts(many)
    assert texts(one) != texts(predictions(workspace, checkpoint, tmp_path, generation_seed=1, **options))


def test_standard_input_and_output(workspace, checkpoint, tmp_path, monkeypatch, capsys):
    record = {"context": "青石镇位于河的北岸，人口大约2万。", "answer": "2万", "id": "a-7"}
    text = json.dumps(record, ensure_ascii=False) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    capsys.readouterr()
    workspace.predict(model_name_or_path=checkpoint)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["a-7"]
    assert "reference" not in rows[0]


def test_metrics_file_and_table(workspace, checkpoint, tmp_path, capsys):
    rows = predictions(workspace, checkpoint, tmp_path, metrics_file=tmp_path / "m.json", show=2)
    figures = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert {"bleu-4 (char, corpus)", "rouge-1 (char)", "rouge-2 (jieba)", "rouge-l (jieba)"} <= set(figures)
    lengths = [len(row["predictions"][0]["text"].replace(" ", "")) for row in rows]
    assert figures["generated length"] == pytest.approx(sum(lengths) / len(lengths))
    assert figures["records per second"] > 0
    printed = capsys.readouterr().out
    assert "gold question" in printed and rows[1]["reference"][:4] in printed and "bleu-4 (char, corpus)" in printed


def test_scores_beside_printed_rows(workspace, checkpoint, tmp_path, capsys):
    """Standard output holds rows only."""
    options = {"model_name_or_path": checkpoint, "test_file": workspace.folder / "dev.json"}
    workspace.predict(**options, metrics_file=tmp_path / "m.json")
    printed = capsys.readouterr()
    assert [json.loads(line)["id"] for line in printed.out.splitlines()] == [1, 2, 3, 4]
    assert "scores of 4 records" in printed.err and "bleu-4 (char, corpus)" in printed.err


def test_existing_scores_are_not_overwritten(workspace, checkpoint, tmp_path):
    kept = tmp_path / "m.json"
    kept.write_text("mine")
    with pytest.raises(InputError, match=r"metrics_file .*m\.json: exists.*--overwrite_output"):
        predictions(workspace, checkpoint, tmp_path, metrics_file=kept)
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"] and kept.read_text() == "mine"
    predictions(workspace, checkpoint, tmp_path, metrics_file=kept, overwrite_output=True)
    assert json.loads(kept.read_text())["records"] == 20


def test_the_constant_opening_is_not_in_the_text(workspace, checkpoint, tmp_path):
    assert not any("前提" in text for row in texts(predictions(workspace, checkpoint, tmp_path)) for text in row)


@pytest.mark.parametrize(
    "changed",
    [
        {"num_beams": 5},
        {"length_penalty": 3.0, "num_beams": 3},
        {"no_repeat_ngram_size": 1},
        {"min_tgt_length": 12},
        {"tgt_length": 16},
        {"repetition_penalty": 3.0},
        {"select_topk": "False"},
        {"src_length": 16},
        {"no_block_position": True},
        {"early_stopping": "true", "num_beams": 3, "length_penalty": 5.0},
    ],
    ids=lambda options: " ".join(options),
)
def test_every_option_changes_the_result(workspace, checkpoint, tmp_path, changed):
    """Against a run that differs in the first option only."""
    name = next(iter(changed))
    others = {key: value for key, value in changed.items() if key != name}
    plain = predictions(workspace, checkpoint, tmp_path, **others)
    other = predictions(workspace, checkpoint, tmp_path, **changed)
    assert (texts(plain), scores(plain)) != (texts(other), scores(other))


@pytest.mark.parametrize(
    "changed", [{"temperature": 0.3}, {"top_k": 2}, {"top_p": 0.2}], ids=lambda item: next(iter(item))
)
def test_every_drawing_option_changes_the_result(workspace, checkpoint, tmp_path, changed):
    drawing = {"select_topk": "False", "num_beams": 1}
    plain = predictions(workspace, checkpoint, tmp_path, **drawing)
    assert texts(plain) != texts(predictions(workspace, checkpoint, tmp_path, **drawing, **changed))


def test_num_return_sequences(workspace, checkpoint, tmp_path):
    rows = predictions(workspace, checkpoint, tmp_path, num_beams=4, num_return_sequences=3)
    for row in scores(rows):
        assert len(row) == 3 and row == sorted(row, reverse=True)


def test_an_existing_file_is_not_overwritten(workspace, checkpoint, tmp_path):
    kept = tmp_path / "kept.jsonl"
    kept.write_text("mine")
    with pytest.raises(InputError, match=r"output_file .*kept.jsonl: exists.*--overwrite_output"):
        predictions(workspace, checkpoint, tmp_path, output_file=kept)
    assert kept.read_text() == "mine"
    workspace.predict(
        model_name_or_path=checkpoint,
        test_file=workspace.folder / "dev.json",
        output_file=kept,
        overwrite_output=True,
        show=0,
    )
    assert len(read_lines(kept)) == 4


def test_outputs_that_cannot_be(workspace, checkpoint, tmp_path):
    data = workspace.folder / "dev.json"
    (tmp_path / "file").write_text("")
    for options, match in (
        ({"metrics_file": tmp_path / "a", "output_file": tmp_path / "a"}, "metrics_file .*: is output_file too"),
        ({"output_file": data, "test_file": data, "overwrite_output": True}, "output_file .*: is an input file too"),
        ({"output_file": tmp_path, "overwrite_output": True}, "no file can be written there"),
        ({"output_file": tmp_path / "file" / "a"}, "no file can be written there"),
    ):
        with pytest.raises(InputError, match=match):
            predictions(workspace, checkpoint, tmp_path, **options)


# -- predict.py: records that fail

BAD = [
    (b'{"context": "a", "answer": ', ", line 2: not JSON ("),
    (b'["a"]', ", line 5: list where a JSON object is expected"),
    (b'{"context": "a", "question": "a"}', ", line 6: no field answer (fields: context, question)"),
    (b'{"context": " ", "answer": "a", "question": "a"}', ", line 7, field context: empty"),
    (
        '{"context": "青[MASK]石", "answer": "a", "question": "a"}'.encode(),
        ", line 8, field context: holds the command token [MASK]",
    ),
    ('{"context": "青石", "answer": "a", "question": "a"}'.encode("gbk"), ", line 9: not UTF-8"),
    (
        json.dumps({"context": "河" * 99, "answer": "河" * 99, "question": "a", "id": "long"}).encode(),
        ", line 10, field answer: does not fit into src_length 60",
    ),
]
BAD_PLACES = [1, 4, 5, 6, 7, 8, 9]


@pytest.fixture
def partly_bad(workspace, tmp_path) -> Path:
    """The four dev records with ids, and seven bad lines among them."""
    good = [record | {"id": f"g{number}"} for number, record in enumerate(read_lines(workspace.folder / "dev.json"))]
    write_records(tmp_path / "good.json", good)
    lines = (tmp_path / "good.json").read_bytes().splitlines()
    for place, (line, _) in zip(BAD_PLACES, BAD, strict=True):
        lines.insert(place, line)
    path = tmp_path / "partly_bad.json"
    path.write_bytes(b"\n".join(lines))
    return path


def test_bad_records_are_reported_in_their_rows(workspace, checkpoint, tmp_path, partly_bad, capsys):
    target, metrics = tmp_path / "out.jsonl", tmp_path / "m.json"
    options = {"model_name_or_path": checkpoint, "output_file": target, "metrics_file": metrics}
    assert workspace.predict(test_file=partly_bad, show=9, **options) == INCOMPLETE == 3
    printed = capsys.readouterr()
    rows = read_lines(target)
    assert len(rows) == 11
    assert [number for number, row in enumerate(rows) if "error" in row] == BAD_PLACES
    for place, (_, message) in zip(BAD_PLACES, BAD, strict=True):
        assert rows[place]["error"].startswith(f"{partly_bad}{message}")
        assert rows[place]["predictions"] == []
        assert rows[place]["id"] == ("long" if place == 9 else place + 1)
    summary = f"7 of 11 records failed, their rows say why; the first: {rows[1]['error']}"
    assert printed.err.splitlines()[-1] == summary
    assert "the first 4 records" in printed.out and "河河" not in printed.out

    alone = {"test_file": tmp_path / "good.json", "output_file": tmp_path / "alone.jsonl", "show": 0}
    assert workspace.predict(**{**options, **alone, "metrics_file": tmp_path / "alone.json"}) == 0
    assert "records failed" not in capsys.readouterr().err
    good, expected = [row for row in rows if "error" not in row], read_lines(tmp_path / "alone.jsonl")
    assert [row["id"] for row in good] == [row["id"] for row in expected] == ["g0", "g1", "g2", "g3"]
    assert texts(good) == texts(expected)
    assert sum(scores(good), []) == pytest.approx(sum(scores(expected), []), abs=1e-4)
    figures, expected = (json.loads(path.read_text(encoding="utf-8")) for path in (metrics, tmp_path / "alone.json"))
    assert (figures["records"], figures["failed records"]) == (4, 7)
    assert (expected["records"], expected["failed records"]) == (4, 0)
    same = [name for name in figures if name not in ("failed records", "records per second")]
    assert len(same) > 20 and [figures[name] for name in same] == [expected[name] for name in same]


def test_which_record_failed_first_is_that_of_the_input(workspace, checkpoint, tmp_path, capsys):
    """A record that is too long is noticed with the others, in input order."""
    path = tmp_path / "bad.json"
    path.write_bytes(BAD[-1][0] + b"\n" + BAD[0][0])
    assert workspace.predict(model_name_or_path=checkpoint, test_file=path) == 3
    summary = capsys.readouterr().err.splitlines()[-1]
    assert summary.startswith(f"2 of 2 records failed, their rows say why; the first: {path}, line 1, field answer")


def test_every_record_failed(workspace, checkpoint, tmp_path, capsys):
    path, metrics = tmp_path / "bad.json", tmp_path / "m.json"
    path.write_bytes(b"\n".join(line for line, _ in BAD))
    options = {"model_name_or_path": checkpoint, "test_file": path}
    assert workspace.predict(output_file=tmp_path / "a", **options) == 3
    assert [row["predictions"] for row in read_lines(tmp_path / "a")] == [[]] * 7
    assert "7 of 7 records failed" in capsys.readouterr().err
    with pytest.raises(InputError, match="all 7 records failed, the first with: .*bad.json, line 1: not JSON"):
        workspace.predict(output_file=tmp_path / "b", metrics_file=metrics, **options)
    assert not metrics.exists() and (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_records_without_question(workspace, checkpoint, tmp_path):
    """They are answered; scores are of the others."""
    records = read_lines(workspace.folder / "dev.json")
    del records[1]["question"]
    write_records(tmp_path / "in.json", records)
    options = {"model_name_or_path": checkpoint, "test_file": tmp_path / "in.json", "show": 0}
    assert workspace.predict(output_file=tmp_path / "a", **options) == 0
    assert ["reference" in row for row in read_lines(tmp_path / "a")] == [True, False, True, True]
    assert workspace.predict(output_file=tmp_path / "b", metrics_file=tmp_path / "m", **options) == 0
    assert not any("error" in row for row in read_lines(tmp_path / "b"))
    assert json.loads((tmp_path / "m").read_text())["records"] == 3


def test_exit_code_of_a_run_with_failed_records(workspace, checkpoint, partly_bad, monkeypatch, capsys):
    options = {"model_name_or_path": checkpoint, "test_file": partly_bad, "device": "cpu"}
    monkeypatch.setattr(sys, "argv", ["predict.py", *arguments(options)])
    assert run(predict.main) == 3
    assert len(capsys.readouterr().out.splitlines()) == 11


# -- predict.py: records in windows


def test_windows_are_written_in_order(workspace, checkpoint, tmp_path, monkeypatch):
    plain = predictions(workspace, checkpoint, tmp_path)
    for window in (1, 3, 20, 7):
        monkeypatch.setattr(predict, "WINDOW", window)
        rows = predictions(workspace, checkpoint, tmp_path, per_device_eval_batch_size=2)
        assert [row["id"] for row in rows] == list(range(1, 21)) and texts(rows) == texts(plain)


def test_standard_input_is_answered_window_by_window(workspace, checkpoint, monkeypatch):
    """The rows of a window are printed before the next one is read, and nothing of it is kept."""
    lines = (workspace.folder / "train.json").read_bytes().splitlines(keepends=True) * 2
    output = io.BytesIO()
    printed = []  # rows, whenever a line is asked for

    class Slow(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            line = lines[len(printed)] if len(printed) < len(lines) else b""
            printed.append(output.getvalue().count(b"\n"))
            buffer[: len(line)] = line
            return len(line)

    monkeypatch.setattr(predict, "WINDOW", 10)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Slow(), buffer_size=200)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output))
    assert workspace.predict(model_name_or_path=checkpoint, num_beams=1, per_device_eval_batch_size=4) == 0
    rows = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [row["id"] for row in rows] == list(range(1, 41))
    assert max(number - count for number, count in enumerate(printed)) <= 12
    assert printed[:9] == [0] * 9 and printed[22] >= 20


def test_drawn_text_does_not_depend_on_the_window(workspace, checkpoint, tmp_path, monkeypatch):
    options = {"select_topk": "False", "top_k": 20}
    plain = predictions(workspace, checkpoint, tmp_path, **options)
    monkeypatch.setattr(predict, "WINDOW", 3)
    assert texts(predictions(workspace, checkpoint, tmp_path, **options)) == texts(plain)


def test_standard_input_without_a_record(workspace, checkpoint, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n \n")))
    with pytest.raises(InputError, match="standard input: no record in it; one JSON object per line is expected"):
        workspace.predict(model_name_or_path=checkpoint)


# -- predict.py: what is given of a text, and what it may be; against whole forward passes


@pytest.fixture(scope="module")
def by_hand(workspace, checkpoint):
    """Records' source ids, and for each a function of the opening: the model's next logits."""
    tokenizer = GLMTokenizer.from_pretrained(checkpoint)
    model = GLMForConditionalGeneration.from_pretrained(checkpoint)
    model.eval()
    config = GenerationConfig(tgt_length=30)
    encoder = build_encoder(GLM, tokenizer, DataArguments(src_length=60), config)

    class ByHand:
        banned_ids = Writer(model, encoder, config, 1).banned_ids
        eop = tokenizer.eop_token_id
        vocab_size = model.config.vocab_size
        encode = staticmethod(tokenizer.encode_text)

        @staticmethod
        def decode(ids):
            return to_full_width(tokenizer.decode_ids(ids))  # as the training's targets are

        pieces = staticmethod(tokenizer.convert_ids_to_tokens)
        opening = tokenizer.encode_text("在已知答案的前提下，问题：")

        @staticmethod
        def logits(row: dict, prefix: str = ""):
            text = tokenizer.encode_text("答案：" + row["answer"] + "，上下文：" + row["source"])
            commands = tokenizer.command_ids
            source = [commands["[CLS]"], *text, commands["[gMASK]"], commands["<|endoftext|>"]]
            opening = [*ByHand.opening, *tokenizer.encode_text(prefix)]
            return next_logits(model, tokenizer, source, opening=opening)

    return ByHand


@pytest.mark.parametrize("prefix", ["", "青石镇", "有 多"])
def test_prefix(workspace, checkpoint, tmp_path, by_hand, prefix):
    """Every text starts with it, goes on as the model does after it, and is scored for what goes on only."""
    options = {"num_beams": 3, "num_return_sequences": 3, "tgt_length": 24, "length_penalty": 0.9}
    test_file = workspace.folder / "dev.json"
    rows = predictions(workspace, checkpoint, tmp_path, test_file=test_file, prefix=prefix, **options)
    given = by_hand.encode(prefix)
    for row in rows:
        expected = beam_search(
            by_hand.logits(row, prefix),
            vocab_size=by_hand.vocab_size,
            max_length=24 - 13 - len(given),  # less the constant opening
            eop=by_hand.eop,
            num_beams=3,
            length_penalty=0.9,
            no_repeat_ngram_size=3,
            banned=by_hand.banned_ids,
        )
        assert [text["text"] for text in row["predictions"]] == [
            by_hand.decode([*given, *tokens]) for tokens, _ in expected
        ]
        assert [text["score"] for text in row["predictions"]] == pytest.approx(
            [score for _, score in expected], abs=1e-4
        )
        assert all(text["text"].startswith(prefix) for text in row["predictions"])


def test_prefix_that_is_too_long(workspace, checkpoint, tmp_path):
    with pytest.raises(
        InputError, match="prefix .*: leaves no room for min_tgt_length 0 tokens and eop in tgt_length"
    ):
        predictions(workspace, checkpoint, tmp_path, prefix="青石镇在哪里？有多少人口？春天来了，孩子们跑到田野里")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "青石镇"])
@pytest.mark.parametrize("length_penalty", [0.7, 0.0])
def test_allowed_outputs(workspace, checkpoint, tmp_path, by_hand, prefix, length_penalty):
    """Scores are log-probabilities of whole texts from one forward pass each; some begin alike, one in another."""
    outputs = ["人口", "人口多少", "在哪里", "在哪里？", "河", "有多少人口"]
    (tmp_path / "allowed.txt").write_text("\n".join(outputs), encoding="utf-8")
    rows = predictions(
        workspace,
        checkpoint,
        tmp_path,
        allowed_outputs_file=tmp_path / "allowed.txt",
        prefix=prefix,
        test_file=workspace.folder / "dev.json",
        num_beams=6,
        num_return_sequences=6,
        length_penalty=length_penalty,
    )
    given = by_hand.encode(prefix)
    for row in rows:
        expected = []
        for output in outputs:
            ids = by_hand.encode(output)
            total = sum(token_scores(by_hand.logits(row, prefix), [*ids, by_hand.eop]))
            expected.append((total / len(ids) ** length_penalty, by_hand.decode([*given, *ids])))
        expected.sort(reverse=True)
        assert [text["text"] for text in row["predictions"]] == [text for _, text in expected]
        assert [text["score"] for text in row["predictions"]] == pytest.approx(
            [score for score, _ in expected], abs=1e-4
        )


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 2}, {"num_beams": 9, "num_return_sequences": 9}])
def test_nothing_but_allowed_outputs(workspace, checkpoint, tmp_path, options):
    (tmp_path / "allowed.txt").write_text("在哪里\n人口", encoding="utf-8")
    rows = predictions(workspace, checkpoint, tmp_path, allowed_outputs_file=tmp_path / "allowed.txt", **options)
    assert {text for row in texts(rows) for text in row} <= {"在哪里", "人口"}
    assert all(len(row) == min(options.get("num_return_sequences", 1), 2) for row in texts(rows))


@pytest.mark.parametrize("options", [{}, {"length_penalty": 0.3}, {"tgt_length": 16}, {"prefix": "青石镇"}], ids=str)
def test_token_scores(workspace, checkpoint, tmp_path, by_hand, options):
    """Each piece with its log-probability; they add up to the score times n ** length_penalty."""
    options = {"num_beams": 3, "num_return_sequences": 3, "test_file": workspace.folder / "dev.json", **options}
    rows = predictions(workspace, checkpoint, tmp_path, token_scores=True, **options)
    prefix, ended = options.get("prefix", ""), []
    known = {piece: number for number in range(350) for piece in by_hand.pieces([number])}
    for row in rows:
        for text in row["predictions"]:
            assert [name for name in text if name != "finish_reason"] == ["text", "score", "token_scores"]
            pieces, figures = zip(*text["token_scores"], strict=True)
            ended.append(pieces[-1] == "<|endofpiece|>")
            n = len(pieces) - ended[-1]
            mean = sum(figures) / max(n, 1) ** options.get("length_penalty", 0.7)
            assert mean == pytest.approx(text["score"], abs=1e-5)
            tokens = [known[piece] for piece in pieces]
            assert text["text"] == by_hand.decode([*by_hand.encode(prefix), *tokens[:n]])
            assert list(figures) == pytest.approx(token_scores(by_hand.logits(row, prefix), tokens), abs=1e-4)
    assert any(ended) != ("tgt_length" in options)  # one was cut at 3 tokens, without eop
    plain = predictions(workspace, checkpoint, tmp_path, **options)
    assert texts(plain) == texts(rows) and "token_scores" not in plain[0]["predictions"][0]


# -- predict.py: blanks


def test_fill(workspace, checkpoint, tmp_path, capsys):
    text = "青石镇位于[MASK]，人口大约[sMASK]万。"
    assert workspace.predict(model_name_or_path=checkpoint, fill=text, num_return_sequences=2) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["id"], row["text"], [len(blank) for blank in row["blanks"]]) == (1, text, [2, 2])
    first, second = (blank[0]["text"] for blank in row["blanks"])
    assert row["filled"] == f"青石镇位于{first}，人口大约{second}万。"
    target = tmp_path / "out.jsonl"
    options = {"output_file": target, "num_return_sequences": 2, "token_scores": True, "tgt_length": 30}
    assert workspace.predict(model_name_or_path=checkpoint, fill=text, **options) == 0
    (again,) = read_lines(target)
    assert again["filled"] == row["filled"] and "token_scores" in again["blanks"][1][1]
    assert capsys.readouterr().out == ""  # no table


def test_fill_file(workspace, checkpoint, tmp_path, capsys, monkeypatch):
    lines = ["青石镇位于[MASK]，[MASK]。", "", "松江", "河" * 99, "[gMASK]", "白鹿湖[MASK]和[sMASK]，[gMASK]"]
    path, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    monkeypatch.setattr(predict, "WINDOW", 4)
    options = {"model_name_or_path": checkpoint, "tgt_length": 16}
    assert workspace.predict(**options, fill_file=path, output_file=target) == 3
    rows = read_lines(target)
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["text"] for row in rows] == [lines[0], "松江[gMASK]", *lines[3:], None]
    assert [len(row["blanks"]) if "blanks" in row else None for row in rows] == [2, 1, None, 1, 3, None]
    assert rows[2]["error"] == f"102 tokens do not fit into src_length 60, shorten the text: {'河' * 40}…"
    assert rows[5]["error"] == f"{path}, line 7: not UTF-8 (byte 1); convert the file to UTF-8"
    summary = capsys.readouterr().err.splitlines()[-1]
    assert summary == f"2 of 6 records failed, their rows say why; the first: {rows[2]['error']}"
    for row in (rows[0], rows[1], rows[4]):
        workspace.predict(**options, fill=row["text"])
        alone = json.loads(capsys.readouterr().out)
        assert alone["filled"] == row["filled"]


# -- finetune_generation.py


def test_do_predict_writes_predictions_and_scores(workspace):
    run = workspace.finetune("predicted", max_steps=2, do_predict=True, test_file=workspace.folder / "dev.json")
    assert len(read_lines(run / "predictions.jsonl")) == 4
    assert "bleu-4 (char, corpus)" in json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def test_the_command_of_the_glm_example_runs(workspace, checkpoint):
    """As its users wrote it, with the model and the data local and the lengths within the tiny model's positions."""
    command = (
        "--num_train_epochs 4 --learning_rate 3e-5 --warmup_ratio 0.06 --weight_decay 0.1 --label_smoothing 0.1 "
        "--save_steps 10000 --logging_steps 1 --eval_steps 4 --src_length 60 --tgt_length 40 --min_tgt_length 20 "
        "--length_penalty 0.7 --no_repeat_ngram_size 3 --num_beams 5 --select_topk True "
        "--per_device_eval_batch_size 2 --per_device_train_batch_size 2 --max_grad_norm 1.0 "
        "--lr_scheduler_type linear --fp16 --recompute --do_train --do_eval"
    ).split()
    local = {
        "model_name_or_path": checkpoint,
        "train_file": workspace.folder / "dev.json",
        "dev_file": workspace.folder / "dev.json",
        "output_dir": workspace.folder / "example",
    }
    finetune_generation.main(list(arguments(local)) + command)
    rows = read_lines(workspace.folder / "example" / "eval" / "step-8.jsonl")
    assert len(rows) == 4
    assert (workspace.folder / "example" / "model.safetensors").is_file()


# -- bad input: an error that names it, before any training, nothing touched


def refused(workspace, match: str, **options) -> None:
    folder = workspace.folder / "refused"
    with pytest.raises(InputError, match=match):
        workspace.finetune("refused", max_steps=1, **options)
    assert not folder.exists()


def test_bad_files_are_refused(workspace):
    good = (workspace.folder / "train.json").read_bytes()
    bad = workspace.folder / "bad.json"
    refused(workspace, r"nowhere\.json: cannot be read", train_file=workspace.folder / "nowhere.json")
    for content, match in (
        (good + b'{"context": \n', r"bad\.json, line 21: not JSON"),
        (b'{"context": "a", "question": "q"}\n', r"bad\.json: no column is recognised as the answer"),
        (b'{"context": "a", "answer": "a"}\n', r"bad\.json: no column is recognised as the target"),
        (b"", r"bad\.json: no record"),
        ("答".encode("gbk"), r"bad\.json, line 1: not UTF-8"),
        (b'{"context": "a[gMASK]", "answer": "a", "question": "q"}', r"line 1, field context.*\[gMASK\]"),
        (b'{"context": "a", "answer": "a", "question": "q<|endofpiece|>"}', r"field question.*endofpiece"),
    ):
        bad.write_bytes(content)
        refused(workspace, match, train_file=bad)


def test_bad_options_are_refused(workspace, checkpoint):
    refused(workspace, r"src_length 90 \+ tgt_length 30 = 120: the model has 100 positions", src_length=90)
    refused(workspace, r"num_return_sequences 3: use 1 to 2", num_return_sequences=3)
    refused(
        workspace, r"task_name dureader: unknown; did you mean dureader_qg\?; known tasks: d", task_name="dureader"
    )
    refused(workspace, r"no such folder", model_name_or_path=workspace.folder / "nowhere")
    refused(workspace, r"unknown option learning_rat; did you mean learning_rate", learning_rat=1)
    refused(
        workspace,
        r"has no effect without --do_train",
        do_train=None,
        train_file=None,
        do_eval=True,
        resume_from_checkpoint=checkpoint,
    )
    refused(workspace, r"dataloader_drop_last True: has no effect", dataloader_drop_last=True)
    refused(workspace, r"metric_for_best_model bleu4: unknown", metric_for_best_model="bleu4")
    refused(workspace, r"tensor_parallel_degree 8: needs 8 processes", tensor_parallel_degree=8)


def test_a_model_without_weights_is_refused(workspace, checkpoint, tmp_path):
    for name in ("config.json", "cog-pretrain.model", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    refused(workspace, r"the folder has no weights", model_name_or_path=tmp_path, tokenizer_name_or_path=None)


def test_a_filled_output_folder_is_refused(workspace):
    folder = workspace.folder / "filled"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"output_dir .*filled: is not empty.*--overwrite_output_dir"):
        workspace.finetune("filled", max_steps=1)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    workspace.finetune("filled", max_steps=1, overwrite_output_dir=True)
    assert (folder / "mine.txt").read_text() == "mine"
    assert (folder / "model.safetensors").is_file()


def run_script(*command: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, **options
    )


def test_errors_are_one_line_and_a_traceback_only_with_debug(workspace, tmp_path):
    command = ["finetune_generation.py", *arguments({**workspace.options, "output_dir": tmp_path / "out"})]
    command += ["--train_file", str(tmp_path / "nowhere.json")]
    quiet = run_script(*command)
    assert quiet.returncode == 1
    assert "error: " in quiet.stderr and "nowhere.json: cannot be read" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in run_script(*command, "--debug").stderr
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_exit_code_2(tmp_path):
    done = run_script("predict.py", "--num_beam", "3")
    assert done.returncode == 2
    assert "unknown option num_beam; did you mean num_beams?" in done.stderr
    assert "Traceback" not in done.stderr
