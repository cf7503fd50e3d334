"""What `show` shows: the layout by hand, and that a difference between training and prediction is found."""

from dataclasses import replace

import numpy as np
import pytest

from glm.data.examples import ExampleEncoder
from glm.data.records import Record
from glm.data.templates import Template
from glm.data.view import view_record
from glm.models.glm import FAMILY as GLM
from glm.models.glm.geometry import check_alike

RECORD = Record(1, "xyz", "y", "w?", "f, line 1")


class Letters:
    """A tokenizer whose ids can be read: the code point of each character, command tokens below 10."""

    cls_token_id, eos_token_id, sop_token_id, eop_token_id = 1, 0, 6, 7
    special_ids = {"[MASK]": 3, "[sMASK]": 8, "[gMASK]": 9}
    mask_token_ids = (3, 8, 9)

    def encode_text(self, text):
        return [ord(character) for character in text] if isinstance(text, str) else [*map(self.encode_text, text)]


def encoder_of(*, tgt_length=20, src_length=20, **options) -> ExampleEncoder:
    template = Template("A{answer}C{context}[gMASK]", "Q:")
    return ExampleEncoder(GLM, Letters(), template, src_length=src_length, tgt_length=tgt_length, **options)


def test_layout_by_hand():
    view = view_record(RECORD, encoder_of())
    source, target = [1, 65, 121, 67, 120, 121, 122, 9, 0], [6, 81, 58, 119, 63]
    assert view.tokens.source_length == 9 and view.tokens.ids.tolist() == source + target
    assert view.tokens.training.tolist() == [
        source + target,
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 7, 7, 7, 7],
        [0] * 9 + [1, 2, 3, 4, 5],
        [-100] * 9 + [81, 58, 119, 63, 7],
    ]
    assert view.tokens.prediction.tolist() == [
        [*source, 6, 81, 58],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 7, 7],
        [0] * 9 + [1, 2, 3],
    ]
    plain = [[column < 9 or column <= row for column in range(14)] for row in range(14)]
    assert view.tokens.sees.tolist() == plain
    assert (view.lost_source, view.lost_target) == (0, 0)


def test_without_target():
    view = view_record(replace(RECORD, target=None), encoder_of())
    assert view.tokens.training is None and view.tokens.ids.tolist() == view.tokens.prediction[0].tolist()
    assert view.tokens.sees.shape == (12, 12)


def test_what_was_cut():
    view = view_record(replace(RECORD, target="wwww"), encoder_of(src_length=8, tgt_length=5, allow_cut_targets=True))
    assert (view.tokens.source_length, view.lost_source, view.lost_target) == (7, 2, 2)
    assert view.tokens.ids.tolist() == [1, 65, 121, 67, 121, 9, 0, 6, 81, 58, 119, 119]
    view = view_record(RECORD, encoder_of(tgt_length=4, allow_cut_targets=True))
    assert view.tokens.training.shape[1] == 13


@pytest.mark.parametrize("block_position", [True, False])
def test_differences_are_found(block_position):
    encoder = encoder_of(block_position=block_position)
    example, prompt = encoder.example(RECORD), encoder.prompt(encoder.source_ids(RECORD))
    check_alike(example, prompt)

    def changed(array, place):
        array = np.array(array)
        array[place] += 1
        return array

    for message, other in (
        ("the sources differ", replace(prompt, source_ids=changed(prompt.source_ids, 2))),
        ("the openings differ", replace(prompt, opening_ids=changed(prompt.opening_ids, 1))),
        ("positions", replace(prompt, opening_position_ids=changed(prompt.opening_position_ids, (1, 2)))),
        ("positions", replace(prompt, place=prompt.place + 1)),
        ("positions", replace(prompt, geometry=replace(prompt.geometry, block_position=not block_position))),
    ):
        with pytest.raises(AssertionError, match=message):
            check_alike(example, other)
