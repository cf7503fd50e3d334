"""Ids of the multilingual GLM's tokens, and what it never generates."""

import pytest

from glm.checkpoint.loading import load_config
from glm.errors import InputError
from glm.models.mglm import FAMILY
from glm.models.mglm.configuration import MGLMConfig
from glm.models.mglm.geometry import MGLMGeometry
from glm.models.mglm.tokenization import MODEL_FILE, MGLMTokenizer
from glm.models.protocol import GeometryOptions


@pytest.fixture(scope="module")
def pieces(sentencepiece_file):
    return MGLMTokenizer(str(sentencepiece_file))


OFFSETS = {"<|endoftext|>": 0, "[CLS]": 2, "[MASK]": 3, "<|startofpiece|>": 6, "<|endofpiece|>": 7}
OFFSETS |= {"[sMASK]": 8, "[gMASK]": 9, "[dBLOCK]": 10}


def check_commands(tokenizer):
    n = len(tokenizer.sp_model)
    assert {token: number - n for token, number in tokenizer.special_ids.items() if token in OFFSETS} == OFFSETS
    rows = -(-tokenizer.vocab_size // 128) * 128
    assert (set(range(n, rows)) - {tokenizer.end_token_id}) <= tokenizer.ids_without_text(rows)
    assert n + 5 in tokenizer.ids_without_text(rows)  # the hole


def test_command_ids(pieces):
    check_commands(pieces)


@pytest.mark.conformance
def test_command_ids_of_the_reference(golden_tokenizer):
    """Check 5."""
    check_commands(golden_tokenizer)


def test_saved_and_opened(pieces, tmp_path):
    FAMILY.save_tokenizer(pieces, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL_FILE]
    opened = FAMILY.open_tokenizer(tmp_path)
    assert opened.digest == pieces.digest and opened.special_ids == pieces.special_ids


def test_vocabulary_smaller_than_the_tokenizer(pieces, tmp_path):
    n = len(pieces.sp_model)
    FAMILY.config_class()(vocab_size=n + 9, num_layers=1, hidden_size=4, num_attention_heads=2).save_pretrained(
        str(tmp_path)
    )
    with pytest.raises(InputError):
        load_config(FAMILY, str(tmp_path), pieces)


def test_each_part_has_its_own_table(pieces):
    geometry = MGLMGeometry(pieces, GeometryOptions("[sMASK]"))
    config = MGLMConfig(
        vocab_size=512,
        num_layers=1,
        hidden_size=4,
        num_attention_heads=2,
        max_sequence_length=17,
        additional_sequence_length=3,
    )
    geometry.check_lengths(config, 20, 19)
    assert geometry.room(config, 20) == 19
    with pytest.raises(InputError, match="src_length 21"):
        geometry.check_lengths(config, 21, 5)
    with pytest.raises(InputError, match="tgt_length 20"):
        geometry.check_lengths(config, 5, 20)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"additional_sequence_length": -1}, "additional_sequence_length -1"),
        ({"prefix_prompt": -1}, "prefix_prompt -1"),
        ({"prompt_func": "gru", "prefix_prompt": 1}, "prompt_func gru"),
        ({"prompt_func": "mlp"}, "prompt_func mlp"),
    ],
)
def test_impossible_configurations(settings, named):
    with pytest.raises(InputError, match=named):
        MGLMConfig(num_layers=1, hidden_size=4, num_attention_heads=2, **settings)
