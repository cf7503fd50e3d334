"""Check 12: summaries against the original's: losses with the pads of sources seen and hidden, and beam search whose
rules act before the softmax."""

import json

import numpy as np
import paddle
import pytest

from glm.data.columns import RECOGNISED, choose_columns
from glm.data.examples import ExampleEncoder
from glm.data.formats import Row
from glm.data.records import Record, record_of_row
from glm.data.templates import TEMPLATES
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.mglm import FAMILY
from glm.models.protocol import GeometryOptions
from glm.prediction.writer import Writer
from tools.reference_files import reference_file

pytestmark = pytest.mark.conformance
# What decoding hands out is float32, whatever it computes in; sums of log-probabilities add up its rounding.
ROUNDED = 2e-5


@pytest.fixture(scope="module")
def golden():
    return json.loads(reference_file("mglm/summary.json").read_text(encoding="utf-8"))


@pytest.fixture
def geometry(golden_tokenizer):
    return FAMILY.geometry(golden_tokenizer, GeometryOptions("[sMASK]", closed=False))


def encoder_of(name, tokenizer, example, **how):
    """How a task's texts are laid out, in the lengths of an example."""
    lengths = {"src_length": len(example["ids"]) + example["pads"], "tgt_length": len(example["targets"])}
    return ExampleEncoder(FAMILY, tokenizer, TEMPLATES[name], allow_cut_targets=True, **lengths, **how)


def record_of(name, values) -> Record:
    """A golden record as it is read from a file."""
    (row,) = TEMPLATES[name].summaries.rows([Row(1, "golden, line 1", values)], learns=True)
    assert row.error is None
    columns = choose_columns(list(row.values), TEMPLATES[name], RECOGNISED, name="golden", need_target=True)
    return record_of_row(row, columns, need_target=True)


def test_ids_and_targets(golden, golden_tokenizer):
    for name, task in golden.items():
        for example in task["examples"]:
            encoder = encoder_of(name, golden_tokenizer, example)
            found = encoder.example(record_of(name, example["record"]))
            assert found.source_ids.tolist() == example["ids"]
            assert encoder.geometry.infilling.blank_places(found.source_ids) == [example["mask_index"]]
            T = sum(example["loss_mask"])
            assert found.labels.tolist() == example["targets"][:T]
            assert found.target_ids.tolist() == example["target_inputs"][:T]
            assert found.target_position_ids.tolist() == [
                [example["mask_index"]] * T,
                example["block_positions"][:T],
            ]


def test_pads_that_are_seen(golden, golden_tokenizer, tiny_mglm):
    """`--visible_pads` gives the original's ids and loss; without it nothing of a pad is seen."""
    for name, task in golden.items():
        for example in task["examples"]:
            for visible, kind in ((True, "pads_visible"), (False, "pads_hidden")):
                encoder = encoder_of(name, golden_tokenizer, example, visible_pads=visible)
                found = encoder.example(record_of(name, example["record"]))
                pads = found.source_ids.tolist()[len(example["ids"]) :]
                assert pads == [golden_tokenizer.pad_token_id] * (example["pads"] if visible else 0)
                batch = encoder.geometry.collate([[found]], len(found), golden_tokenizer.pad_token_id)
                loss = tiny_mglm(**{name: paddle.to_tensor(table) for name, table in batch.items()})
                assert float(loss) == pytest.approx(example["loss"][kind], rel=1e-9)


def test_the_hole_is_never_written(golden, golden_tokenizer, tiny_mglm, monkeypatch):
    """Check 5: nor a command token, nor a row of padding, were they the likeliest of all."""
    hole = len(golden_tokenizer.sp_model) + 5
    never = [hole, hole + 1, hole - 2, tiny_mglm.config.vocab_size - 1]

    def louder(name):
        """Decoding's function of this name, to which these tokens are the likeliest."""
        quiet = getattr(tiny_mglm, name)

        def loud(*given):
            found = quiet(*given)
            logits = found[0] if name == "prefill" else found
            logits[..., never] += 1000.0
            return found

        monkeypatch.setattr(tiny_mglm, name, loud)

    louder("prefill")
    louder("step")
    (name, task), *_ = golden.items()
    encoder = encoder_of(name, golden_tokenizer, task["examples"][0])
    writer = Writer(tiny_mglm, encoder, GenerationConfig(tgt_length=6, num_beams=2), 2)
    prompts = [encoder.prompt(example["ids"]) for example in task["examples"]]
    assert hole in writer.banned_ids
    texts = [hypotheses[0].tokens for _, hypotheses in writer.write(prompts, list(range(len(prompts))))]
    assert any(texts) and not {token for tokens in texts for token in tokens} & set(never)
    config = GenerationConfig(tgt_length=2, num_beams=1)
    unruly = dict(generate(tiny_mglm, prompts[:1], config, end_token_id=golden_tokenizer.end_token_id))
    assert set(unruly[0][0].tokens) <= set(never)  # where nobody forbids them


def padded(example, tokenizer):
    """The ids of a source with its pads, which the original lets be seen."""
    return example["ids"] + [tokenizer.pad_token_id] * example["pads"]


def loss_of(model, geometry, source_ids, target_ids, *, tgt_length, smoothing):
    example = geometry.example(source_ids, target_ids, tgt_length=tgt_length)
    batch = geometry.collate([[example]], len(example), geometry.tokenizer.pad_token_id)
    tensors = {name: paddle.to_tensor(table) for name, table in batch.items()}
    return float(model(**tensors, label_smoothing=smoothing))


def test_losses(golden, tiny_mglm, geometry):
    for task in golden.values():
        for example in task["examples"]:
            labels = np.array(example["targets"])[np.array(example["loss_mask"]) > 0].tolist()
            span = [token for token in labels if token != geometry.tokenizer.end_token_id]
            visible = padded(example, geometry.tokenizer)
            for kind, ids in (("pads_visible", visible), ("pads_hidden", example["ids"])):
                for name, smoothing in ((kind, 0.0), (f"{kind}_smoothing", 0.1)):
                    found = loss_of(
                        model := tiny_mglm, geometry, ids, span, tgt_length=len(labels), smoothing=smoothing
                    )
                    assert found == pytest.approx(example["loss"][name], rel=1e-9), (name, model)


def test_beams(golden, tiny_mglm, geometry):
    tokenizer = geometry.tokenizer
    for task in golden.values():
        prompts = [geometry.prompt(padded(example, tokenizer)) for example in task["examples"]]
        for case in task["decoding"]:
            options = {"no_repeat_ngram_size": 0, **case["options"]}
            config = GenerationConfig(
                **options, tgt_length=case["tgt_seq_length"], processor_order="before_softmax", early_stopping="false"
            )
            found = dict(generate(tiny_mglm, prompts, config, end_token_id=tokenizer.end_token_id, batch_size=2))
            for number, expected in enumerate(case["outputs"]):
                (best,) = found[number]
                assert list(best.tokens) == expected["ids"], (case["options"], number)
                assert best.score == pytest.approx(expected["score"], abs=ROUNDED * len(best.tokens))
                assert tokenizer.decode_ids(best.tokens).strip() == expected["text"].strip()
