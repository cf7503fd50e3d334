"""Every recipe of configs/mglm starts, trains, evaluates and keeps its best: by the command of its header, on data
of a few rows and a small model. About two minutes in all."""

import json
import math
import shlex
from pathlib import Path

import pytest
import sentencepiece
from paddle.utils import unique_name

import finetune_generation
from tools.run_tools import arguments, read_lines, write_records

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted((ROOT / "configs" / "mglm").glob("*.json"))
DROPOUT = dict.fromkeys(("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob"), 0.0)
MODELS = {
    "mglm-1b": {"model_type": "mglm", "num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, **DROPOUT}
    | {"max_sequence_length": 1025, "vocab_size": 384},
    "mt5-large": {"model_type": "mt5", "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 1}
    | {"num_heads": 2},
}
TEXT, SUMMARY, CHINESE = "Tom lived in a small town. He wrote a program.", "Tom wrote.", "石桥建于明朝。"


def test_there_are_recipes():
    assert len(RECIPES) == 16


def nli(name):
    said = {"entailment": "Tom wrote.", "neutral": "He slept.", "contradiction": "He never wrote."}
    return [{"premise": TEXT, "hypothesis": text, "label": label} for label, text in said.items()]


def paraphrases(name):
    return [{"sentence1": TEXT, "sentence2": f"{TEXT}{n}", "label": str(n % 2)} for n in range(3)]


def passages(name):
    """SQuAD's form; of TyDiQA's dev data questions in two languages, which their ids tell."""
    names = ("english", "finnish") if "dev" in name else ("english",)
    asked = [{"id": f"{which}-{n}", "question": f"Who wrote {n}?", "answers": [{"text": "Tom", "answer_start": 0}]}
             for which in names for n in range(2)]  # fmt: skip
    return [{"version": "1", "data": [{"title": "t", "paragraphs": [{"context": TEXT, "qas": asked}]}]}]


def summaries(name):
    pair = {"source": TEXT, "target": CHINESE if "zh" in name or "sci" in name else SUMMARY}
    if "sci" in name or "ncls" in name:
        pair["tgt_lang"] = "zh"
    return [{**pair, "source": f"{TEXT} {n}"} for n in range(3)]


ROWS = {"xnli": nli, "pawsx": paraphrases, "squad_v1": passages, "mlqa": passages, "tydiqa": passages}


def write_data(task, name, path):
    """A file as the header of a recipe names it: rows, or lines of a text and its summaries."""
    if path.suffix == ".txt":
        path.write_text("".join(f"{TEXT} {n}\n{SUMMARY}\n{CHINESE}\n" for n in range(3)), encoding="utf-8")
    elif not path.exists():
        write_records(path, ROWS.get(task, summaries)(name))


def files_of(words, option):
    """The values behind an option of a command."""
    start = words.index(option) + 1
    rest = [place for place, word in enumerate(words[start:]) if word.startswith("--")]
    return words[start : start + rest[0]] if rest else words[start:]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory, sentences, sentencepiece_file):
    """By the name of the published model."""
    folder = tmp_path_factory.mktemp("spiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=str(folder / "spiece"), vocab_size=330,
        character_coverage=1.0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    return {"mglm-1b": sentencepiece_file, "mt5-large": folder / "spiece.model"}


@pytest.mark.sweep
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_runs(recipe, tokenizers, tmp_path, monkeypatch):
    settings = json.loads(recipe.read_text(encoding="utf-8"))
    words = shlex.split(settings["_run"])
    (published,) = files_of(words, "--model_name_or_path")
    monkeypatch.chdir(tmp_path)
    options = {}
    for option in ("train_file", "dev_file"):
        options[option] = files_of(words, f"--{option}")
        for value in options[option]:
            name, _, path = value.partition("=")
            write_data(settings["task_name"], f"{name} {option}", tmp_path / path)
    (tmp_path / "model.json").write_text(json.dumps(MODELS[published]), encoding="utf-8")
    options |= {"model_name_or_path": "model.json", "tokenizer_name_or_path": tokenizers[published], "device": "cpu"}
    options |= {"output_dir": "run", "num_train_epochs": 1, "per_device_train_batch_size": 2, "logging_steps": 1}
    options |= {"report_to": "none", "disable_tqdm": "true", "warmup_ratio": 0.0}
    with unique_name.guard():
        assert finetune_generation.main([str(recipe), *arguments(options)]) == 0
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses and all(map(math.isfinite, losses))
    figure = f"eval_{settings['metric_for_best_model']}"
    evaluated = [row for row in rows if figure in row]  # after the epoch, and the best at the end
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["best_metric"] == pytest.approx(max(row[figure] for row in evaluated))
    sets = [value.partition("=")[0] for value in options["dev_file"]]
    if len(sets) > 1:
        assert all(any(name.startswith(f"eval_{of_set}/") for name in evaluated[-1]) for of_set in sets)
    assert (tmp_path / "run" / "model.safetensors").is_file()
