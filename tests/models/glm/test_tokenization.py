"""The tokenizer: the ids of GLM's own tokens, text as text, saving, and (opt-in) the published model."""

import json
import shutil

import pytest

from glm.errors import InputError
from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer

N = 340  # pieces of the tokenizer in conftest
COMMANDS = {
    "<|endoftext|>": 0,
    "[SEP]": 1,
    "[CLS]": 2,
    "[MASK]": 3,
    "[UNK]": 4,
    "<|startofpiece|>": 6,
    "<|endofpiece|>": 7,
    "[sMASK]": 8,
    "[gMASK]": 9,
}


def assert_ids(tokenizer, n):
    """GLM's layout: command tokens after the n pieces, offset 5 a hole (fact sheet, section 2)."""
    for token, offset in COMMANDS.items():
        assert tokenizer.convert_tokens_to_ids(token) == n + offset, token
        assert tokenizer.convert_ids_to_tokens(n + offset) == token
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == n
    assert tokenizer.sep_token_id == n + 1
    assert tokenizer.cls_token_id == n + 2
    assert tokenizer.mask_token_id == n + 3
    assert tokenizer.unk_token_id == n + 4
    assert tokenizer.sop_token_id == n + 6
    assert tokenizer.eop_token_id == n + 7
    assert tokenizer.mask_token_ids == (n + 3, n + 8, n + 9)
    assert tokenizer.vocab_size == len(tokenizer) == n + 10
    vocabulary = tokenizer.get_vocab()
    assert n + 5 not in vocabulary.values()
    assert len(set(vocabulary.values())) == len(vocabulary) == n + 9


def test_ids_of_command_tokens(tokenizer):
    assert_ids(tokenizer, N)


def test_ids_of_pieces(tokenizer):
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<unk>", "<s>", "</s>", "<n>"]
    for number in range(N):
        assert tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(number)) == number


def test_texts_come_back(tokenizer, sentences):
    for text in sentences:
        ids = tokenizer.encode_text(text)
        assert max(ids) < N and 0 not in ids
        # full-width punctuation is normalised by SentencePiece
        assert tokenizer.decode_ids(ids) == text.translate(str.maketrans("，：？；！", ",:?;!"))
    assert tokenizer.encode_text(list(sentences)) == [tokenizer.encode_text(text) for text in sentences]
    assert tokenizer.encode_text("") == [] and tokenizer.decode_ids([]) == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_command_token_is_text_to_encode_text_and_an_id_to_a_call(tokenizer, command):
    number = N + COMMANDS[command]
    text = f"春天{command}石桥"
    ids = tokenizer.encode_text(text)
    assert max(ids) < N
    assert tokenizer.decode_ids(ids) == text

    left, right = tokenizer.encode_text("春天"), tokenizer.encode_text("石桥")
    assert tokenizer(text)["input_ids"] == [N + 2, *left, number, *right, N]
    assert tokenizer.tokenize(text).count(command) == 1
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == f"[CLS]春天{command}石桥<|endoftext|>"
    assert tokenizer.decode_ids(tokenizer(text)["input_ids"]) == "春天 石桥"  # each part has its own leading space


def test_ids_beyond_the_vocabulary_are_left_out(tokenizer):
    ids = tokenizer.encode_text("春天")
    assert tokenizer.decode_ids([N + 6, *ids, N + 7, N + 5, N + 43, 10**6]) == "春天"
    assert tokenizer.convert_ids_to_tokens([N + 5, N + 43]) == ["[UNK]", "[UNK]"]


def test_call_pads_and_wraps(tokenizer):
    short, long = tokenizer.encode_text("春天"), tokenizer.encode_text("春天来了")
    batch = tokenizer(["春天", "春天来了"], padding=True)
    width = len(long) + 2
    padding = len(long) - len(short)
    assert batch["input_ids"] == [[N + 2, *short, N] + [N] * padding, [N + 2, *long, N]]
    assert batch["attention_mask"] == [[1] * (width - padding) + [0] * padding, [1] * width]
    with pytest.raises(InputError, match="pairs"):
        tokenizer("春天", "来了")


