"""Every option of every verb with absurd, negative, zero and huge values: work that is done, or one line that says why
not; a traceback never."""

import errno
import json
import shutil

import pytest

from glm.__main__ import VERBS
from glm.__main__ import main as glm_main
from glm.commands.parser import Parser
from glm.errors import InputError, UsageError
from glm.training.pretrain import main as pretrain_main
from options.test_walk import VALUES
from tools.run_tools import make_workspace, write_records

MORE = ("/proc/nowhere", "a" * 5000, "-99999999999999999999", "../..")


@pytest.fixture(scope="module")
def commands(tmp_path_factory, sentencepiece_file) -> dict[str, list[str]]:
    """A command of each verb that needs no weights, as it works; `{out}` is a new path."""
    folder = tmp_path_factory.mktemp("verbs")
    workspace = make_workspace(folder, sentencepiece_file)
    data, tokenizer = str(folder / "train.json"), ["--tokenizer_name_or_path", str(sentencepiece_file)]
    lengths = ["--src_length", "60", "--tgt_length", "30"]
    rows = [
        {"id": number, "source": "甲", "predictions": [{"text": text, "score": -1.0}], "reference": "松江"}
        for number, text in enumerate(("松江", "白鹿湖", ""))
    ]
    write_records(folder / "p.jsonl", rows)
    predictions = str(folder / "p.jsonl")
    return {
        "check": ["check", data, *tokenizer, *lengths],
        "show": ["show", data, "--line", "1", *tokenizer, *lengths],
        "score": ["score", predictions],
        "report": ["report", predictions, "--output_dir", "{out}"],
        "compare": ["compare", predictions, predictions],
        "memory": ["memory", str(workspace.folder / "model.json"), *lengths],
        "scaling": ["scaling", "--layers", "2", "--hidden", "8"],
    }


def options_of(command: list[str], monkeypatch) -> list[str]:
    """The options of a verb's command line, by its parser."""
    found = []
    add = Parser.add_argument

    def noted(self, *names, **options):
        found.extend(name[2:] for name in names if name.startswith("--"))
        return add(self, *names, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Parser, "add_argument", noted)
        patch.setattr(Parser, "print_help", lambda self, file=None: found.extend(vars(self).get("known", ())))
        with pytest.raises(SystemExit):
            glm_main([command[0], "--help"])
    return [name for name in dict.fromkeys(found) if name and name not in ("help", "image", "output_dir")]


@pytest.mark.parametrize("verb", ["check", "show", "score", "report", "compare", "memory", "scaling"])
def test_every_option_with_every_value(commands, verb, monkeypatch, tmp_path, capsys):
    names = options_of(commands[verb], monkeypatch)
    assert len(names) >= (1 if verb == "report" else 3)
    monkeypatch.chdir(tmp_path)
    refused = 0
    for name in names:
        for number, value in enumerate((*VALUES, *MORE)):
            out = tmp_path / f"{name}-{number}"
            command = [str(out) if word == "{out}" else word for word in commands[verb]]
            try:
                glm_main([*command, f"--{name}={value}"])
            except (InputError, UsageError) as error:
                refused += 1
                for message in error.messages:
                    assert "\n" not in message and len(message) < 3000, (name, value, message)
            except OSError as error:  # which `glm.runtime.entry.run` prints as a line
                assert error.errno == errno.ENAMETOOLONG, (name, value)
            said = capsys.readouterr()
            assert "Traceback" not in said.err
            shutil.rmtree(out, ignore_errors=True)
    assert refused > 3 * len(names)


def test_every_verb_is_walked(commands):
    """Those that load a model or write a run are tried by their own tests."""
    apart = {"pretrain", "doctor", "perplexity", "merge", "adapters", "distill", "checkpoint"}
    assert commands.keys() | apart == VERBS.keys()


@pytest.mark.parametrize("value", [*VALUES, *MORE])
@pytest.mark.parametrize(
    "command",
    [
        ["perplexity", "--model_name_or_path", "{model}", "--test_file", "{data}", "--device", "cpu", "--seq_length"],
        ["perplexity", "--model_name_or_path", "{model}", "--test_file", "{data}", "--device", "cpu", "--overlap"],
        ["perplexity", "--model_name_or_path", "{model}", "--test_file", "{data}", "--device"],
        ["distill", "--teacher", "{model}", "--train_file", "{data}", "--output_file", "{out}", "--tgt_length"],
        ["distill", "--teacher", "{model}", "--train_file", "{data}", "--device", "cpu", "--output_file"],
        ["merge", "--adapter", "{data}", "--output_dir", "{out}", "--lora"],
        ["doctor", "--device"],
        ["doctor", "--device", "cpu", "--tensor_parallel_degree"],
        ["checkpoint", "import", "{model}", "{out}", "--positions"],
        ["checkpoint", "import", "{model}", "{out}", "--preset"],
        ["checkpoint", "export", "{model}", "{out}", "--to"],
        ["checkpoint", "export", "{model}", "{out}", "--to", "megatron", "--tensor_parallel_degree"],
        ["checkpoint", "reshard", "{model}", "{out}", "--tensor_parallel_degree"],
    ],
    ids=lambda command: " ".join(word for word in command if word[0] != "{"),
)
def test_verbs_that_load_a_model(command, value, tmp_path, monkeypatch, capsys):
    """A folder that is no model stands for the model: what is wrong on the command line comes first, and in a line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "data.json").write_text(json.dumps({"context": "甲", "answer": "甲", "question": "谁"}) + "\n")
    places = {"{model}": "model", "{data}": "data.json", "{out}": "out"}
    words = [places.get(word, word) for word in command]
    last = words.pop()
    try:
        with pytest.raises((InputError, UsageError)) as caught:
            glm_main([*words, f"{last}={value}"])
    except OSError as error:
        assert error.errno == errno.ENAMETOOLONG
    else:
        assert all("\n" not in message for message in caught.value.messages)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "model"]


def test_every_option_of_pretraining(monkeypatch, tmp_path):
    from glm.options.parser import OptionParser

    monkeypatch.chdir(tmp_path)
    parsers = []
    with monkeypatch.context() as patch:
        patch.setattr(OptionParser, "print_help", lambda self: parsers.append(self))
        with pytest.raises(SystemExit):
            pretrain_main(["--help"])
    names = [name for name, action in parsers[0].known.items() if action.help != "==SUPPRESS==" and name != "help"]
    names = [name for name in names if name]
    command = ["--output_dir", "out", "--train_data", "nowhere.txt", "--device", "cpu", "--max_steps", "1"]
    command += ["--model_name_or_path", "nowhere.json", "--tokenizer_name_or_path", "nowhere.model"]
    assert len(names) > 40
    for name in names:
        for value in (*VALUES, *MORE[:3]):
            with pytest.raises((InputError, UsageError)) as caught:
                pretrain_main([*command, f"--{name}={value}"])
            assert all("\n" not in message for message in caught.value.messages), (name, value)
    assert list(tmp_path.iterdir()) == []
