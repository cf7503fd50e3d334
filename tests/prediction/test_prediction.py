"""What surrounds generation: rows of the predictions file, scores, what may be generated, and the checks before a run.

Most need no model.
"""

import json
import types

import pytest

from glm.data.records import BadRecord, Record
from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.search import Hypothesis
from glm.models.glm import FAMILY as GLM
from glm.models.protocol import GeometryOptions
from glm.options.data import DataArguments
from glm.options.model import ModelArguments
from glm.options.predict import PredictArguments, PredictOptions
from glm.prediction.predictions import Prediction, Text, text_row, write_predictions
from glm.prediction.scoring import Tally, score_predictions, write_scores
from glm.prediction.setup import build_encoder, build_prediction_encoder, build_writer, read_allowed_outputs
from glm.prediction.writer import Writer, predict, predict_rows
from glm.training.setup import check_metric, check_start_is_kept


def prediction_of(*texts, question="谁？", identity=7) -> Prediction:
    """Of texts with their scores."""
    record = Record(identity, "甲乙丙", "乙", question, "d.json, line 1")
    return Prediction(record, [Text(text, score, []) for text, score in texts])


# -- rows


def test_row():
    prediction = prediction_of(("什么？", -0.12345649), ("谁？", -2.0))
    assert prediction.as_row() == {
        "id": 7,
        "source": "甲乙丙",
        "answer": "乙",
        "predictions": [{"text": "什么？", "score": -0.123456}, {"text": "谁？", "score": -2.0}],
        "reference": "谁？",
    }
    assert prediction.best == "什么？"


def test_row_without_reference():
    row = prediction_of(("甲", 0.0), question=None, identity="a").as_row()
    assert list(row) == ["id", "source", "answer", "predictions"] and row["id"] == "a"


def test_row_without_hypotheses():
    prediction = prediction_of()
    assert prediction.best == "" and prediction.as_row()["predictions"] == []


def test_row_of_a_record_that_failed():
    record = Record("a", "甲乙丙", "乙", "谁？", "d.json, line 3")
    assert Prediction(record, [], "d.json, line 3: too long").as_row() == {
        "id": "a",
        "source": "甲乙丙",
        "answer": "乙",
        "predictions": [],
        "reference": "谁？",
        "error": "d.json, line 3: too long",
    }
    assert Prediction(BadRecord(7, "d.json, line 7", "not JSON"), [], "not JSON").as_row() == {
        "id": 7,
        "predictions": [],
        "error": "not JSON",
    }


def test_row_with_token_scores():
    text = Text("甲乙", -1.5, [("▁甲", -0.25), ("乙", -1.0000004), ("<|endofpiece|>", -0.1234567)])
    assert text_row(text, token_scores=True) == {
        "text": "甲乙",
        "score": -1.5,
        "token_scores": [["▁甲", -0.25], ["乙", -1.0], ["<|endofpiece|>", -0.123457]],
    }
    assert text_row(text, token_scores=False) == {"text": "甲乙", "score": -1.5}


def test_written_lines(tmp_path):
    path = tmp_path / "new" / "folder" / "out.jsonl"
    predictions = [prediction_of(("第一\n行\u2028", -1.0), identity=2), prediction_of(("b", -2.0), question=None)]
    write_predictions(path, predictions)
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines[-1] == "" and len(lines) == 3
    assert [json.loads(line) for line in lines[:-1]] == [prediction.as_row() for prediction in predictions]
    assert "甲乙丙" in lines[0]


def test_written_scores(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    scores = score_predictions([prediction_of(("谁？", -1.0))]).with_figures({"failed records": 0})
    write_scores(path, scores)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written == scores.as_json() and written["exact match"] == 100 and written["failed records"] == 0
    assert written["signatures"]["exact match"].startswith("nrefs:1|norm:nfkc")
    assert written["by source length (characters)"]["1-64"]["records"] == 1


# -- scores


def figures_of(predictions) -> dict[str, float]:
    return score_predictions(predictions).figures


def test_scores_are_of_the_best_text():
    scores = figures_of(
        [
            prediction_of(("白鹿湖在哪里", -0.1), ("别的", -0.2), question="白鹿湖在哪里"),
            prediction_of(question="松江有多长"),
        ]
    )
    assert scores["rouge-l (char)"] == pytest.approx(50.0)
    assert scores["empty predictions"] == 1
    assert scores["generated length"] == 3.0


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("白鹿湖在哪里?", "白鹿湖在哪里？"),
        ("人口:3,000万(约)", "人口：３，０００万（约）"),
        ("白鹿湖ＡＢ？", "白鹿湖AB?"),
    ],
)
def test_width_of_characters_does_not_count(text, reference):
    scores = figures_of([prediction_of((text, -1.0), question=reference)])
    assert scores["bleu-4 (char, corpus)"] == pytest.approx(100)
    assert scores["rouge-l (char)"] == pytest.approx(100)


