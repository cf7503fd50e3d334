"""GLM's tasks beside generation against numbers of the original's own code (section 8 of their fact sheet: checks 6 to
12 and 14), in float64. Every expected number is read from the files."""

import json
import math
from collections.abc import Iterator

import numpy as np
import paddle
import pytest

from glm.data.choices import ChoiceEncoder
from glm.data.columns import RECOGNISED
from glm.data.formats import Row
from glm.data.pairs import PairCollator, PairEncoder
from glm.data.task_records import TaskRecord, reader_of
from glm.data.task_table import TASKS, find_frame
from glm.data.tasks import Pattern
from glm.errors import InputError
from glm.evaluation.language_model import windows_of
from glm.models.glm import FAMILY
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import GLMGeometry
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.models.glm.tokenization import GLMSentencePieceTokenizer
from glm.models.protocol import GeometryOptions
from glm.modules.classifier import ClassificationHead
from glm.prediction.choosing import Chooser, predict, score
from glm.prediction.perplexity import measure
from glm.training.choice_loss import FLOOR, choice_losses
from tools.reference_files import entry_of, reference_json, reference_paths, reference_tensors

pytestmark = pytest.mark.conformance
CLOSE = 1e-9  # in float64
TO_OURS = {
    "word_embeddings.weight": "glm.word_embeddings.weight",
    "block_position_embeddings.weight": "glm.transformer.block_position_embeddings.weight",
}


@pytest.fixture(scope="module")
def pieces() -> GLMSentencePieceTokenizer:
    """The tokenizer of the golden numbers."""
    return GLMSentencePieceTokenizer(str(reference_paths("mglm", "*.model")[0]))


@pytest.fixture(scope="module")
def geometry(pieces) -> GLMGeometry:
    return FAMILY.geometry(pieces, GeometryOptions("[MASK]"))


@pytest.fixture(scope="module")
def model() -> Iterator[GLMForConditionalGeneration]:
    """The model of the golden numbers, in float64."""
    arrays, metadata = reference_tensors(reference_paths("mglm", "tiny-*.safetensors")[0])
    sizes = json.loads(metadata["config"])
    config = GLMConfig(
        num_layers=sizes["layers"],
        hidden_size=sizes["hidden"],
        num_attention_heads=sizes["heads"],
        vocab_size=sizes["vocab"],
        max_sequence_length=sizes["maxpos"] - 1,
        embedding_dropout_prob=0.0,
        attention_dropout_prob=0.0,
        output_dropout_prob=0.0,
    )
    model = GLMForConditionalGeneration(config)
    ours = {}
    for name, array in arrays.items():
        known = next((own for ending, own in TO_OURS.items() if name.endswith(ending)), f"glm.{name}")
        is_linear = array.ndim == 2 and "embeddings" not in name
        ours[known] = array.T if is_linear else array
    assert ours.keys() == model.state_dict().keys()
    for name, weight in model.named_parameters():
        weight.set_value(np.ascontiguousarray(ours[name]))
    model.to(dtype="float64")
    before = paddle.get_default_dtype()
    paddle.set_default_dtype("float64")
    model.eval()
    yield model
    paddle.set_default_dtype(before)


def cloze(name: str) -> list[dict]:
    """The items of a kind in cloze.json."""
    return entry_of(reference_json("glm-tasks", "cloze.json"), name, of="cloze.json")


def chinese(name: str):
    """An entry of chinese-cloze.json."""
    return entry_of(reference_json("glm-tasks", "chinese-cloze.json"), name, of="chinese-cloze.json")


def scored_places(row: dict) -> slice:
    """Where the targets of a row are scored."""
    if "loss_mask" in row:
        places = np.flatnonzero(row["loss_mask"])
        return slice(int(places[0]), int(places[-1]) + 1)
    return slice(row.get("first scored", row["sep"]), len(row["targets"]))


def scored_part(row: dict) -> list[int]:
    """The targets of a row that are scored."""
    return row["targets"][scored_places(row)]


