"""Passages in windows: none of a passage is lost, and the question always fits."""

import pytest

from glm.data.columns import RECOGNISED
from glm.data.formats import Row
from glm.data.task_records import reader_of
from glm.data.task_table import TASKS
from glm.data.windows import WindowEncoder
from glm.errors import InputError
from glm.models.glm import FAMILY
from tools.letter_tokenizer import Letters

CONTEXT = "".join(chr(ord("一") + place) for place in range(60))


class Plain(Letters):
    """Decodes without the blank that a window starts with."""

    def decode_ids(self, ids):
        return super().decode_ids(ids).strip()


def encoder_of(name="cmrc2018", *, source=40, target=9, **how) -> WindowEncoder:
    return WindowEncoder(FAMILY, Plain(), TASKS[name], src_length=source, tgt_length=target, **how)


def record_of(values, name="cmrc2018", **how):
    (found,) = reader_of(TASKS[name], RECOGNISED, **how).records(Row(3, "f.json, line 3", values))
    return found


def encoded_of(encoder, **values):
    values = {"context": CONTEXT, "question": "谁", "answers": [CONTEXT[30:32]], **values}
    (found,) = encoder.encode([record_of(values)])
    return found


@pytest.mark.parametrize("length", [1, 7, 20, 21, 22, 40, 41, 59, 60])
@pytest.mark.parametrize("source", [24, 33, 40, 80])
def test_every_place_of_a_passage_is_in_a_window(length, source):
    encoder = encoder_of(source=source)
    encoded = encoded_of(encoder, context=CONTEXT[:length], answers=["甲"])
    seen = "".join(window.text for window in encoded.windows)
    assert set(CONTEXT[:length]) <= set(seen)
    assert all(len(window.source_ids) <= source for window in encoded.windows)


def test_a_window_by_hand():
    encoder = encoder_of(source=30)
    first = encoded_of(encoder).windows[0]
    text = Plain().decode_ids(first.source_ids)
    assert text.startswith(f"{CONTEXT[:3]}") and text.endswith("问题：谁答案：")
    assert first.source_ids[0] == 1 and first.source_ids[-2:] == [9, 0]


def test_answers_are_learnt_where_they_stand():
    encoder = encoder_of()
    encoded = encoded_of(encoder)
    spans = [Plain().decode_ids(span) for _, span in encoder.examples(encoded)]
    assert set(spans) == {CONTEXT[30:32], "N/A"}
    for window, span in zip(encoded.windows, spans, strict=True):
        assert (CONTEXT[30:32] in window.text) == window.has_answer == (span != "N/A")


def test_windows_without_the_answer_can_be_left_out_of_training_but_not_of_tests():
    encoder = encoder_of("squad_v1", source=50)
    (encoded,) = encoder.encode(
        [record_of({"context": CONTEXT, "question": "谁", "answers": [CONTEXT[2:4]]}, "squad_v1")]
    )
    assert len(encoded.windows) > 1 == len(encoder.examples(encoded))


def test_a_question_that_leaves_no_room():
    encoder = encoder_of()
    encoded = encoded_of(encoder, question="问" * 30)
    told = str(encoder.source_problem(encoded))
    assert "f.json, line 3, field question" in told and "leave no room for the passage in src_length 40" in told
    with pytest.raises(InputError):
        encoder.examples(encoded)


def test_an_answer_that_would_be_cut():
    encoder = encoder_of(target=4)
    assert "field target" in str(encoder.target_problem(encoded_of(encoder, answers=[CONTEXT[:6]])))


def test_prediction_needs_no_answer():
    record = record_of({"context": CONTEXT, "question": "谁"}, need_label=False)
    (encoded,) = encoder_of().encode([record])
    assert encoded.target is None and len(encoded.windows) > 1
