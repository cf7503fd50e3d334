"""Rows of a classification head: what of a text has room, and which state is classified."""

import numpy as np
import pytest

from glm.data.columns import RECOGNISED
from glm.data.formats import Row
from glm.data.pairs import POOLS, PairCollator, PairEncoder
from glm.data.task_records import reader_of
from glm.data.task_table import TASKS, find_frame
from glm.errors import InputError
from glm.models.glm import FAMILY
from glm.modules.classifier import ClassificationHead, head_scores
from tools.letter_tokenizer import Letters

TASK = find_frame("dureader_qg", "{a}[MASK]{b}", None, "甲=yes,乙=no")
TEXTS = [{"a": "春天来了", "b": "花"}, {"a": "水", "b": "山上的花都开了"}, {"a": "石桥", "b": "石"}]


def encoder_of(pool, tokenizer, task=TASK, *, src_length):
    return PairEncoder(FAMILY, tokenizer, task, pool=pool, src_length=src_length, pattern_id=None)


def rows_of(encoder, *texts):
    reader = reader_of(encoder.task, RECOGNISED, need_label=False)
    records = [record for text in texts for record in reader.records(Row(1, "f.json, line 1", text))]
    return [row for encoded in encoder.encode(records) for row in encoder.rows(encoded)]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("length", [9, 10, 11, 12, 13])
def test_a_full_row_has_room_for_what_is_classified(pool, length):
    """The original's `start` reads behind the end of a row that is full."""
    ((row, place),) = rows_of(encoder_of(pool, Letters(), src_length=length), {"a": "春" * 9, "b": "花" * 9})
    ids = [*row.source_ids, *row.target_ids]
    assert len(row) == len(ids) == length and 0 <= place < length
    end = Letters.eos_token_id
    first_end = len(row.source_ids) - 1
    assert row.source_ids[first_end] == end
    assert place == {"cls": 0, "pad": first_end, "start": first_end + 1}[pool]


def test_a_model_without_a_position_for_it_is_refused(tiny_config):
    texts_end = {"pad": 100, "start": 100}
    for pool, length in texts_end.items():
        encoder_of(pool, Letters(), src_length=length).check_lengths(tiny_config(max_sequence_length=100))
        with pytest.raises(InputError, match="src_length 102"):
            encoder_of(pool, Letters(), src_length=102).check_lengths(tiny_config(max_sequence_length=100))


@pytest.mark.parametrize("pool", POOLS)
def test_scores_depend_on_no_padding_and_no_batch_mate(tiny_model, tokenizer, pool):
    model = tiny_model(seed=4, vocab_size=352)
    model.classification_head = ClassificationHead(model.config.hidden_size, 2)
    encoder = encoder_of(pool, tokenizer, src_length=60)
    rows = rows_of(encoder, *TEXTS)
    together = head_scores(model, PairCollator(encoder).read(rows))
    assert np.abs(together[0] - together[1]).max() > 1e-4
    for row, found in zip(rows, together, strict=True):
        for multiple in (1, 7, 50):
            alone = head_scores(model, PairCollator(encoder, multiple=multiple).read([row]))
            np.testing.assert_allclose(alone[0], found, rtol=0, atol=1e-5)


def test_a_task_without_candidates_has_nothing_to_classify():
    with pytest.raises(InputError, match="lambada has no candidates to classify"):
        encoder_of("pad", Letters(), TASKS["lambada"], src_length=20)