def test_other_differences_count():
    scores = figures_of([prediction_of(("白鹿湖在那里?", -1.0), question="白鹿湖在哪里？")])
    assert scores["rouge-l (char)"] == pytest.approx(100 * 6 / 7)


def row_of(text, reference="白鹿湖在哪里", **more):
    texts = [{"text": text, "score": -1.0}]
    return {"id": 1, "source": "甲乙丙", "answer": "乙", "predictions": texts, "reference": reference, **more}


def test_tally_scores_as_all_at_once():
    rows = [row_of("白鹿湖在哪里"), row_of("松江在哪里", "松江有多长？"), row_of("人口?", "人口？")]
    predictions = [prediction_of((row["predictions"][0]["text"], -1.0), question=row["reference"]) for row in rows]
    expected = score_predictions(predictions).with_figures({"failed records": 0})
    for order in (rows, rows[::-1]):
        tally = Tally()
        for row in order:
            tally.add(row)
        assert tally.scores() == expected and tally.rows == 3


def test_tally_counts_what_failed_and_does_not_score_it():
    tally = Tally()
    tally.add(row_of("白鹿湖在哪里"))
    tally.add({"id": 2, "predictions": [], "error": "line 2"})
    tally.add({"id": 3, "source": "a", "answer": "a", "predictions": [], "reference": "b", "error": "line 3"})
    tally.add(row_of("白鹿湖在哪里") | {"predictions": []})  # every beam was lost: an empty text, not a failure
    assert (tally.rows, tally.failed, tally.first_error) == (4, 2, "line 2")
    figures = tally.scores().figures
    assert (figures["records"], figures["failed records"], figures["empty predictions"]) == (2, 2, 1)
    assert figures["rouge-l (char)"] == pytest.approx(50.0)


def test_tally_of_failures_only():
    tally = Tally()
    for number in (1, 2):
        tally.add({"id": number, "predictions": [], "error": f"d.json, line {number}: not JSON"})
    with pytest.raises(InputError) as caught:
        tally.scores()
    assert str(caught.value) == "all 2 records failed, the first with: d.json, line 1: not JSON"


def test_tally_without_references():
    tally = Tally()
    tally.add({"id": 1, "predictions": [{"text": "a", "score": -1.0}]})
    with pytest.raises(InputError, match="no record has a reference"):
        tally.scores()


# -- checks before a run


@pytest.mark.parametrize(("src_length", "tgt_length", "fits"), [(608, 416, True), (608, 417, False), (1024, 1, False)])
def test_positions(tiny_config, tokenizer, src_length, tgt_length, fits):
    config = tiny_config(max_sequence_length=1024)
    geometry = GLM.geometry(tokenizer, GeometryOptions("[gMASK]"))
    assert geometry.room(config, src_length) == 1024 - src_length
    if fits:
        geometry.check_lengths(config, src_length, tgt_length)
        return
    with pytest.raises(InputError) as caught:
        geometry.check_lengths(config, src_length, tgt_length)
    assert str(caught.value) == (
        f"src_length {src_length} + tgt_length {tgt_length} = {src_length + tgt_length}: the model has 1024 positions "
        "(max_sequence_length); shorten one of them"
    )