def choice_items(pieces: GLMSentencePieceTokenizer) -> list[dict]:
    """The items of multiple choice; only the choice's own pieces are scored."""
    items = reference_json("glm-tasks", "multiple-choice.json")
    for item in items:
        for row, choice in zip(item["choices"], item["item"]["choices_pretokenized"], strict=True):
            row["first scored"] = len(row["targets"]) - len(pieces.encode_text(choice))
    return items


def prompt_of(geometry: GLMGeometry, row: dict):
    """The prompt of a row: Part A, and what of Part B stands before the scored part."""
    return geometry.prompt(row["ids"][: row["sep"]], opening=row["ids"][row["sep"] + 1 : scored_places(row).start + 1])


def sums(model, geometry, row_lists):
    """The summed log-probabilities of rows that share their prompt, [items][rows]."""
    prompts = [prompt_of(geometry, rows[0]) for rows in row_lists]
    found = model.log_probs(prompts, [[scored_part(row) for row in rows] for rows in row_lists])
    return [[float(scores.log_probs.sum()) for scores in row] for row in found]


def test_scores_of_one_piece_are_the_logits_at_sop(model, geometry):  # check 9
    for item in cloze("single"):
        prompt = geometry.prompt(item["ids"][: item["sep"]])
        assert prompt.input_ids.tolist() == item["ids"] and prompt.position_ids.tolist() == item["positions"]
        logits = model.prefill([prompt])[0][0]
        ids = list(item["label_ids"].values())
        np.testing.assert_allclose(logits[ids], list(item["scores"].values()), rtol=1e-5, atol=1e-5)
        (found,) = model.log_probs([prompt], [[[number] for number in ids]])
        log_probs = [float(scores.log_probs[0]) for scores in found]
        np.testing.assert_allclose(log_probs, list(item["log_probabilities"].values()), rtol=0, atol=CLOSE)


def test_scores_of_several_pieces(model, geometry, pieces):  # checks 9 and 11
    items = cloze("multi") + choice_items(pieces)
    found = sums(model, geometry, [item["choices"] for item in items])  # all in one batch
    for item, scores in zip(items, found, strict=True):
        np.testing.assert_allclose(scores, item["scores"], rtol=0, atol=1e-8)
        lengths = [len(scored_part(row)) for row in item["choices"]]
        np.testing.assert_allclose(np.array(scores) / lengths, item["scores_length_penalty_1"], rtol=0, atol=CLOSE)
        assert int(np.argmax(scores)) == item["prediction"]


def test_a_permutation_of_the_choices_permutes_the_scores(model, geometry, pieces):  # check 11
    for item in choice_items(pieces):
        order = np.random.default_rng(0).permutation(len(item["choices"]))
        (scores,) = sums(model, geometry, [[item["choices"][place] for place in order]])
        np.testing.assert_allclose(scores, np.array(item["scores"])[order], rtol=0, atol=1e-8)


def test_last_words(model, geometry):  # check 8
    for case in reference_json("glm-tasks", "lambada.json"):
        rows = case["records"]
        found = model.log_probs([prompt_of(geometry, row) for row in rows], [[scored_part(row)] for row in rows])
        for row, (scores,) in zip(rows, found, strict=True):
            assert scores.best.tolist() == row["argmax"]
            assert (scores.best.tolist() == row["answer"]) == row["correct"]
            assert scores.log_probs.sum() == pytest.approx(row["sum_log_p"], abs=1e-8)
        right = [row["correct"] for row in rows]
        assert 100 * sum(right) / len(right) == pytest.approx(case["accuracy"])


def test_windows_of_a_language_model(model, geometry):  # check 6
    for case in reference_json("glm-tasks", "language-model.json"):
        windows = case["windows"]
        found = sums(model, geometry, [[row] for row in windows])
        losses = [-scores[0] for scores in found]
        np.testing.assert_allclose(losses, [row["loss"] for row in windows], rtol=0, atol=1e-6)
        scored = sum(len(scored_part(row)) for row in windows)
        assert scored == case["scored_tokens"]
        assert math.exp(sum(losses) / scored) == pytest.approx(case["ppl_over_scored"], rel=1e-9)


