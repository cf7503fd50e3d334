"""Every option of both scripts with absurd, negative, zero and huge values: accepted, or a line that names it."""

import pytest

from glm.errors import InputError, UsageError
from glm.options.finetune import RANGES, parse_finetune_arguments
from glm.options.parser import OptionParser
from glm.options.predict import parse_predict_arguments
from tools.run_tools import make_workspace

FINETUNE = ["--output_dir", "out", "--do_train", "--train_file", "t.json", "--device", "cpu"]
PREDICT = ["--device", "cpu", "--test_file", "t.json"]
VALUES = ("absurd", "-1", "0", "-0.5", "1e30", "99999999999999999999", "nan", "inf", "-inf", "", "\x00")
VALUES += ("中文", "[]", "{")


def options_of(parse, argv, monkeypatch) -> list[str]:
    """The names in --help."""
    parsers = []
    monkeypatch.setattr(OptionParser, "print_help", lambda self: parsers.append(self))
    with pytest.raises(SystemExit):
        parse([*argv, "--help"])
    return [name for name, action in parsers[0].known.items() if action.help != "==SUPPRESS==" and name != "help"]


@pytest.mark.parametrize(("parse", "argv"), [(parse_finetune_arguments, FINETUNE), (parse_predict_arguments, PREDICT)])
def test_every_option_with_every_value(parse, argv, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = options_of(parse, argv, monkeypatch)
    assert len(names) > 40
    refused = 0
    for name in names:
        for value in VALUES:
            try:
                parse([*argv, f"--{name}={value}"])
            except UsageError as error:
                refused += 1
                about = [message for message in error.messages if name in message]
                assert about or name.startswith("no_"), (name, value, error.messages)
                assert all("\n" not in message for message in error.messages), (name, value)
            else:
                assert value not in ("nan", "-inf") or name not in RANGES, (name, value)
    assert refused > 5 * len(names)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sweep  # two minutes
@pytest.mark.parametrize("name", sorted(RANGES))
@pytest.mark.parametrize("which", [0, 1])
def test_the_ends_of_ranges_train_or_are_an_error(tmp_path_factory, sentencepiece_file, name, which):
    """What is allowed at most, and at least, is followed by no traceback."""
    workspace = make_workspace(tmp_path_factory.mktemp("walk"), sentencepiece_file)
    value = RANGES[name][which]
    if isinstance(RANGES[name][0], int) and name not in ("weight_decay", "warmup_ratio", "max_grad_norm"):
        value = int(value)
    options = {name: value, "max_steps": 1}
    if name in ("max_steps", "num_train_epochs", "dataloader_num_workers") and which:
        pytest.skip("takes long, and is what was asked for")
    more = {
        "recompute_layers": {"recompute": True},
        "power": {"lr_scheduler_type": "polynomial"},
        "scale_loss": {"fp16": True},
        "eval_steps": {"do_eval": True, "dev_file": workspace.folder / "dev.json"},
        "max_tokens": {"per_device_train_batch_size": None},
        "early_stopping_patience": {"do_eval": True, "dev_file": workspace.folder / "dev.json", "eval_steps": 1,
                                    "save_strategy": "steps", "save_steps": 1, "metric_for_best_model": "loss"},
        "save_steps": {"save_strategy": "steps"},
    }.get(name, {})  # fmt: skip
    try:
        workspace.finetune("run", **options | more)
    except InputError as error:
        assert all("\n" not in message for message in error.messages)