def test_encoder_follows_the_arguments(tokenizer):
    data = DataArguments(src_length=99, no_block_position=True)
    encoder = build_encoder(GLM, tokenizer, data, GenerationConfig(tgt_length=33))
    assert (encoder.src_length, encoder.tgt_length, encoder.geometry.infilling.block_position) == (99, 33, False)
    assert encoder.template.target_prefix == "在已知答案的前提下，问题："
    encoder = build_encoder(GLM, tokenizer, DataArguments(), GenerationConfig())
    assert (encoder.src_length, encoder.tgt_length, encoder.geometry.infilling.block_position) == (608, 160, True)
    with pytest.raises(InputError, match="tgt_length 33: no room for min_tgt_length 30 tokens"):
        build_encoder(GLM, tokenizer, DataArguments(), GenerationConfig(tgt_length=33, min_tgt_length=30))
    with pytest.raises(
        InputError, match="task_name summaries: unknown; did you mean summary.; known tasks: dureader_qg"
    ):
        build_encoder(GLM, tokenizer, DataArguments(task_name="summaries"), GenerationConfig())


def test_a_model_in_the_folder_to_be_overwritten_is_kept(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    inside = str(tmp_path / "checkpoint-2")
    with pytest.raises(InputError, match="model_name_or_path .*checkpoint-2: lies in the output_dir"):
        check_start_is_kept(ModelArguments(model_name_or_path=inside), str(tmp_path))
    with pytest.raises(InputError, match="tokenizer_name_or_path .*checkpoint-2: lies in the output_dir"):
        check_start_is_kept(ModelArguments("THUDM/glm-large-chinese", inside), str(tmp_path))
    check_start_is_kept(ModelArguments(model_name_or_path=inside), str(tmp_path / "elsewhere"))


def test_metric_for_best_model():
    for name in (None, "loss", "eval_loss", "bleu-4 (char, corpus)", "eval_rouge-l (jieba)"):
        check_metric(name)
    with pytest.raises(
        InputError,
        match=r"metric_for_best_model bleu-4: unknown; did you mean bleu-4 \(char, corpus\) or bleu-4 \(jieba, c",
    ):
        check_metric("bleu-4")


# -- what may be generated


def test_ids_that_are_no_text_are_never_generated(tokenizer):
    """340 pieces, of which 0 to 2 are unknown and control pieces; eop is 347; the vocabulary is padded to 384."""
    model = types.SimpleNamespace(config=types.SimpleNamespace(vocab_size=384, banned_ids=[17, 349]))
    encoder = build_encoder(GLM, tokenizer, DataArguments(), GenerationConfig())
    writer = Writer(model, encoder, GenerationConfig(), batch_size=1)
    assert writer.banned_ids == [0, 1, 2, 17, *range(340, 347), *range(348, 384)]


def test_text_of_a_hypothesis(tokenizer):
    encoder = build_encoder(GLM, tokenizer, DataArguments(), GenerationConfig())
    writer = Writer(None, encoder, GenerationConfig(), batch_size=1, prefix_ids=tokenizer.encode_text("青石镇"))
    ids = tokenizer.encode_text("在哪里")
    pieces = ["▁", "在", "哪", "里"]
    assert tokenizer.convert_ids_to_tokens(ids) == pieces
    whole = writer.text(Hypothesis(tuple(ids), -3.5, (-1.0, -2.0, -3.0, -4.0, -5.0)))
    assert whole == Text(
        "青石镇 在哪里", -3.5, [("▁", -1.0), ("在", -2.0), ("哪", -3.0), ("里", -4.0), ("<|endofpiece|>", -5.0)]
    )
    cut = writer.text(Hypothesis(tuple(ids), -3.5, (-1.0, -2.0, -3.0, -4.0)))
    assert [piece for piece, _ in cut.token_scores] == pieces
    assert writer.text(Hypothesis((), -0.5, (-0.5,))) == Text("青石镇", -0.5, [("<|endofpiece|>", -0.5)])


@pytest.fixture
def allowed(tokenizer, tmp_path):
    """A function: the ids of a file with these bytes."""

    def read(content: bytes, *, most: int = 10, **options) -> list[list[int]]:
        (tmp_path / "allowed.txt").write_bytes(content)
        options = {"tgt_length": 20, **options}
        return read_allowed_outputs(str(tmp_path / "allowed.txt"), tokenizer, GenerationConfig(**options), most=most)

    return read


def test_allowed_outputs_of_a_file(allowed, tokenizer):
    content = "\ufeff  青石镇 \r\n\n \t\n白鹿湖\n青石镇\n松江在哪里".encode()
    assert allowed(content) == [tokenizer.encode_text(text) for text in ("青石镇", "白鹿湖", "松江在哪里")]


def test_longest_and_shortest_allowed_output(allowed):
    assert [len(ids) for ids in allowed("在哪里\n青石镇".encode(), most=4, min_tgt_length=2)] == [4, 2]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, ": no output in it; one per line is expected"),
        (b" \n\t\n", {}, ": no output in it; one per line is expected"),
        (
            "青石镇\n\n在哪里".encode(),
            {"most": 3},
            ", line 3: 在哪里 can never be generated: tgt_length 20 leaves room for 3 tokens, it has 4",
        ),
        (
            "在哪里\n青石镇".encode(),
            {"min_tgt_length": 3},
            ", line 2: 青石镇 can never be generated: min_tgt_length 3 forbids its 2 tokens",
        ),
        (
            b"ok\nabcabc",
            {"no_repeat_ngram_size": 3},
            ", line 2: abcabc can never be generated: no_repeat_ngram_size 3 forbids what repeats in it; 0 allows all",
        ),
        (
            b"aa",
            {"no_repeat_ngram_size": 1},
            ", line 1: aa can never be generated: no_repeat_ngram_size 1 forbids what repeats in it; 0 allows all",
        ),
        ("龘".encode(), {}, ", line 1: 龘 can never be generated: the tokenizer has no pieces for all of it"),
    ],
)
def test_allowed_outputs_that_cannot_be(allowed, tmp_path, content, options, message):
    with pytest.raises(InputError) as caught:
        allowed(content, **options)
    assert str(caught.value) == f"{tmp_path / 'allowed.txt'}{message}"


