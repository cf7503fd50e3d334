"""From a record to ids: the layout of PaddleNLP's example, the same for training and prediction."""

from dataclasses import replace

import pytest

from glm.data.examples import ExampleEncoder
from glm.data.records import Record
from glm.data.templates import Template, find_template, own_template
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM

OPENING = "在已知答案的前提下，问题："
N = 340  # pieces of the tokenizer in conftest; its command tokens follow (fact sheet, section 2)
EOS, CLS, SOP, EOP, GMASK = N, N + 2, N + 6, N + 7, N + 9
MASKS = {N + 3, N + 8, N + 9}


def record_of(context="李明远小时候住在青石镇。", answer="青石镇", question="李明远小时候住在哪里？") -> Record:
    return Record(7, context, answer, question, "data.json, line 7")


@pytest.fixture
def make(tokenizer):
    """A factory: `make(src_length=…, tgt_length=…)`, an encoder of DuReaderQG."""

    def make(*, src_length: int = 200, tgt_length: int = 100, **options) -> ExampleEncoder:
        template = find_template("dureader_qg")
        return ExampleEncoder(GLM, tokenizer, template, src_length=src_length, tgt_length=tgt_length, **options)

    return make


def source_of(tokenizer, context: str, answer: str) -> list[int]:
    return [CLS, *tokenizer.encode_text(f"答案：{answer}，上下文：{context}"), GMASK, EOS]


# -- a worked example


def test_example_by_hand(make, tokenizer):
    record = record_of()
    example = make().example(record)
    source = source_of(tokenizer, record.source, record.answer)
    span = tokenizer.encode_text(OPENING) + tokenizer.encode_text(record.target)
    blank = len(source) - 2
    assert example.source_ids.tolist() == source
    assert example.target_ids.tolist() == [SOP, *span]
    assert example.labels.tolist() == [*span, EOP]
    assert example.target_position_ids.tolist() == [[blank] * (len(span) + 1), list(range(1, len(span) + 2))]


class Letters:
    """A tokenizer whose ids can be read: the code point of each character, command tokens below 10."""

    cls_token_id, eos_token_id, pad_token_id, sop_token_id, eop_token_id = 1, 0, 0, 6, 7
    special_ids = {"[MASK]": 3, "[sMASK]": 8, "[gMASK]": 9}
    mask_token_ids = (3, 8, 9)

    def encode_text(self, text):
        return [ord(character) for character in text] if isinstance(text, str) else [*map(self.encode_text, text)]


def test_ids_of_a_worked_example():
    template = Template(source="A{answer}C{context}[gMASK]", target_prefix="Q:")
    encoder = ExampleEncoder(GLM, Letters(), template, src_length=20, tgt_length=20)
    record = Record(1, "xyz", "y", "w?", "")
    example = encoder.example(record)
    assert example.source_ids.tolist() == [1, 65, 121, 67, 120, 121, 122, 9, 0]  # CLS A y C x y z gMASK eos
    assert example.target_ids.tolist() == [6, 81, 58, 119, 63]  # sop Q : w ?
    assert example.labels.tolist() == [81, 58, 119, 63, 7]  # Q : w ? eop
    assert example.target_position_ids.tolist() == [[7, 7, 7, 7, 7], [1, 2, 3, 4, 5]]
    prompt = encoder.prompt(encoder.source_ids(record))
    assert prompt.source_ids.tolist() == [1, 65, 121, 67, 120, 121, 122, 9, 0]
    assert prompt.opening_ids.tolist() == [6, 81, 58] and prompt.given == 2
    assert prompt.opening_position_ids.tolist() == [[7, 7, 7], [1, 2, 3]] and prompt.place == 7
    prompt = encoder.prompt([1, 65, 9, 0], [119, 63])  # with a prefix: w ?
    assert prompt.source_ids.tolist() == [1, 65, 9, 0]
    assert prompt.opening_ids.tolist() == [6, 81, 58, 119, 63] and prompt.given == 4
    assert prompt.opening_position_ids.tolist() == [[2] * 5, [1, 2, 3, 4, 5]]


def test_opening_and_question_are_encoded_apart(make, tokenizer):
    opening = tokenizer.encode_text(OPENING)
    for question in ["李明远是哪一年出生的？", "：问", "a", "。", " 青石镇在哪里？"]:
        ids = make().example(record_of(question=question)).target_ids.tolist()
        assert ids[: len(opening) + 1] == [SOP, *opening]
        assert ids[len(opening) + 1 :] == tokenizer.encode_text(question)
    # the tokenizer writes a dummy blank before each of the two, so encoding them together would differ
    assert tokenizer.encode_text(OPENING + "李明远是哪一年出生的？") != opening + tokenizer.encode_text(
        "李明远是哪一年出生的？"
    )


