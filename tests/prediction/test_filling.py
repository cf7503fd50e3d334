"""Blanks are filled left to right, each seeing those before it, as slow whole forward passes fill them."""

import numpy as np
import pytest

from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.models.glm import FAMILY as GLM
from glm.options.data import DataArguments
from glm.prediction.filling import BadText, fill, lay_out, stream_texts
from glm.prediction.setup import build_encoder
from glm.prediction.writer import Writer
from reference.beam_search import beam_search
from tools.slow_model import next_logits, token_scores

MASKS = ("[MASK]", "[sMASK]", "[gMASK]")
TEXTS = {
    0: "青石镇位于[MASK]，人口大约[sMASK]万。",
    1: "白鹿湖在哪里？[gMASK]",
    3: "松江有[MASK]，[MASK]和[MASK]。",
    4: "图书馆里有十二万册图书",
    9: "[MASK]出生于19[sMASK]年，[gMASK]",
}


@pytest.fixture
def writer(tiny_model, tokenizer):
    """A factory: a writer of a tiny model, with these decoding options."""

    def make(*, batch_size: int = 16, prefix: str = "", allowed=(), data=None, **options) -> Writer:
        config = GenerationConfig(**{"tgt_length": 9, "num_beams": 3, "no_repeat_ngram_size": 2, **options})
        encoder = build_encoder(
            GLM,
            tokenizer,
            DataArguments(src_length=60, **(data or {})),
            GenerationConfig(tgt_length=99),
        )
        model = tiny_model(seed=3, vocab_size=352)
        return Writer(model, encoder, config, batch_size, tokenizer.encode_text(prefix), allowed)

    return make


# -- layout


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("甲[MASK]，乙[sMASK]万", ["[CLS]", "甲", "[MASK]", "，乙", "[sMASK]", "万", "<|endoftext|>"]),
        ("甲[MASK]", ["[CLS]", "甲", "[MASK]", "<|endoftext|>"]),
        ("甲[sMASK]", ["[CLS]", "甲", "[sMASK]", "<|endoftext|>"]),
        ("[MASK][sMASK]", ["[CLS]", "[MASK]", "[sMASK]", "<|endoftext|>"]),
        ("甲", ["[CLS]", "甲", "[gMASK]"]),  # no blank: continued, and nothing stands behind
        ("甲[gMASK]", ["[CLS]", "甲", "[gMASK]"]),
        ("甲[gMASK]乙", ["[CLS]", "甲", "[gMASK]", "乙", "<|endoftext|>"]),
        ("[gMASK]甲[MASK]", ["[CLS]", "[gMASK]", "甲", "[MASK]", "<|endoftext|>"]),
        ("[MASK]甲[gMASK]", ["[CLS]", "[MASK]", "甲", "[gMASK]"]),
        ("甲[mask][CLS]", ["[CLS]", "甲[mask]" + "[CLS]", "[gMASK]"]),  # other brackets are text
    ],
)
def test_layout_by_hand(writer, tokenizer, text, parts):
    expected = []
    for place, part in enumerate(parts):
        command = place in (0, len(parts) - 1) or part in MASKS
        expected += [tokenizer.command_ids[part]] if command else tokenizer.encode_text(part)
    assert lay_out(writer(), text).source_ids == expected


def test_longest_text(writer, tokenizer):
    model = writer()
    fits = "河" * 56
    assert len(tokenizer.encode_text(fits)) == 57  # a word's beginning, and 56 characters
    assert len(lay_out(model, f"{fits}[MASK]").source_ids) == 60
    with pytest.raises(InputError) as caught:
        lay_out(model, f"{fits}河[MASK]")
    assert str(caught.value) == f"61 tokens do not fit into src_length 60, shorten the text: {'河' * 40}…"


# -- what is written into the blanks