def test_allowed_outputs_that_repeat_less_than_is_forbidden(allowed):
    assert len(allowed(b"abab", no_repeat_ngram_size=3)) == 1
    assert len(allowed(b"abcabc", no_repeat_ngram_size=0)) == 1


def test_allowed_outputs_that_cannot_be_read(allowed, tokenizer, tmp_path):
    for path in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(InputError, match=f"{path}: cannot be read as text"):
            read_allowed_outputs(str(path), tokenizer, GenerationConfig(), most=10)
    with pytest.raises(InputError, match=r"allowed\.txt, line 1: not UTF-8 \(byte 1\)"):
        allowed("青石镇".encode("gbk"))


# -- the writer


@pytest.fixture
def model_file(tmp_path):
    settings = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "max_sequence_length": 100}
    (tmp_path / "model.json").write_text(json.dumps(settings), encoding="utf-8")
    return str(tmp_path / "model.json")


@pytest.fixture
def build(model_file, sentencepiece_file):
    """A function: `build_writer` with these options of prediction and decoding."""

    def build(*, generation=None, **options) -> Writer:
        config = GenerationConfig(**{"tgt_length": 30, "num_beams": 2, **(generation or {})})
        model, data = ModelArguments(model_file, str(sentencepiece_file)), DataArguments(src_length=60)
        prediction = PredictArguments(device="cpu", **options)
        options = PredictOptions(model, data, config, prediction, inherited={}, argv=[])
        return build_writer(options, build_prediction_encoder(options))

    return build


def test_writer_follows_the_arguments(build, tokenizer, tmp_path):
    (tmp_path / "allowed.txt").write_text("松江", encoding="utf-8")
    writer = build(prefix="青石镇", allowed_outputs_file=str(tmp_path / "allowed.txt"), per_device_eval_batch_size=3)
    assert writer.prefix_ids == tokenizer.encode_text("青石镇") and writer.batch_size == 3
    assert writer.allowed_outputs == [tokenizer.encode_text("松江")]
    assert (writer.encoder.src_length, writer.config.tgt_length) == (60, 30)
    assert not writer.model.training
    plain = build()
    assert (list(plain.prefix_ids), plain.allowed_outputs) == ([], [])


