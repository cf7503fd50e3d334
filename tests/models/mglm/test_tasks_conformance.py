"""Checks 6 to 11: the multilingual GLM's tasks as its original lays them out and scores them."""

from dataclasses import replace

import numpy as np
import pytest

from glm.data.choices import ChoiceEncoder
from glm.data.columns import RECOGNISED
from glm.data.formats import Row
from glm.data.task_records import TaskRecord, reader_of
from glm.data.task_rows import TYDIQA
from glm.data.task_table import TASKS
from glm.data.windows import WindowEncoder
from glm.evaluation.answers import ALL_PROTOCOLS, PROTOCOLS, score_answers
from glm.evaluation.answers import exact_and_f1 as score_pair
from glm.evaluation.token_rouge import token_rouge
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.mglm import FAMILY
from glm.models.protocol import GeometryOptions, TokenScores
from glm.prediction.answers import selected
from glm.prediction.choosing import Chooser, predict
from tools.reference_files import entry_of, reference_json

pytestmark = pytest.mark.conformance
CLOSE = {"rel": 1e-6, "abs": 1e-6}  # rows have six decimals; decoding hands logits out in float32


# -- cloze


def questions(task, values, *, pattern_id=None) -> list[TaskRecord]:
    """The questions of a row."""
    found = list(reader_of(task, RECOGNISED, pattern_id=pattern_id).records(Row(1, "golden, line 1", values)))
    assert all(isinstance(record, TaskRecord) for record in found)
    return found


def cloze_rows(name):
    """The golden rows of a task, each with its record."""
    for item in reference_json("mglm", f"{name}.json"):
        rows = [*item.get("patterns", []), *(item[key] for key in ("long", "cut") if key in item)]
        yield from ((item["record"], row) for row in rows)


def encoder_of(name, row, tokenizer, *, several=False) -> ChoiceEncoder:
    longest = row["seq_length"] - (2 if several else 1)
    how = {"multi_token": True} if several else {}
    return ChoiceEncoder(
        FAMILY, tokenizer, TASKS[name], src_length=longest, tgt_length=9, pattern_id=row["pattern"], **how
    )


def chosen(model, encoder, records, *, batch_size=1) -> list[dict]:
    """The rows of records."""
    found = dict(predict(Chooser(model, encoder, batch_size), dict(enumerate(records))))
    assert not any("error" in row for row in found.values())
    return [found[number] for number in range(len(records))]


def scores_of(row, name="score"):
    return {candidate["label"]: candidate[name] for candidate in row["candidates"]}


@pytest.mark.parametrize("name", ["xnli", "pawsx"])
def test_cloze_layouts_and_scores(golden_tokenizer, tiny_mglm, name):  # checks 6 and 7
    for values, row in cloze_rows(name):
        encoder = encoder_of(name, row, golden_tokenizer)
        (record,) = questions(encoder.task, values, pattern_id=row["pattern"])
        (encoded,) = encoder.encode([record])
        prompt = encoder.prompt(encoded)
        assert prompt.input_ids.tolist() == row["ids"] and prompt.position_ids.tolist() == row["positions"]
        assert len(encoder.lay_out_source(encoded)) == row["sep"]
        assert dict(zip(record.labels, (ids[0] for ids in encoded.candidates), strict=True)) == row["label_ids"]
        assert record.labels[record.right[0]] == str(row["label"])
        (found,) = chosen(tiny_mglm, encoder, [record])
        assert scores_of(found) == pytest.approx(row["scores"], **CLOSE)
        assert found["prediction"] == str(row["prediction"])


@pytest.mark.parametrize("name", ["xnli", "pawsx"])
def test_what_is_cut_is_cut_from_the_right_side(golden_tokenizer, name):  # checks 6 and 7
    cut = [row for _, row in cloze_rows(name) if row["truncated"]]
    assert cut  # their ids are compared above
    assert all(len(row["ids"]) == row["seq_length"] for row in cut)


@pytest.mark.parametrize("name", ["xnli", "pawsx"])
def test_scores_of_several_pieces(golden_tokenizer, tiny_mglm, name):  # check 8
    for values, row in cloze_rows(name):
        encoder = encoder_of(name, row, golden_tokenizer, several=True)
        (found,) = chosen(tiny_mglm, encoder, questions(encoder.task, values, pattern_id=row["pattern"]))
        want = row["multi_token"]
        assert scores_of(found) == pytest.approx(want["scores"], **CLOSE)
        assert scores_of(found, "mean") == pytest.approx(want["scores_length_penalty_1"], **CLOSE)


