"""Names of other tools' options: each leads to an option that there is, or to a reason; none is doubled."""

import re

import pytest

from glm.options.finetune import parse_finetune_arguments
from glm.options.foreign_names import BY_OPTION, BY_REASON, NONE, OURS
from glm.options.predict import parse_predict_arguments
from glm.options.suggestions import option_advice
from options.test_walk import FINETUNE, PREDICT, options_of

VERBS_OPTIONS = {"positions", "help", "protocols"}  # of python -m glm


@pytest.fixture
def known(monkeypatch) -> tuple[list[str], list[str]]:
    """The options of both scripts."""
    monkeypatch.setattr("sys.argv", ["x"])
    return (
        options_of(parse_finetune_arguments, FINETUNE, monkeypatch),
        options_of(parse_predict_arguments, PREDICT, monkeypatch),
    )


def test_every_name_leads_to_an_option_that_there_is(known):
    ours = {*known[0], *known[1]}
    for option in BY_OPTION:
        first, *others = re.split(r", --| and --| or --", option)
        for name in (first.split()[0], *others):
            assert name in ours, option
    for reason in BY_REASON:
        for name in re.findall(r"--(\w+)", reason):
            assert name in ours | VERBS_OPTIONS, reason


def test_no_name_is_one_of_ours_or_stands_twice(known):
    names = [name for table in (BY_OPTION, BY_REASON) for texts in table.values() for name in texts.split()]
    assert len(names) == len(set(names)) == len(OURS) + len(NONE)
    assert not set(names) & set(known[0]) & set(known[1])


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("validation_file", "here it is --dev_file"),  # transformers
        ("attn_implementation", "the fastest attention"),
        ("num_beam_groups", "beams are those of one group"),
        ("cutoff_len", "here it is --src_length and --tgt_length"),  # LLaMA-Factory
        ("train_on_prompt", "the loss is on the target alone"),
        ("quantization_method", "weights are not quantized"),
        ("truncation_strategy", "a source that is too long is cut"),  # ms-swift
        ("sft_type", "here it is --lora or --prefix_tuning"),
        ("zero_padding", "here it is --packing"),  # PaddleNLP
        ("pipeline_parallel_degree", "layers are not split over a pipeline"),
        ("src_seq_length", "here it is --src_length"),  # THUDM/GLM
        ("experiment-name", "here it is --run_name"),
        ("max_sentences", "here it is --per_device_train_batch_size"),  # fairseq
        ("reset-optimizer", "a checkpoint is gone on with as it was"),
        ("sample_packing", "here it is --packing"),  # axolotl
        ("val_set_size", "split the file beforehand"),
        ("num_training_epochs", "here it is --num_train_epochs"),  # UniLM s2s-ft
        ("forbid_duplicate_ngrams", "here it is --no_repeat_ngram_size"),
        ("lora_path", "it is --adapters of predict.py"),
        ("mumble", ""),
    ],
)
def test_what_is_said_of_a_name(known, name, advice):
    said = option_advice(name, known[0], elsewhere="predict.py")
    assert advice in said and bool(advice) == bool(said)
