"""GanLM's tokenizer: the dictionary decides, special tokens are no text, damaged files are told by line."""

import shutil

import pytest
import sentencepiece

from glm.errors import InputError
from glm.models.ganlm.tokenization import SENTINELS, GanLMTokenizer, open_tokenizer


def test_ids_are_the_dictionarys_lines(ganlm_folder, ganlm_tokenizer):
    model = sentencepiece.SentencePieceProcessor(model_file=str(ganlm_folder / "spm.model"))
    lines = [line.split(" ")[0] for line in (ganlm_folder / "dict.txt").read_text(encoding="utf-8").splitlines()]
    text = "青石镇位于河的北岸，人口大约3万。"
    pieces = model.encode(text, out_type=str)
    assert ganlm_tokenizer.encode_text(text) == [4 + lines.index(piece) for piece in pieces]
    assert ganlm_tokenizer.encode_text([text, ""]) == [ganlm_tokenizer.encode_text(text), []]
    assert ganlm_tokenizer.decode_ids(ganlm_tokenizer.encode_text(text)) == text.replace("，", ",")
    assert ganlm_tokenizer.mask_token_id == 4 + len(lines)
    assert ganlm_tokenizer.vocab_size == 4 + len(lines) + 1 + SENTINELS


def test_special_tokens_in_a_text_are_only_text(ganlm_tokenizer):
    special = set(ganlm_tokenizer.special_ids.values()) - {ganlm_tokenizer.unknown_token_id}
    for text in ("<mask>", "</s>", "<mask_7>", "<pad>"):
        assert not special & set(ganlm_tokenizer.encode_text(text))
    assert ganlm_tokenizer.token_of(ganlm_tokenizer.sentinel_ids[7]) == "<mask_7>"
    assert ganlm_tokenizer.decode_ids([2, 0, 1, 3, ganlm_tokenizer.mask_token_id, *ganlm_tokenizer.sentinel_ids]) == ""


def test_what_is_no_text_is_never_generated(ganlm_tokenizer):
    rows = ganlm_tokenizer.vocab_size + 5
    banned = ganlm_tokenizer.ids_without_text(rows)
    assert banned == {0, 1, 2, 3, *range(ganlm_tokenizer.mask_token_id, rows)}


def test_saved_and_opened_again_it_is_the_same(ganlm_tokenizer, tmp_path):
    ganlm_tokenizer.save(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again.digest == ganlm_tokenizer.digest
    assert again.encode_text("图书馆里有书。") == ganlm_tokenizer.encode_text("图书馆里有书。")


@pytest.mark.parametrize(
    "line, message",
    [
        ("no count\n", r"dict.txt, line 3: a word and its count are expected, not 'no count'"),
        ("\n", r"dict.txt, line 3: a word and its count are expected"),
        ("<s> 1\n", r"dict.txt, line 3: '<s>' is a special token"),
    ],
)
def test_a_damaged_line_is_told(ganlm_folder, tmp_path, line, message):
    shutil.copyfile(ganlm_folder / "spm.model", tmp_path / "spm.model")
    lines = (ganlm_folder / "dict.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "dict.txt").write_text("".join([*lines[:2], line, *lines[2:]]), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        GanLMTokenizer(tmp_path)


def test_missing_and_foreign_files_are_told(ganlm_folder, tmp_path):
    with pytest.raises(InputError, match="the folder has no spm.model"):
        open_tokenizer(tmp_path)
    shutil.copyfile(ganlm_folder / "spm.model", tmp_path / "spm.model")
    with pytest.raises(InputError, match="dict.txt: no such file"):
        open_tokenizer(tmp_path)
    (tmp_path / "spm.model").write_bytes(b"no model")
    with pytest.raises(InputError, match="not a SentencePiece model"):
        open_tokenizer(tmp_path)