@pytest.mark.parametrize("several", [False, True])
def test_a_score_depends_on_no_batch_mate(golden_tokenizer, tiny_mglm, several):  # check 8
    for name in ("xnli", "pawsx"):
        rows = list(cloze_rows(name))
        longest = max((row for _, row in rows), key=lambda row: row["seq_length"])
        alike = [values for values, row in rows if row["pattern"] == longest["pattern"]]
        encoder = encoder_of(name, longest, golden_tokenizer, several=several)
        records = [q for values in alike for q in questions(encoder.task, values, pattern_id=longest["pattern"])]
        alone, together = (chosen(tiny_mglm, encoder, records, batch_size=size) for size in (1, len(records)))
        for one, other in zip(alone, together, strict=True):
            assert scores_of(one) == pytest.approx(scores_of(other), **CLOSE)


def test_the_shares_of_labels_do_not_depend_on_a_constant(golden_tokenizer, tiny_mglm):
    """Logits are no probabilities; what is said of labels is their softmax (GLM's check 10)."""
    values, row = next(cloze_rows("xnli"))
    encoder = encoder_of("xnli", row, golden_tokenizer)
    (encoded,) = encoder.encode(questions(encoder.task, values, pattern_id=row["pattern"]))
    chooser = Chooser(tiny_mglm, encoder, 1)
    (scores,) = chooser.scores([encoded])
    higher = [TokenScores(score.log_probs + 7.0, score.best) for score in scores]
    found = [scores_of(chooser._row(encoded, part), "probability") for part in (scores, higher)]
    logits = np.array([row["scores"][label] for label in found[0]])
    shares = np.exp(logits) / np.exp(logits).sum()
    for probabilities in found:
        assert list(probabilities.values()) == pytest.approx(shares, **CLOSE)


# -- questions about passages

QA = ("squad_v1", "mlqa", "tydiqa")


def language_of(row):
    """Its language; TyDiQA's are spelt out."""
    return TYDIQA.get(row["language"], row["language"])


def questions_of(name) -> dict:
    """What the golden file has of a task."""
    return entry_of(reference_json("mglm", "qa.json"), name, of="qa.json")


def of_metrics(name):
    return entry_of(reference_json("mglm", "metrics.json"), name, of="metrics.json")


def of_language(name, language):
    return replace(TASKS[name], language=language)


def windows(name, source_length, target_length, tokenizer):
    """All windows of the questions in the golden file: (language, id, window, (source, answer) that is learnt)."""
    for language, source in reference_json("mglm", "qa.json")["source"].items():
        task = of_language(name, language)
        encoder = WindowEncoder(
            FAMILY, tokenizer, task, src_length=source_length, tgt_length=target_length, allow_cut_targets=True
        )
        for encoded in encoder.encode(questions(task, source)):
            assert encoder.source_problem(encoded) is None
            learnt = {tuple(ids): target for ids, target in encoder.examples(encoded)}
            for window in encoded.windows:
                yield language, encoded.record.id, window, learnt.get(tuple(window.source_ids)), encoder


@pytest.mark.parametrize("name", QA)
def test_windows_of_training(golden_tokenizer, name):  # check 9
    golden = questions_of(name)["train"]
    lengths = golden[0]["source_length_padded"], len(golden[0]["targets"])
    languages = {language_of(row) for row in golden}
    found = [
        (language, identity, window, encoder.example_of(window.source_ids, target))
        for language, identity, window, target, encoder in windows(name, *lengths, golden_tokenizer)
        if target is not None and language in languages
    ]
    assert [(language, identity) for language, identity, _, _ in found] == [
        (language_of(row), row["qa_id"]) for row in golden
    ]
    for (_, _, window, example), row in zip(found, golden, strict=True):
        scored = [number for number, is_one in zip(row["targets"], row["loss_mask"], strict=True) if is_one]
        T = len(scored)
        assert window.source_ids == row["ids"]
        assert example.labels.tolist() == scored
        assert example.target_ids.tolist() == row["target_inputs"][:T]
        assert example.target_position_ids.tolist() == [[row["mask_index"]] * T, row["block_positions"][:T]]