# -- lengths


def test_eop_is_kept_only_if_it_fits(make, tokenizer):
    record = record_of()
    span = tokenizer.encode_text(OPENING) + tokenizer.encode_text(record.target)
    full = len(span) + 1
    for tgt_length in (full + 1, full, full - 1, full - 3, len(tokenizer.encode_text(OPENING)) + 1):
        example = make(tgt_length=tgt_length, allow_cut_targets=True).example(record)
        assert example.target_ids.tolist() == [SOP, *span][:tgt_length]
        assert example.labels.tolist() == [*span, EOP][:tgt_length]
        assert (EOP in example.labels.tolist()) == (tgt_length >= full)
        assert example.target_position_ids.shape == (2, min(tgt_length, full))


def test_a_target_is_cut_only_where_that_is_allowed(make, tokenizer):
    record = record_of()
    question, opening = tokenizer.encode_text(record.target), tokenizer.encode_text(OPENING)
    full = len(opening) + len(question) + 1  # eop
    assert EOP in make(tgt_length=full).example(record).labels
    with pytest.raises(InputError) as caught:
        make(tgt_length=full - 1).example(record)
    assert str(caught.value) == (
        f"data.json, line 7, field target: {len(question)} tokens, and tgt_length {full - 1} has room for "
        f"{len(question) - 1}; raise it, or let targets be cut with --allow_cut_targets"
    )
    make(tgt_length=full - 1).source_ids(record)  # to predict, a long reference does no harm


def test_target_needs_room_after_the_opening(make, tokenizer):
    opening = len(tokenizer.encode_text(OPENING))
    make(tgt_length=opening + 1)
    make(tgt_length=opening + 6, min_tgt_length=5)
    for tgt_length, minimum in ((opening, 0), (1, 0), (opening + 5, 5)):
        with pytest.raises(InputError) as caught:
            make(tgt_length=tgt_length, min_tgt_length=minimum)
        assert str(caught.value) == (
            f"tgt_length {tgt_length}: no room for min_tgt_length {minimum} tokens and eop after the constant opening "
            f"{OPENING} ({opening} tokens); raise tgt_length"
        )


def test_source_is_cut_around_the_answer(make, tokenizer):
    before, own, after = "铁的熔点要高得多。", "王小兰小时候住在白鹿湖。", "水在零度结冰。"
    record = record_of(context=before * 3 + own + after * 3, answer="白鹿湖")
    one = len(source_of(tokenizer, own, "白鹿湖"))
    two = len(source_of(tokenizer, own + after, "白鹿湖"))
    three = len(source_of(tokenizer, before + own + after, "白鹿湖"))
    assert one < two < three
    for src_length, context in [
        (one, own),
        (two - 1, own),
        (two, own + after),
        (three, before + own + after),
        (1000, record.source),
    ]:
        ids = make(src_length=src_length).source_ids(record)
        assert ids == source_of(tokenizer, context, "白鹿湖")
        assert len(ids) <= src_length


@pytest.mark.parametrize("src_length", [24, 30, 40, 60, 100])
def test_source_never_exceeds_src_length(make, sentences, src_length):
    encoder = make(src_length=src_length)
    context = "".join(sentences[:20])
    for sentence in sentences[:10]:
        answer = sentence[:3]
        ids = encoder.source_ids(record_of(context=context, answer=answer))
        assert len(ids) <= src_length
        text = encoder.tokenizer.decode_ids(ids)
        assert text.startswith("答案:" + answer) and answer in text.partition("上下文:")[2]


def test_a_source_that_just_fits_is_not_cut(make, tokenizer):
    record = record_of()
    ids = source_of(tokenizer, record.source, record.answer)
    assert make(src_length=len(ids)).source_ids(record) == ids
    assert len(make(src_length=len(ids) - 1).source_ids(record)) < len(ids)


def test_answer_that_does_not_fit(make):
    record = record_of(context="青石镇" * 30, answer="青石镇" * 20)
    with pytest.raises(InputError) as caught:
        make(src_length=40).source_ids(record)
    assert str(caught.value) == "data.json, line 7, field answer: does not fit into src_length 40"
    with pytest.raises(InputError, match="line 7, field answer"):
        make(src_length=40).example(record)