# -- layouts


def question(task, record, *, pattern_id=None, need_label=True) -> TaskRecord:
    """The first question of a record."""
    reader = reader_of(task, RECOGNISED, pattern_id=pattern_id, need_label=need_label)
    (found,) = reader.records(Row(1, "golden, line 1", record))
    assert isinstance(found, TaskRecord), found
    return found


def encoder_of(pieces, name, *, source, pattern=None, target=64, **how) -> ChoiceEncoder:
    return ChoiceEncoder(FAMILY, pieces, TASKS[name], src_length=source, tgt_length=target, pattern_id=pattern, **how)


def test_cloze_layouts_of_one_piece(pieces):  # check 9
    for item in cloze("single"):
        encoder = encoder_of(pieces, item["task"], source=item["seq_length"] - 1, pattern=item["pattern"])
        record = question(encoder.task, item["record"], pattern_id=item["pattern"])
        (encoded,) = encoder.encode([record])
        assert encoder.is_single and record.labels == tuple(item["label_ids"])
        assert encoder.prompt(encoded).input_ids.tolist() == item["ids"]
        assert encoder.prompt(encoded).position_ids.tolist() == item["positions"]
        assert encoded.candidates == [[number] for number in item["label_ids"].values()]
        assert record.labels[record.right[0]] == item["label"]


def test_cloze_layouts_of_several_pieces(pieces):  # check 9
    for item in cloze("multi"):
        for place, row in enumerate(item["choices"]):
            encoder = encoder_of(
                pieces,
                item["task"],
                source=item["seq_length"] - len(scored_part(row)),
                pattern=item["pattern"],
                multi_token=True,
            )
            record = question(encoder.task, item["record"], pattern_id=item["pattern"])
            (encoded,) = encoder.encode([record])
            assert [*encoder.lay_out_source(encoded), row["ids"][row["sep"]]] == row["ids"][: row["sep"] + 1]
            assert encoded.candidates[place] == scored_part(row)
            assert record.right == (item["label_index"],)


def chosen(model, encoder, record) -> dict:
    """The row of a record."""
    ((_, row),) = predict(Chooser(model, encoder, 1), {0: record})
    assert "error" not in row
    return row


def test_multiple_choice_from_a_file(pieces, model):  # check 11
    for item in reference_json("glm-tasks", "multiple-choice.json"):
        longest = max(len(pieces.encode_text(choice)) for choice in item["item"]["choices_pretokenized"])
        encoder = encoder_of(
            pieces,
            "multichoice",
            source=item["seq_length"] - longest,
            unidirectional=item["unidirectional"],
        )
        record = question(encoder.task, item["item"])
        (encoded,) = encoder.encode([record])
        given = encoder.prompt(encoded).input_ids.tolist()
        for row in item["choices"]:
            assert row["ids"][: len(given)] == given
        found = chosen(model, encoder, record)
        scores = [candidate["score"] for candidate in found["candidates"]]
        np.testing.assert_allclose(scores, item["scores"], rtol=0, atol=1e-5)
        assert found["prediction"] == record.labels[item["prediction"]]
        assert found["reference"] == record.labels[item["item"]["label"]]


def test_last_words_from_a_file(pieces, model):  # check 8
    for case in reference_json("glm-tasks", "lambada.json"):
        rows = []
        for item in case["records"]:
            source = case["seq_length"] - len(item["answer"])
            encoder = encoder_of(pieces, "lambada", source=source, unidirectional=case["unidirectional"])
            record = question(encoder.task, {"text": item["text"]})
            (encoded,) = encoder.encode([record])
            given = encoder.prompt(encoded).input_ids.tolist()
            assert item["ids"][: len(given)] == given and encoded.candidates == [item["answer"]]
            row = chosen(model, encoder, record)
            assert (row["prediction"] == row["reference"]) == item["correct"]
            rows.append(row)
        assert score(rows).figures["accuracy"] == pytest.approx(case["accuracy"])