@pytest.mark.parametrize("name", QA)
def test_a_test_keeps_every_window(golden_tokenizer, name):  # check 9
    """The original drops those without the answer, which only who knows it can do."""
    golden = questions_of(name)
    rows = golden["test"]
    lengths = rows[0]["source_length_padded"], len(golden["train"][0]["targets"])
    ours: dict[tuple[str, str], list] = {}
    for language, identity, window, _, _ in windows(name, *lengths, golden_tokenizer):
        ours.setdefault((language, identity), []).append(window)
    theirs: dict[tuple[str, str], list] = {}
    for row in rows:
        theirs.setdefault((language_of(row), row["qa_id"]), []).append(row)
    keeps_all = TASKS[name].no_answer is not None
    for key, expected in theirs.items():
        kept = [window for window in ours[key] if keeps_all or window.has_answer]
        assert [window.source_ids for window in kept] == [row["ids"] for row in expected]
        assert [window.has_answer for window in kept] == [row["answer"] in row["answers"] for row in expected]
    if not keeps_all:
        assert sum(map(len, ours.values())) > len(rows)


@pytest.mark.parametrize("name", QA)
def test_answers_of_windows(golden_tokenizer, tiny_mglm, name):  # check 9
    """Five beams whose rules act before the softmax; the original lets the padding of a source be seen."""
    golden = questions_of(name)
    rows, wanted = golden["test"], entry_of(golden, "beam_predictions", of=f"qa.json, {name},")
    geometry = FAMILY.geometry(golden_tokenizer, GeometryOptions("[sMASK]", closed=False))
    pads = [[golden_tokenizer.pad_token_id] * (row["source_length_padded"] - len(row["ids"])) for row in rows]
    prompts = [geometry.prompt([*row["ids"], *pad]) for row, pad in zip(rows, pads, strict=True)]
    config = GenerationConfig(
        num_beams=5,
        length_penalty=0.0,
        no_repeat_ngram_size=0,
        tgt_length=len(golden["train"][0]["targets"]),
        processor_order="before_softmax",
        early_stopping="false",
    )
    found = dict(generate(tiny_mglm, prompts, config, end_token_id=golden_tokenizer.end_token_id, batch_size=4))
    for number, row in enumerate(wanted):
        assert golden_tokenizer.decode_ids(found[number][0].tokens).strip() == row["prediction"].strip(), number


@pytest.mark.parametrize("name", QA)
def test_languages_never_pool_by_id(name):  # check 10
    """The original's F1 is 100 or 0 where one language of several is right, whichever comes first."""
    golden, sources = questions_of(name), reference_json("mglm", "qa.json")["source"]
    told = [language for language in sources if f"pooled_F1_if_only_{language}_is_right" in golden]
    for only in told:
        assert golden[f"pooled_F1_if_only_{only}_is_right"] in (0.0, 100.0)
        rows = []
        for language, source in sources.items():
            for record in questions(of_language(name, language), source):
                said = record.answers[0] if language == only else "§"
                references = list(record.answers)
                rows.append({"id": record.id, "prediction": said, "references": references, "language": language})
        assert len({row["id"] for row in rows}) < len(rows)  # the languages share their ids
        figures = score_answers(rows).figures
        for protocol in PROTOCOLS:
            found = {language: figures[f"f1 ({protocol}, {language})"] for language in sources}
            assert found == {language: 100.0 * (language == only) for language in sources}
            assert figures[f"f1 ({protocol}, mean)"] == pytest.approx(100 / len(found))


# -- figures


def test_answer_protocols():  # check 11
    for item in of_metrics("answers"):
        for protocol in ALL_PROTOCOLS:
            found = score_pair(item["prediction"], item["golds"], protocol, item["language"])
            assert found == pytest.approx(item[protocol])
            assert ALL_PROTOCOLS[protocol].tokens(item["prediction"], item["language"]) == item["tokens"][protocol]


def test_selection_of_windows():  # check 11
    for case in of_metrics("window_selection"):
        texts: dict[str, list[str]] = {}
        for identity, text in case["windows"]:
            texts.setdefault(identity, []).append(text)
        rows = [
            {"prediction": texts[identity][selected(texts[identity])], "references": answers, "language": "en"}
            for identity, answers in case["answers"].items()
        ]
        figures = score_answers(rows).figures
        assert figures["em (squad, en)"] == pytest.approx(case["em"])
        assert figures["f1 (squad, en)"] == pytest.approx(case["f1"])


def test_rouge_of_token_ids(golden_tokenizer):  # check 11
    for item in of_metrics("rouge_on_ids"):
        found = token_rouge(item["prediction"], item["reference"], golden_tokenizer.encode_text)
        want = [item[name] for name in ("rouge-1", "rouge-2", "rouge-l")]
        # where the original stops, at an empty text, the figures are 0
        assert found == pytest.approx([0.0 if isinstance(value, str) else value for value in want], abs=1e-12)