@pytest.mark.parametrize(
    ("fill", "tgt_length", "min_tgt_length", "fits"),
    [  # the opening has 13 tokens, the prefix 2; one more for eop, and at least one to generate
        (None, 17, 0, True),
        (None, 16, 0, False),
        (None, 20, 4, True),
        (None, 20, 5, False),
        ("甲[MASK]", 32, 18, True),  # a blank has no opening
    ],
)
def test_prefix_needs_room(build, fill, tgt_length, min_tgt_length, fits):
    options = {"generation": {"tgt_length": tgt_length, "min_tgt_length": min_tgt_length}, "prefix": "青石镇"}
    if fits:
        build(fill=fill, **options)
        return
    with pytest.raises(InputError, match=rf"prefix 青石镇 \(2 tokens\): leaves no room .* tgt_length {tgt_length};"):
        build(fill=fill, **options)


def test_message_of_a_prefix_that_is_too_long(build):
    with pytest.raises(InputError) as caught:
        build(generation={"tgt_length": 16, "min_tgt_length": 2}, prefix="青石镇")
    assert str(caught.value) == (
        "prefix 青石镇 (2 tokens): leaves no room for min_tgt_length 2 tokens and eop in tgt_length 16; "
        "raise tgt_length"
    )


def test_longest_allowed_output_of_a_writer(build, tmp_path):
    """tgt_length 20 less 13 of the opening, 2 of the prefix and 1 of eop."""
    path = tmp_path / "allowed.txt"
    options = {"generation": {"tgt_length": 20}, "prefix": "青石镇", "allowed_outputs_file": str(path)}
    path.write_text("在哪里", encoding="utf-8")
    assert [len(ids) for ids in build(**options).allowed_outputs] == [4]
    path.write_text("在哪里有", encoding="utf-8")
    with pytest.raises(InputError, match="tgt_length 20 leaves room for 4 tokens, it has 5"):
        build(**options)
    path.write_text("在哪里有多少人口在哪有少", encoding="utf-8")  # 12 tokens; blanks have no opening
    assert len(build(**options, fill="甲[MASK]").allowed_outputs[0]) == 12


RECORDS = [
    Record(
        number, f"{place}位于河的北岸，人口大约{number}万。", f"{number}万", "有多少人口？", f"d.json, line {number}"
    )
    for number, place in enumerate(["青石镇", "白鹿湖", "松江", "云台山", "金沙岛"], start=1)
]


def test_bad_records_do_not_disturb_the_others(build):
    writer = build()
    good = dict(predict_rows(writer, dict(enumerate(RECORDS))))
    bad = {
        7: BadRecord("x", "d.json, line 8", "d.json, line 8: not JSON"),
        -1: Record(9, "河" * 80, "河" * 80, None, "d.json, line 9"),
    }
    found = list(predict_rows(writer, {7: bad[7], **dict(enumerate(RECORDS)), -1: bad[-1]}))
    assert [number for number, _ in found[:2]] == [7, -1]  # what is unusable comes first
    assert found[0][1] == {"id": "x", "predictions": [], "error": "d.json, line 8: not JSON"}
    assert found[1][1]["error"] == "d.json, line 9, field answer: does not fit into src_length 60"
    assert found[1][1]["predictions"] == [] and found[1][1]["answer"] == "河" * 80
    assert dict(found[2:]) == good and len(good) == 5


def test_predict_in_the_order_of_records(build):
    writer = build()
    records = sorted(RECORDS, key=lambda record: len(record.source))
    predictions = predict(writer, records, progress=False)
    assert [prediction.record for prediction in predictions] == records
    one_by_one = [predict(writer, [record], progress=False)[0].best for record in records]
    assert [prediction.best for prediction in predictions] == one_by_one


def test_what_is_unusable_has_an_error_in_its_place(build):
    unusable = [Record(9, "河" * 80, "河" * 80, None, "d.json, line 9"), BadRecord("x", "d.json, line 2", "no JSON")]
    writer = build()
    predictions = predict(writer, [unusable[0], *RECORDS, unusable[1]], progress=False)
    assert [prediction.record for prediction in predictions] == [unusable[0], *RECORDS, unusable[1]]
    assert predictions[0].error == "d.json, line 9, field answer: does not fit into src_length 60"
    assert predictions[-1].error == "no JSON" and predictions[-1].texts == []
    assert [prediction.best for prediction in predictions[1:-1]] == [
        prediction.best for prediction in predict(writer, RECORDS, progress=False)
    ]