# -- cog-pretrain's pieces


@pytest.fixture(scope="module")
def cog_pretrain(real_data) -> GLMSentencePieceTokenizer:
    return GLMSentencePieceTokenizer(str(real_data / "tokenizers" / "cog-pretrain.model"))


def test_chinese_layouts(cog_pretrain):  # check 14
    names = {"cmnli / ocnli / xnli zh": ("cmnli", "ocnli", "xnli_zh"), "tnews": ("tnews",), "c3": ("c3",)}
    for item in chinese("proposals"):
        for name in names.get(item["task"], (item["task"],)):
            encoder = encoder_of(cog_pretrain, name, source=200)
            record = question(encoder.task, item["record"], need_label=False)
            (encoded,) = encoder.encode([record])
            assert encoder.prompt(encoded).input_ids.tolist() == item["ids"]
            assert encoder.prompt(encoded).position_ids.tolist() == item["positions"]
            answers = [answer["ids"] for answer in item["answers"]]
            ends = [] if encoder.is_single else [cog_pretrain.end_token_id]
            known = {tuple(ids) for ids in encoded.candidates}
            assert known == {(*ids, *ends) for ids in answers}


def test_chinese_layouts_of_the_original(cog_pretrain):  # check 14
    item = chinese("tnews_with_106_replaced")
    encoder = encoder_of(cog_pretrain, "tnews", source=200, pattern=1)
    record = question(encoder.task, item, pattern_id=1)
    (encoded,) = encoder.encode([record])
    assert encoder.prompt(encoded).input_ids.tolist() == item["ids"]
    assert dict(zip(record.labels, (ids[0] for ids in encoded.candidates), strict=True)) == item["label_ids"]
    for item in chinese("cluewsc"):
        encoder = encoder_of(cog_pretrain, "cluewsc", source=200, pattern=item["pattern"])
        record = question(encoder.task, item, pattern_id=item["pattern"])
        (encoded,) = encoder.encode([record])
        assert encoder.prompt(encoded).input_ids.tolist() == item["ids"]
        assert dict(zip(record.labels, (ids[0] for ids in encoded.candidates), strict=True)) == item["label_ids"]
    for item in cloze("layouts_cog_pretrain"):
        if "ids" not in item:  # where the original stops
            continue
        encoder = encoder_of(cog_pretrain, item["task"], source=200, pattern=item["pattern"])
        record = question(encoder.task, item["record"], pattern_id=item["pattern"])
        (encoded,) = encoder.encode([record])
        assert encoder.prompt(encoded).input_ids.tolist() == item["ids"]
        assert encoder.prompt(encoded).position_ids.tolist() == item["positions"]
        assert dict(zip(record.labels, (ids[0] for ids in encoded.candidates), strict=True)) == item["label_ids"]


def test_a_word_of_several_pieces_is_refused_as_one(cog_pretrain):  # check 14
    words = chinese("original_verbalizers")["tnews"]
    several = {label: word for label, word in words.items() if len(word["ids"]) > 1}
    assert several
    task = TASKS["tnews"]
    pattern = Pattern(task.pattern(None).parts, {label: word["text"] for label, word in words.items()})
    with pytest.raises(InputError) as told:
        ChoiceEncoder(FAMILY, cog_pretrain, task.with_only(pattern), src_length=99, tgt_length=9, multi_token=False)
    for word in several.values():
        listed = " ".join(map(cog_pretrain.token_of, word["ids"]))
        assert f"{word['text']} is {listed}" in str(told.value)
    for text, expected in chinese("pieces").items():
        assert [cog_pretrain.token_of(number) for number in cog_pretrain.encode_text(text)] == expected