def filled_by_hand(writer: Writer, text: str) -> tuple[list[list[tuple[tuple[int, ...], float]]], list]:
    """Hypotheses of each blank from whole forward passes; and the functions that gave the logits."""
    tokenizer, config = writer.encoder.tokenizer, writer.config
    source = lay_out(writer, text).source_ids
    prefix = list(writer.prefix_ids)
    spans, found, models = [], [], []
    for _ in range(sum(token in tokenizer.mask_token_ids for token in source)):
        models.append(
            next_logits(
                writer.model,
                tokenizer,
                source,
                filled=list(spans),
                opening=prefix,
                block_position=writer.encoder.geometry.infilling.block_position,
            )
        )
        found.append(
            beam_search(
                models[-1],
                vocab_size=writer.model.config.vocab_size,
                max_length=config.tgt_length - len(prefix),
                eop=tokenizer.eop_token_id,
                num_beams=config.num_beams,
                length_penalty=config.length_penalty,
                no_repeat_ngram_size=config.no_repeat_ngram_size,
                min_length=config.min_tgt_length,
                banned=writer.banned_ids,
            )
        )
        spans.append([*prefix, *found[-1][0][0]])
    return found, models


@pytest.mark.parametrize(
    "options",
    [{}, {"prefix": "青石镇"}, {"data": {"no_block_position": True}}, {"num_beams": 1}, {"min_tgt_length": 5}],
    ids=str,
)
def test_blanks_equal_slow_decoding(writer, tokenizer, options):
    """Part B of the second blank holds the span of the first, without eop, and so on; numbers of blanks are mixed."""
    model = writer(num_return_sequences=min(2, options.get("num_beams", 3)), **options)
    rows = dict(fill(model, TEXTS))
    assert sorted(rows) == sorted(TEXTS)
    for number, text in TEXTS.items():
        expected, _ = filled_by_hand(model, text)
        row = rows[number]
        assert row["id"] == number + 1
        assert [len(blank) for blank in row["blanks"]] == [model.config.num_return_sequences] * len(expected)
        best = []
        for blank, hypotheses in zip(row["blanks"], expected, strict=True):
            for found, (tokens, score) in zip(blank, hypotheses, strict=False):
                assert found["text"] == tokenizer.decode_ids([*model.prefix_ids, *tokens])
                assert found["score"] == pytest.approx(score, abs=1e-4)
            best.append(blank[0]["text"])
        given = text if number != 4 else f"{text}[gMASK]"
        assert row["text"] == given
        for text_of_blank in best:
            first = min(place for mask in MASKS if (place := given.find(mask)) >= 0)
            given = given[:first] + text_of_blank + given[given.index("]", first) + 1 :]
        assert row["filled"] == given
        assert list(row) == ["id", "text", "filled", "blanks"]


def test_the_second_blank_sees_the_first(writer, tokenizer):
    """Filled with other allowed outputs in the first blank, the second one's scores are others."""
    scores = []
    for first in ("河", "水"):
        model = writer(allowed=[tokenizer.encode_text(first)], num_beams=1)
        row = dict(fill(model, {0: TEXTS[0]}))[0]
        assert [blank[0]["text"] for blank in row["blanks"]] == [first, first]
        source = lay_out(model, TEXTS[0]).source_ids
        span = tokenizer.encode_text(first)
        logits = next_logits(model.model, tokenizer, source, filled=[span])
        by_hand = token_scores(logits, [*span, tokenizer.eop_token_id])
        assert row["blanks"][1][0]["score"] == pytest.approx(sum(by_hand) / len(span) ** 0.7, abs=1e-4)
        alone = token_scores(next_logits(model.model, tokenizer, source, filled=[[]]), [*span, tokenizer.eop_token_id])
        assert abs(sum(alone) - sum(by_hand)) > 0.01
        scores.append(row["blanks"][1][0]["score"])
    assert abs(scores[0] - scores[1]) > 1e-3


def test_token_scores_of_blanks(writer, tokenizer):
    model = writer()
    row = dict(fill(model, {0: TEXTS[0]}, token_scores=True))[0]
    expected, models = filled_by_hand(model, TEXTS[0])
    for blank, hypotheses, logits in zip(row["blanks"], expected, models, strict=True):
        tokens = list(hypotheses[0][0])
        ended = [*tokens, tokenizer.eop_token_id] if len(tokens) < 9 else tokens
        pieces, scores = zip(*blank[0]["token_scores"], strict=True)
        assert list(pieces) == tokenizer.convert_ids_to_tokens(ended)
        assert list(scores) == pytest.approx(token_scores(logits, ended), abs=1e-4)
    assert "token_scores" not in dict(fill(model, {0: TEXTS[0]}))[0]["blanks"][0][0]


