"""Check 21: what cannot be used is refused with its place. Records: test_records.py; runs: test_runs.py and
tests/training/test_bottleneck.py."""

import json
import pickle

import numpy as np
import pytest

from glm.checkpoint.formats import open_checkpoint
from glm.checkpoint.loading import load_config
from glm.errors import InputError, UsageError
from glm.models import registry
from glm.models.protocol import GeometryOptions
from glm.models.vlm.configuration import VLMConfig
from glm.models.vlm.geometry import VLMGeometry
from glm.models.vlm.tokenization import ADDED, TASKS, open_tokenizer
from glm.modules.bottleneck import routes_of_tokens
from glm.options.finetune import parse_finetune_arguments
from glm.options.predict import parse_predict_arguments
from tools.vlm_tools import write_tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    return open_tokenizer(write_tokenizer(tmp_path / "tokenizer", ["how are you", "fine"]))


def test_text_never_becomes_a_tag(tokenizer):
    for text in (*ADDED, "<|endoftext|>", "a <pad> b", " "):
        assert max(tokenizer.encode_text(text), default=0) < tokenizer.end_token_id
    assert (
        tokenizer.encode_text("  ") == []
        and tokenizer.decode_ids(tokenizer.encode_text("how are <pad>")) == "how are <pad>"
    )


def test_ids_out_of_range(tokenizer):
    geometry = VLMGeometry(tokenizer, GeometryOptions("[gMASK]", task=0))
    with pytest.raises(InputError, match=f"token ids 0 to {tokenizer.vocab_size}: there are {tokenizer.vocab_size}"):
        geometry.segments(np.array([0, tokenizer.vocab_size]))


def test_a_part_of_another_task(tokenizer):
    geometry = VLMGeometry(tokenizer, GeometryOptions("[gMASK]", task=list(TASKS).index("nlg")))
    with pytest.raises(InputError, match="parts: persona is none of <name>, <eatType>"):
        geometry.lay_out_parts([("persona", [1])], document_length=9)


def test_more_tokens_than_positions(tokenizer):
    geometry = VLMGeometry(tokenizer, GeometryOptions("[gMASK]", task=0))
    with pytest.raises(InputError, match="src_length 60 [+] tgt_length 30: the model has 64 positions; shorten one"):
        geometry.check_lengths(VLMConfig(max_position_embeddings=64), 60, 30)


@pytest.mark.parametrize("task", [-2, 1, 7])
def test_a_number_without_adapter(task):
    with pytest.raises(InputError, match=rf"task {task}: the model has no adapter for it; it has those of 0 \(mt\)"):
        routes_of_tokens(("mt", ""), np.array([0, task]), [2, 2])


def test_other_tags(tokenizer, tmp_path):
    path = tmp_path / "tokenizer" / "added_tokens.json"
    path.write_text(json.dumps({"<pad>": tokenizer.pad_token_id + 1}), encoding="utf-8")
    with pytest.raises(InputError, match=r"added_tokens.json: <pad> is \d+ and VLM has \d+"):
        open_tokenizer(tmp_path / "tokenizer")


def test_a_table_of_another_size(tokenizer, tmp_path):
    """Neither GPT-2's words nor these and the tags."""
    family = registry.find("vlm")
    sizes = {"hidden_size": 8, "num_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8}
    model = family.model_class()(VLMConfig(vocab_size=tokenizer.vocab_size - 3, **sizes))
    model.save_pretrained(str(tmp_path / "model"), safe_serialization=True)
    with pytest.raises(
        InputError, match=f"{tokenizer.vocab_size - 3} words, but the tokenizer has {tokenizer.vocab_size}"
    ):
        load_config(family, str(tmp_path / "model"), tokenizer)


# Flags of the original's scripts, and what is to be written in their place.
OF_TRAINING = {
    "task": "task_name",
    "dataset_path": "train_file",
    "model_checkpoint": "model_name_or_path",
    "lr": "learning_rate",
    "n_epochs": "num_train_epochs",
    "train_batch_size": "per_device_train_batch_size",
    "valid_batch_size": "per_device_eval_batch_size",
    "max_norm": "max_grad_norm",
}
OF_PREDICTION = {
    "task": "task_name",
    "dataset_path": "test_file",
    "model_checkpoint": "model_name_or_path",
    "no_sample": "select_topk True",
    "max_length": "src_length and --tgt_length",
    "min_length": "min_tgt_length",
}


@pytest.mark.parametrize(
    ("parse", "name", "ours"),
    [
        *((parse_finetune_arguments, *pair) for pair in OF_TRAINING.items()),
        *((parse_predict_arguments, *pair) for pair in OF_PREDICTION.items()),
    ],
)
def test_the_originals_flags_are_answered(parse, name, ours):
    with pytest.raises(UsageError, match=rf"unknown option {name}; here it is --{ours}($|[^\w])"):
        parse([f"--{name}", "1"])


class Asks:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_that_asks_for_code(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"wte.weight": Asks()}, protocol=2))
    with pytest.raises(InputError, match="pytorch_model.bin"):
        open_checkpoint(tmp_path)
    assert capsys.readouterr().out == ""