def test_block_position(make):
    counted, ones = make().example(record_of()), make(block_position=False).example(record_of())
    length = len(counted.target_ids)
    assert counted.target_position_ids[1].tolist() == list(range(1, length + 1))
    assert ones.target_position_ids[1].tolist() == [1] * length
    assert (counted.target_position_ids[0] == ones.target_position_ids[0]).all()
    assert counted.source_ids.tolist() == ones.source_ids.tolist()


# -- other templates, many records at once


def test_text_after_the_blank_and_extra_fields():
    template = own_template("S{style}:[sMASK]T{source}")
    encoder = ExampleEncoder(GLM, Letters(), template, src_length=9, tgt_length=4)
    record = Record(1, "xyz", None, "w", "f, line 1", extras={"style": "v"})
    ids = [1, ord("S"), ord("v"), ord(":"), 8, ord("T"), ord("x"), ord("y"), ord("z"), 0]
    assert encoder.source_ids(record) == [*ids[:-2], 0]  # without answer the end is cut: src_length is one too small
    assert encoder.example(record).target_position_ids.tolist() == [[4, 4], [1, 2]]
    longer = replace(record, extras={"style": "vvvvv"})
    with pytest.raises(InputError, match="f, line 1, field template: does not fit into src_length 9"):
        encoder.source_ids(longer)
    assert encoder.overflow(*encoder.encode([longer])) == 5 and encoder.overflow(*encoder.encode([record])) == 1


def test_many_records_at_once_are_as_one_by_one(make, sentences):
    encoder = make(src_length=40)
    records = [record_of(context=text * 2, answer=text[:3], question=text) for text in sentences]
    records[3] = replace(records[3], target=None)
    for record, encoded in zip(records, encoder.encode(records), strict=True):
        assert encoded == encoder.encode([record])[0] and encoded.record is record
        assert (encoded.target is None) == (record.target is None)
        assert encoder.lay_out_source(encoded) == encoder.source_ids(record)
        if record.target is not None:
            assert encoded.target == encoder.tokenizer.encode_text(record.target)


# -- training and prediction are laid out alike


@pytest.mark.parametrize("block_position", [True, False])
def test_prompt_equals_the_training_example(make, tokenizer, block_position):
    encoder = make(src_length=34, block_position=block_position)
    records = [
        record_of(),
        record_of(context="图书馆里有十二万册图书，其中三分之一是外文书。" * 3, answer="三分之一", question="多少？"),
        record_of(context="铁", answer="铁", question="什么？"),
    ]
    examples = [encoder.example(record) for record in records]
    for record, example in zip(records, examples, strict=True):
        prompt = encoder.prompt(encoder.source_ids(record))
        S, opening = len(example.source_ids), len(prompt.opening_ids)
        assert prompt.source_ids.tolist() == example.source_ids.tolist()
        assert prompt.place == example.source_ids.tolist().index(GMASK)
        assert prompt.position_ids[:, :S].tolist() == [list(range(S)), [0] * S]
        assert prompt.opening_ids.tolist() == example.target_ids[:opening].tolist()
        assert prompt.opening_position_ids.tolist() == example.target_position_ids[:, :opening].tolist()
        question = tokenizer.encode_text(record.target)
        assert example.target_ids[opening:].tolist() == question and question
        for number in range(len(question)):
            got = prompt.step_position_ids(number)[:, 0].tolist()
            assert got == example.target_position_ids[:, opening + number].tolist()
        prefixed = encoder.prompt(encoder.source_ids(record), question)  # all of the text is given
        assert prefixed.opening_ids.tolist() == example.target_ids.tolist()
        assert prefixed.opening_position_ids.tolist() == example.target_position_ids.tolist()
        assert prefixed.given == opening - 1 + len(question)


# -- text that looks like a command


@pytest.mark.parametrize("command", ["[gMASK]", "[MASK]", "[sMASK]", "<|startofpiece|>", "<|endofpiece|>", "[CLS]"])
def test_text_cannot_inject_a_command(make, tokenizer, command):
    """Reading refuses such records; should one come another way, its text stays text."""
    record = record_of(context=f"甲{command}乙", answer=f"{command}", question=f"{command}？")
    encoder = make()
    example = encoder.example(record)
    ids = example.source_ids.tolist()
    assert [token for token in ids if token >= N] == [CLS, GMASK, EOS]
    assert [token for token in ids if token in MASKS] == [GMASK] and ids.index(GMASK) == len(ids) - 2
    assert [token for token in example.target_ids.tolist() if token >= N] == [SOP]
    assert [token for token in example.labels.tolist() if token >= N] == [EOP]
    assert encoder.prompt(ids).place == len(ids) - 2
    assert command in tokenizer.decode_ids(ids)