@pytest.mark.parametrize("drawing", [False, True])
def test_batch_size_does_not_matter(writer, drawing):
    options = {"select_topk": False, "top_k": 30} if drawing else {}
    rows = [dict(fill(writer(batch_size=size, **options), TEXTS)) for size in (1, 2, 16)]
    for number in TEXTS:
        for row in (rows[1][number], rows[2][number]):
            assert row["filled"] == rows[0][number]["filled"]
            scores = [
                [found["score"] for blank in item["blanks"] for found in blank] for item in (row, rows[0][number])
            ]
            assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_texts_do_not_depend_on_each_other(writer):
    model = writer(select_topk=False)
    together = dict(fill(model, {**TEXTS, 2: BadText("bad"), 5: "河" * 99}))
    for number, text in TEXTS.items():
        assert dict(fill(model, {number: text}))[number]["filled"] == together[number]["filled"]


def test_each_blank_draws_from_its_own_stream(writer, monkeypatch):
    """Seed, number of the text, number of the blank; two equal texts are filled differently."""
    asked = []

    def stream(config, record_id):
        asked.append((config.generation_seed, record_id))
        return np.random.default_rng(0)

    monkeypatch.setattr("glm.generation.search.random_stream", stream)
    list(fill(writer(select_topk=False, generation_seed=7), {0: TEXTS[0], 3: TEXTS[3]}))
    assert sorted(asked) == [(7, (0, 0)), (7, (0, 1)), (7, (3, 0)), (7, (3, 1)), (7, (3, 2))]


def test_equal_texts_draw_differently(writer):
    rows = dict(fill(writer(select_topk=False, num_beams=1), {0: "[MASK]", 1: "[MASK]"}))
    assert rows[0]["filled"] != rows[1]["filled"]
    twice = dict(fill(writer(select_topk=False, num_beams=1), {0: "[MASK][MASK]"}))[0]["blanks"]
    assert twice[0][0]["text"] != twice[1][0]["text"]


def test_nothing_could_be_written(writer, tokenizer):
    """The rules forbid the only allowed output: no hypothesis, an empty blank, and the next one goes on."""
    model = writer(allowed=[tokenizer.encode_text("河")], min_tgt_length=5)
    row = dict(fill(model, {0: TEXTS[0]}))[0]
    assert (row["blanks"], row["filled"]) == ([[], []], "青石镇位于，人口大约万。")


def test_bad_texts_are_rows_with_an_error(writer):
    found = list(fill(writer(), {0: BadText("t.txt, line 1: not UTF-8"), 1: "甲[MASK]", 2: "河" * 99}))
    too_long = f"102 tokens do not fit into src_length 60, shorten the text: {'河' * 40}…"
    assert found[:2] == [
        (0, {"id": 1, "text": None, "error": "t.txt, line 1: not UTF-8"}),
        (2, {"id": 3, "text": "河" * 99, "error": too_long}),
    ]
    assert [number for number, _ in found] == [0, 2, 1]
    assert list(fill(writer(), {})) == []


def test_a_text_is_done_when_its_last_blank_is(writer):
    """Texts with fewer blanks come first."""
    assert [number for number, _ in fill(writer(), TEXTS)] == [1, 4, 0, 3, 9]


# -- lines of a file


def test_lines():
    lines = ["\ufeff甲[MASK] \n".encode(), b"\n", b" \t\r\n", "乙".encode() + b"\xe4\n", "\ufeff丙\n".encode(), b"x"]
    assert list(stream_texts(lines, name="t.txt")) == [
        "甲[MASK]",
        BadText("t.txt, line 4: not UTF-8 (byte 4); convert the file to UTF-8"),
        "\ufeff丙",
        "x",
    ]


def test_lines_are_read_one_by_one():
    def lines():
        yield b"a\n"
        raise AssertionError("read ahead")

    assert next(stream_texts(lines(), name="t")) == "a"