@pytest.mark.parametrize("batch_size", [1, 4])
def test_perplexity(model, pieces, batch_size):  # checks 6 and 7
    geometry = FAMILY.geometry(pieces, GeometryOptions("[gMASK]"))
    for case in reference_json("glm-tasks", "language-model.json"):
        length = case["seq_length"] - 1
        step = case["overlap"] or length
        windows = [
            window
            for ids in case["tokens"]
            for window in windows_of(ids, length=length, step=step, unidirectional=case["unidirectional"])
        ]
        for window, row in zip(windows, case["windows"], strict=True):
            prompt = geometry.prompt(
                geometry.lay_out_blanks([window.source, "[gMASK]"] if window.source else ["[gMASK]"]),
                opening=window.opening,
            )
            assert row["ids"][: len(prompt)] == prompt.input_ids.tolist() and window.scored == scored_part(row)
        found = measure(
            model,
            geometry,
            pieces,
            case["texts"],
            blank="[gMASK]",
            length=length,
            step=step,
            unidirectional=case["unidirectional"],
            batch_size=batch_size,
        )
        assert found["windows"] == len(case["windows"]) and found["scored ids"] == case["scored_tokens"]
        assert found["sum of losses"] == pytest.approx(case["sum_of_losses"], abs=1e-6)
        assert found["perplexity (id)"] == pytest.approx(case["ppl_over_scored"], rel=1e-8)
        # never capped, where the original is at exp(20)
        if words := case["num_words"] - len(case["texts"]):
            assert found["perplexity (word)"] == pytest.approx(math.exp(case["sum_of_losses"] / words))
        else:  # a text without blanks is one word, at which the original divides by zero
            assert "perplexity (word)" not in found


def test_adapet_and_cross_entropy_of_the_original():  # check 9
    for item in cloze("single"):
        log_probs = np.array([list(item["log_probabilities"].values())])
        right = np.array([[label == item["label"] for label in item["label_ids"]]], np.int64)
        lowest = np.minimum(log_probs[right == 0] - FLOOR, 0).sum()  # what the original pushes down without bound
        for name, loss in (("cross_entropy", item["cross_entropy"]), ("adapet", item["adapet_loss"] - lowest)):
            (found,) = choice_losses(paddle.to_tensor(log_probs), right, name).numpy()
            assert found == pytest.approx(loss, abs=CLOSE)
    for item in cloze("multi"):
        right = np.eye(len(item["scores"]), dtype=np.int64)[[item["label_index"]]]
        for name, loss in item["losses"].items():
            (found,) = choice_losses(paddle.to_tensor(np.array([item["scores"]])), right, name).numpy()
            assert found == pytest.approx(loss, abs=1e-8)


def test_classification_head(model, pieces):  # check 12
    (path,) = reference_paths("glm-tasks", "classification-head.safetensors")
    arrays, _ = reference_tensors(path)
    head = ClassificationHead(arrays["pool_layer.weight"].shape[1], len(arrays["multichoice_head.bias"]))
    for name, weight in head.named_parameters():
        array = arrays[name].astype("float64")
        weight.set_value(np.ascontiguousarray(array.T if array.ndim == 2 else array))
    head.eval()
    for item in reference_json("glm-tasks", "classification.json"):
        task = find_frame("dureader_qg", "{premise}{hypothesis}[MASK]", None, ",".join(item["labels"]))
        encoder = PairEncoder(FAMILY, pieces, task, pool=item["pool"], src_length=200, pattern_id=None)
        (encoded,) = encoder.encode([question(task, item["record"])])
        rows = encoder.rows(encoded)
        batch = PairCollator(encoder, multiple=8).read(rows)
        assert batch["input_ids"][0, : len(item["ids"])].tolist() == item["ids"]
        assert batch["position_ids"][0, :, : len(item["ids"])].tolist() == item["positions"]
        with paddle.no_grad():
            states = model.labelled_states(**{name: paddle.to_tensor(table) for name, table in batch.items()})
            np.testing.assert_allclose(head(states)[0].numpy(), item["logits"], rtol=0, atol=CLOSE)
