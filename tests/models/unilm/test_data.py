"""Data of UniLM's programs: no header, U+0001 between source and target; what cannot be used names line and field."""

from pathlib import Path

import pytest

from glm.commands.check import main as check
from glm.data.examples import ExampleEncoder
from glm.data.formats import PAIRS, TEXTS, format_without_header, read_rows
from glm.data.records import BadRecord, RecordFile
from glm.data.templates import own_template
from glm.errors import InputError
from glm.models.unilm import FAMILY
from glm.models.unilm.tokenization import WordPieceTokenizer
from tools.unilm_tools import write_vocabulary

TEMPLATE = own_template(FAMILY.templates["paraphrase"])


def write(path: Path, *lines: bytes | str) -> Path:
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n")
    return path


@pytest.mark.parametrize("name", ["finetune_data.csv", "pairs.txt", "pairs.json"])
def test_pairs(tmp_path, name):
    path = write(tmp_path / name, "的一是\x01不了", "", "人我\x01在,有")
    assert format_without_header(path) == PAIRS
    rows = list(read_rows(path))
    assert [row.values for row in rows] == [
        {"source": "的一是", "target": "不了"},
        {"source": "人我", "target": "在,有"},
    ]
    assert [row.origin for row in rows] == [f"{path}, line 1", f"{path}, line 3"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = write(tmp_path / "pairs.csv", b"\xef\xbb\xbf" + "的一\x01是".encode())
    assert [row.values for row in read_rows(path)] == [{"source": "的一", "target": "是"}]


@pytest.mark.parametrize("name", ["test_data.csv", "headlines.txt"])
def test_sources_alone(tmp_path, name):
    path = write(tmp_path / name, "河南濮阳一进口冷冻带鱼", "潮流")
    assert format_without_header(path) == TEXTS
    file = RecordFile(path, TEMPLATE, need_target=False)
    assert [record.source for record in file] == ["河南濮阳一进口冷冻带鱼", "潮流"]


@pytest.mark.parametrize("first", ["source,target", "标题", "source", '"原文内容文本"', '{"source": "a\\u0001b"}'])
def test_a_header_stays_one(tmp_path, first):
    path = write(tmp_path / "table.csv", first, "甲,乙")
    assert format_without_header(path) is None


def test_columns_of_the_base(tmp_path):
    path = write(tmp_path / "train.json", '{"src_text": "的一", "tgt_text": "是"}')
    (record,) = RecordFile(path, TEMPLATE)
    assert (record.source, record.target) == ("的一", "是")


def test_columns_of_s2s_ft(tmp_path):
    """Texts, or WordPiece tokens: of these what the tokenizer would write of them, and no number among them."""
    tokens = '{"src": ["的", "km", "##2", "ab", "4", "一"], "tgt": ["##是", "不"]}'
    path = write(tmp_path / "train.json", '{"src": "的一", "tgt": "是"}', tokens, '{"src": ["的", 1], "tgt": ["是"]}')
    first, second, bad = RecordFile(path, TEMPLATE)
    assert (first.source, first.target) == ("的一", "是")
    assert (second.source, second.target) == ("的km2 ab 4一", "是不")
    words = WordPieceTokenizer(
        write_vocabulary(tmp_path / "vocab.txt", ["的", "km", "##2", "ab", "4", "一", "是", "不"])
    )
    assert second.source == words.decode_ids([words.ids[token] for token in ("的", "km", "##2", "ab", "4", "一")])
    assert bad.error == f"{path}, line 3, field src: a list of tokens, each a text, is expected"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("的一", "0 separators U+0001, and one is expected"),
        ("的\x01一\x01是", "2 separators U+0001, and one is expected"),
        ("\x01是", "field source: empty"),
        ("的\x01", "field target: empty"),
        (b"\xb5\xc4\x01\xca\xc7", "not UTF-8"),
    ],
)
def test_bad_lines_name_file_line_and_field(tmp_path, line, message):
    path = write(tmp_path / "pairs.csv", "的\x01一", line)
    good, bad = RecordFile(path, TEMPLATE)
    assert not isinstance(good, BadRecord) and isinstance(bad, BadRecord)
    assert bad.error.startswith(f"{path}, line 2") and message in bad.error


