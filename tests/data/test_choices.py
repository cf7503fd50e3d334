"""Questions with candidates as ids: what is cut, what is refused, and which candidates there are."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm.data.choices import ChoiceEncoder, shorten
from glm.data.columns import RECOGNISED
from glm.data.formats import Row
from glm.data.task_examples import ChoiceCollator, choice_example
from glm.data.task_records import reader_of
from glm.data.task_table import TASKS, find_frame
from glm.data.tasks import Cut
from glm.errors import InputError
from glm.models.glm import FAMILY
from tools.letter_tokenizer import Letters

CLS, EOS, MASK, SOP, EOP, GMASK = 1, 0, 3, 6, 7, 9
OWN = find_frame("dureader_qg", "{a}？{b}[MASK]。", None, "是=yes,否=no")
LONG_WORDS = find_frame("dureader_qg", "{a}？[MASK]", None, "蕴含=yes,无关=no")


def encoder_of(task=OWN, *, source=40, target=9, **how) -> ChoiceEncoder:
    return ChoiceEncoder(FAMILY, Letters(), task, src_length=source, tgt_length=target, **how)


def record_of(task, values, **how):
    (found,) = reader_of(task, RECOGNISED, need_label=False, **how).records(Row(3, "f.json, line 3", values))
    return found


def encoded_of(encoder, values):
    (found,) = encoder.encode([record_of(encoder.task, values)])
    return found


def letters(ids):
    return "".join(f"<{number}>" if number < 10 else chr(number) for number in ids)


def source_of(encoder, values):
    return letters(encoder.lay_out_source(encoded_of(encoder, values)))


# -- layout


def test_labels_of_one_piece():
    encoder = encoder_of()
    encoded = encoded_of(encoder, {"a": "甲", "b": "乙", "label": "no"})
    assert encoder.is_single and encoder.notes == []
    assert letters(encoder.lay_out_source(encoded)) == "<1>甲？乙<3>。<0>"
    assert encoded.candidates == [[ord("是")], [ord("否")]] and encoded.target == [ord("否")]


def test_labels_of_several_pieces_are_told_and_end():
    encoder = encoder_of(LONG_WORDS)
    assert not encoder.is_single
    (note,) = encoder.notes
    assert "蕴含 is 蕴 含" in note and "无关 is 无 关" in note
    assert [letters(ids) for ids in encoded_of(encoder, {"a": "甲"}).candidates] == ["蕴含<7>", "无关<7>"]


def test_one_piece_can_be_scored_as_several():
    encoder = encoder_of(multi_token=True)
    assert not encoder.is_single
    assert [letters(ids) for ids in encoded_of(encoder, {"a": "甲", "b": "乙"}).candidates] == ["是<7>", "否<7>"]


def test_choices_of_a_file_have_no_end():
    encoder = encoder_of(TASKS["multichoice"])
    encoded = encoded_of(encoder, {"inputs": "天[MASK]色", "choices": ["蓝", "红的"]})
    assert letters(encoder.lay_out_source(encoded)) == "<1>天<3>色<0>"
    assert [letters(ids) for ids in encoded.candidates] == ["蓝", "红的"]


def test_from_left_to_right():
    encoder = encoder_of(TASKS["multichoice"], unidirectional=True)
    prompt = encoder.prompt(encoded_of(encoder, {"inputs": "天色", "choices": ["蓝", "红的"]}))
    assert letters(prompt.input_ids) == "<1><9><6>天色"
    encoder = encoder_of(TASKS["lambada"], unidirectional=True)
    prompt = encoder.prompt(encoded_of(encoder, {"text": "ab c"}))
    assert letters(prompt.input_ids) == "<1>a<9><0><6>b"


# -- what is cut


def test_the_longest_field_is_cut_first():
    encoder = encoder_of(source=12)  # 9 beside [CLS], [MASK] and <|endoftext|>; 7 for the fields
    encoded = encoded_of(encoder, {"a": "甲" * 8, "b": "乙" * 3})
    assert letters(encoder.lay_out_source(encoded)) == "<1>甲甲甲甲？乙乙乙<3>。<0>"
    assert encoder.overflow(encoded) == 4


def test_one_list_is_eaten_from_its_last_part():
    encoder = encoder_of(TASKS["xnli"], source=200)
    fixed = len(encoder.lay_out_source(encoded_of(encoder, {"premise": "x", "hypothesis": "y"}))) - 2
    encoder = encoder_of(TASKS["xnli"], source=fixed + 3)
    found = source_of(encoder, {"premise": "pppp", "hypothesis": "hhhh"})
    assert "ppp" in found and "pppp" not in found and "hh" not in found.split("False: ")[1]


def test_inputs_of_a_file_lose_their_start():
    encoder = encoder_of(TASKS["multichoice"], source=6)
    assert source_of(encoder, {"inputs": "一二三四[MASK]五", "choices": ["a", "b"]}) == "<1>三四<3>五<0>"


def test_a_window_around_the_blank_of_an_idiom():
    encoder = encoder_of(TASKS["chid"], source=9)
    values = {"content": "一二三四#idiom#五六七八", "candidates": ["甲", "乙"]}
    assert source_of(encoder, values) == "<1>二三四<3>五六七<0>"


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    groups=st.lists(st.integers(-1, 2), min_size=5, max_size=5),
    budget=st.integers(0, 30),
)
def test_shortening_takes_no_more_than_it_has_to(sizes, groups, budget):
    parts = [[place] * size for place, size in enumerate(sizes)]
    cuts = [None if group < 0 else Cut("x", group) for group in groups[: len(parts)]]
    kept, lost, too_long = shorten(parts, cuts, budget)
    total = sum(map(len, kept))
    assert total == sum(sizes) - lost and total == max(min(sum(sizes), budget), total)
    assert too_long == max(0, total - budget)
    for part, left, cut in zip(parts, kept, cuts, strict=True):
        assert left == part[: len(left)] and (cut is not None or left == part)


# -- what is refused


@pytest.mark.parametrize(
    ("labels", "how", "told"),
    [
        ("蕴含=yes,否=no", {"multi_token": False}, "single piece; 蕴含 is 蕴 含"),
        ("[MASK]=yes,否=no", {}, r"command token \(\[MASK\]\)"),
        ("<|endofpiece|>=yes,否=no", {}, "command token"),
        ("十二三四五六七八九=yes,否=no", {"target": 5}, "longer than tgt_length 5"),
        ("\x05=yes,否=no", {}, "no pieces for all of it"),
    ],
)
def test_words_that_cannot_be_labels(labels, how, told):
    with pytest.raises(InputError, match=told):
        encoder_of(find_frame("dureader_qg", "{a}[MASK]", None, labels), **how)


def test_words_that_are_equal_to_the_model():
    class Deaf(Letters):
        def encode_text(self, text):
            ids = super().encode_text(text)
            return [ord("甲") if number == ord("乙") else number for number in ids] if isinstance(text, str) else ids

    task = find_frame("dureader_qg", "{a}[MASK]", None, "甲=yes,乙=no")
    with pytest.raises(InputError, match="乙 .*is the same to the model as 甲"):
        ChoiceEncoder(FAMILY, Deaf(), task, src_length=40, tgt_length=9)


@pytest.mark.parametrize(
    ("values", "how", "told"),
    [
        (
            {"inputs": "问", "choices": ["红", "红"]},
            {},
            "field choices[1]: 红: is the same to the model as choices[0]",
        ),
        ({"inputs": "问", "choices": ["红"]}, {}, "field choices: one choice; two at least"),
        ({"inputs": "问", "choices": ["红", "红橙黄绿"]}, {"target": 3}, "field choices[1]: 红橙黄绿: 4 tokens"),
        ({"inputs": "[MASK]" + "后" * 9, "choices": ["红", "蓝"]}, {"source": 8}, "tokens that may not be cut"),
    ],
)
def test_records_that_cannot_be_laid_out(values, how, told):
    encoder = encoder_of(TASKS["multichoice"], **how)
    encoded = encoded_of(encoder, values)
    problem = encoder.source_problem(encoded)
    assert told in str(problem) and "f.json, line 3" in str(problem)
    with pytest.raises(InputError, match="f.json, line 3"):
        encoder.lay_out_source(encoded)


def test_a_template_with_a_command_token():
    with pytest.raises(InputError, match="no other command token"):
        encoder_of(find_frame("dureader_qg", "{a}[MASK]<|endoftext|>", None, "是=yes,否=no"))


def test_left_to_right_is_for_texts_without_labels():
    with pytest.raises(InputError, match="unidirectional True"):
        encoder_of(unidirectional=True)
    with pytest.raises(InputError, match="multi_token False"):
        encoder_of(TASKS["c3"], multi_token=False)


# -- training


def batch_of(encoder, *rows):
    encoded = encoder.encode([record_of(encoder.task, row) for row in rows])
    examples = [choice_example(one, encoder) for one in encoded]
    return ChoiceCollator(encoder.geometry, pad_token_id=0, multiple=4)(examples)


def test_a_batch_of_single_pieces_has_a_row_per_question():
    rows = [{"a": "甲", "b": "乙", "label": "no"}, {"a": "甲甲", "b": "乙", "label": "yes"}]
    batch = batch_of(encoder_of(), *rows)
    assert batch["input_ids"].shape == (2, 12)  # 10 tokens, padded
    assert [letters(row[row >= 0]) for row in batch["input_ids"]][0].startswith("<1>甲？乙<3>。<0><6>")
    assert (batch["labels"] != -100).sum() == 2 and (batch["labels"][0] != -100).argmax() == 7
    assert batch["choice_ids"].tolist() == [[ord("是"), ord("否")]] * 2
    assert batch["right"].tolist() == [[0, 1], [1, 0]] and batch["choice_rows"].tolist() == [[0, 0], [1, 1]]


def test_a_batch_of_several_pieces_has_a_row_per_candidate():
    task = replace(TASKS["multichoice"], ends=True)
    rows = [
        {"inputs": "问", "choices": ["红", "蓝色", "绿"], "label": 1},
        {"inputs": "问", "choices": ["红", "蓝"], "label": 0},
    ]
    batch = batch_of(encoder_of(task), *rows)
    labels = [letters(row[row != -100]) for row in batch["labels"]]
    assert labels == ["红<7>", "蓝色<7>", "绿<7>", "红<7>", "蓝<7>"]
    assert batch["choice_rows"].tolist() == [[0, 1, 2], [3, 4, -1]]
    assert batch["right"].tolist() == [[0, 1, 0], [1, 0, 0]] and batch["choice_ids"].shape == (2, 0)


def test_what_is_read_from_left_to_right_is_not_scored():
    encoder = encoder_of(TASKS["multichoice"], unidirectional=True)
    batch = batch_of(encoder, {"inputs": "天色", "choices": ["蓝", "红的"], "label": 0})
    assert [letters(row[row != -100]) for row in batch["labels"]] == ["蓝", "红的"]