def test_saved_and_reloaded_is_identical(tokenizer, sentences, tmp_path):
    folders = [tmp_path / name for name in ("first", "second", "third")]
    reloaded = tokenizer
    for folder in folders:
        reloaded.save_pretrained(str(folder))
        reloaded = GLMTokenizer.from_pretrained(str(folder))
        assert_ids(reloaded, N)
        assert reloaded.get_vocab() == tokenizer.get_vocab()
        texts = [*sentences, "", "  两个 空格 ", "[gMASK]<|startofpiece|>", "换\n行", "😀"]
        assert reloaded.encode_text(texts) == tokenizer.encode_text(texts)
        assert [reloaded(text)["input_ids"] for text in texts] == [tokenizer(text)["input_ids"] for text in texts]
    saved = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert set(saved[0]) == {"cog-pretrain.model", "special_tokens_map.json", "tokenizer_config.json"}
    assert saved[0] == saved[1] == saved[2]
    # nothing tells where it came from, and saving over itself changes nothing
    assert str(tmp_path) not in saved[2]["tokenizer_config.json"].decode()
    reloaded.save_pretrained(str(folders[2]))
    assert {path.name: path.read_bytes() for path in folders[2].iterdir()} == saved[0]


def test_a_saved_folder_stands_alone(sentencepiece_file, sentences, tmp_path):
    model_file = tmp_path / "other-name.model"
    shutil.copyfile(sentencepiece_file, model_file)
    tokenizer = GLMTokenizer(str(model_file))
    want = tokenizer.encode_text(sentences)
    tokenizer.save_pretrained(str(tmp_path / "saved"))
    model_file.unlink()
    assert GLMTokenizer.from_pretrained(str(tmp_path / "saved")).encode_text(sentences) == want


@pytest.mark.parametrize("content", [b"", b"not a model", None], ids=["empty", "rubbish", "missing"])
def test_broken_model_file_is_an_error_that_names_it(tmp_path, content):
    model_file = tmp_path / "broken.model"
    if content is not None:
        model_file.write_bytes(content)
    with pytest.raises(InputError, match="broken.model"):
        GLMTokenizer(str(model_file))


def test_cut_model_file_is_an_error_that_names_it(sentencepiece_file, tmp_path):
    content = sentencepiece_file.read_bytes()
    (tmp_path / "cut.model").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cut.model"):
        GLMTokenizer(str(tmp_path / "cut.model"))


# -- the published model (opt-in)


@pytest.fixture(scope="module")
def published(real_data):
    return GLMTokenizer(str(real_data / "tokenizers" / "cog-pretrain.model"))


def test_published_ids(published):
    assert_ids(published, 50000)
    assert published.convert_ids_to_tokens([0, 1, 2, 3]) == ["<unk>", "<s>", "</s>", "<n>"]


def test_published_vectors(published, real_data):
    lines = (real_data / "tokenizers" / "cog-pretrain.vectors.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 100
    for line in lines:
        vector = json.loads(line)
        ids = published.encode_text(vector["text"])
        assert ids == vector["ids"], line
        assert published.convert_ids_to_tokens(ids) == vector["pieces"], line
        assert published.decode_ids(ids) == vector["decoded"], line


def test_published_saved_and_reloaded(published, real_data, tmp_path):
    published.save_pretrained(str(tmp_path / "first"))
    reloaded = GLMTokenizer.from_pretrained(str(tmp_path / "first"))
    reloaded.save_pretrained(str(tmp_path / "second"))
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    original = (real_data / "tokenizers" / "cog-pretrain.model").read_bytes()
    assert (tmp_path / "second" / "cog-pretrain.model").read_bytes() == original