@pytest.fixture
def tokenizer(tmp_path) -> WordPieceTokenizer:
    return WordPieceTokenizer(write_vocabulary(tmp_path / "vocab.txt"))


def make_encoder(tokenizer, **options) -> ExampleEncoder:
    lengths = {"src_length": 40, "tgt_length": 20}
    return ExampleEncoder(FAMILY, tokenizer, TEMPLATE, **{**lengths, **options})


def test_texts_without_a_token(tokenizer, tmp_path):
    """Only control characters: the tokenizer drops them all."""
    path = write(tmp_path / "pairs.csv", "\x02\x03\x01是", "的\x01\x02")
    encoder = make_encoder(tokenizer)
    source, target = encoder.encode(list(RecordFile(path, TEMPLATE)))
    assert str(encoder.source_problem(source)).startswith(f"{path}, line 1, field source: has no token")
    assert encoder.target_problem(source) is None
    assert str(encoder.target_problem(target)).startswith(f"{path}, line 2, field target: has no token")


def test_a_special_token_in_a_text_is_text_and_is_named(tokenizer, tmp_path, capsys):
    assert tokenizer.mask_token_id not in tokenizer.encode_text("的[MASK]是[SEP]")
    path = write(tmp_path / "pairs.csv", "的[MASK]一\x01是", "人\x01我")
    check(["--tokenizer_name_or_path", str(tmp_path), "--task_name", "paraphrase", str(path)])
    shown = capsys.readouterr().out
    assert f"{path}, line 1, field source: holds [MASK], which stays text" in shown
    assert "2 rows read = 2 used + 0 refused" in shown and PAIRS in shown


def test_a_pair_is_cut_together_and_a_prompt_to_what_is_left(tokenizer):
    encoder = make_encoder(tokenizer, max_seq_length=16, tgt_length=6)
    source = encoder.geometry.lay_out(list(range(5, 20)), [])
    example = encoder.example_of(source, list(range(5, 12)))
    assert example.parts == (2 + 7, 6 + 1, 7)  # 16 - 3 = 13 tokens: 7 and 6
    prompt = encoder.prompt(source)
    assert len(prompt) == 10 and prompt.input_ids[-1] == tokenizer.sep_token_id
    assert encoder.prompt(source[:5]).input_ids.tolist() == source[:5]


@pytest.mark.parametrize("tgt_length", [14, 15, 40])
def test_no_room_for_a_source(tokenizer, tgt_length):
    with pytest.raises(InputError, match=f"tgt_length {tgt_length}: leaves no room for a source in max_seq_length 16"):
        make_encoder(tokenizer, max_seq_length=16, tgt_length=tgt_length)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_prob": 0.0}, "mask_prob 0.0"),
        ({"mask_prob": 1.5}, "mask_prob 1.5"),
        ({"max_pred": 0}, "max_pred 0"),
        ({"objective": "causal"}, "objective causal"),
        (
            {"objective": "pseudo_masked", "mask_prob": 0.5},
            "mask_prob 0.5: has no effect with objective pseudo",
        ),
        ({"objective": "pseudo_masked", "target_mask_prob": 2.0}, "target_mask_prob 2.0"),
        ({"target_mask_prob": 0.5}, "target_mask_prob 0.5: has no effect with objective masked"),
    ],
)
def test_objectives_out_of_range(tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        make_encoder(tokenizer, objective=options)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[PAD]", "[UNK]", "[CLS]", "[SEP]"], r"has no \[MASK\]"),
        (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "的", "的"], "line 7: the token '的' is in line 6 too"),
    ],
)
def test_vocabularies_that_are_none(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        WordPieceTokenizer(write(tmp_path / "words.txt", *lines))
