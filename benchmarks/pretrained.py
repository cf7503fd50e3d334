"""Whether pretraining pays: one small model fine-tuned from random weights, and after minutes of pretraining.

python benchmarks/pretrained.py --data FOLDER [--seeds 1 2 3]

The corpus is the passages of the other data sets in FOLDER (CORPORA); one that shares WINDOW characters in a row with
a dev passage of the target is left out. Both sides are fine-tuned by the same command on the same records; only where
they start from differs. Both have a tokenizer that SentencePiece makes of the corpus and of the training records: the
pieces of a large one would be seen too seldom. Rows are seeds, of the weights, of pretraining and of fine-tuning. With
--folder the runs are kept, and the same command goes on where it was interrupted.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import glm  # noqa: E402, F401, I001  (before Paddle, whose import sets the number of threads)

import sentencepiece  # noqa: E402
from paddle.utils import unique_name  # noqa: E402
from running import markdown  # noqa: E402

import finetune_generation  # noqa: E402
from glm.training import pretrain  # noqa: E402
from glm.training.run_folder import DONE_NAME  # noqa: E402

CORPORA = {"cmrc2018_qg": "context", "dureader_checklist_qg": "context", "csl_title": "source"}
TARGET = "dureader_qg"
WINDOW = 20  # characters
FIGURES = ("loss", "bleu-4 (char, corpus)", "rouge-l (char)")


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
    parser.add_argument("--steps", type=int, default=1000, help="of pretraining")
    parser.add_argument("--seq_length", type=int, default=320, help="of pretraining; fine-tuning has up to 296 tokens")
    parser.add_argument("--batch", type=int, default=8, help="of pretraining")
    parser.add_argument("--dev_records", type=int, default=200)
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of pretraining")
    parser.add_argument("--folder", type=Path, help="for the runs; a temporary one if not given")
    values = parser.parse_args()
    rows = []
    with nullcontext(values.folder) if values.folder else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        write_corpus(values, folder)
        for split, most in (("train", values.records), ("dev", values.dev_records)):
            lines = (values.data / TARGET / f"{split}.json").read_text(encoding="utf-8").splitlines(keepends=True)
            (folder / f"{split}.json").write_text("".join(lines[:most]), encoding="utf-8")
        train_tokenizer(values, folder)
        for seed in values.seeds:
            pretrained = run_pretraining(values, folder, seed)
            for side, model in (("random", str(ROOT / "configs/model/small.json")), ("pretrained", pretrained)):
                figures = finetuned(values, folder, seed, model, f"{side}-{seed}")
                shown = [f"{figures[f'eval_{figure}']:.3f}" for figure in FIGURES]
                rows.append([str(seed), side, *shown])
                print(rows[-1], flush=True)
    print(markdown(["seed", "start", "dev loss", "BLEU-4", "ROUGE-L"], rows))


def passages(data: Path, name: str, column: str) -> Iterator[str]:
    """The passages of a data set, each once."""
    lines = (data / name / "train.json").read_text(encoding="utf-8").splitlines()
    yield from dict.fromkeys(json.loads(line)[column].strip() for line in lines)


def write_corpus(values: argparse.Namespace, folder: Path) -> None:
    """Writes the passages that share no window with a dev passage, as JSON lines."""
    lines = (values.data / TARGET / "dev.json").read_text(encoding="utf-8").splitlines()
    held_out = set()
    for line in lines:
        text = re.sub(r"\s", "", json.loads(line)["context"])
        held_out |= {text[place : place + WINDOW] for place in range(len(text) - WINDOW + 1)}
    kept = left_out = 0
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
        for name, column in CORPORA.items():
            for passage in passages(values.data, name, column):
                text = re.sub(r"\s", "", passage)
                if any(text[place : place + WINDOW] in held_out for place in range(len(text) - WINDOW + 1)):
                    left_out += 1
                    continue
                file.write(json.dumps({"text": passage}, ensure_ascii=False) + "\n")
                kept += 1
    print(f"{kept} passages, {left_out} left out for they share {WINDOW} characters with a dev passage", flush=True)


def train_tokenizer(values: argparse.Namespace, folder: Path) -> None:
    """Writes `spm.model`, of the corpus and the records that are trained on."""
    texts = [json.loads(line)["text"] for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in (folder / "train.json").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts += [row["context"], row["question"]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "spm"),
        vocab_size=values.vocab_size,
        user_defined_symbols=["<n>"],  # a line break, as GLM's tokenizer has it
        max_sentence_length=1 << 20,
        minloglevel=2,
    )


def run_pretraining(values: argparse.Namespace, folder: Path, seed: int) -> str:
    """Pretrains a model; returns its folder."""
    output = folder / f"pretrained-run-{seed}"
    settings = {
        "model_name_or_path": ROOT / "configs/model/small.json",
        "tokenizer_name_or_path": folder / "spm.model",
        "train_data": folder / "corpus.jsonl",
        "data_cache_dir": folder / "cache",
        "seq_length": values.seq_length,
        "max_steps": values.steps,
        "per_device_train_batch_size": values.batch,
        "learning_rate": values.learning_rate,
        "warmup_ratio": 0.06,
        "weight_decay": 0.1,
        "output_dir": output,
        **common(seed),
    }
    if not (output / DONE_NAME).exists():
        with unique_name.guard():
            pretrain.main([f"--{name}={value}" for name, value in settings.items()])
    return str(output)


def finetuned(values: argparse.Namespace, folder: Path, seed: int, model: str, name: str) -> dict[str, float]:
    """The figures of the dev records after fine-tuning."""
    settings = {
        "model_name_or_path": model,
        "tokenizer_name_or_path": folder / "spm.model",
        "train_file": folder / "train.json",
        "dev_file": folder / "dev.json",
        "data_cache_dir": folder / "cache",
        "src_length": 256,
        "tgt_length": 40,
        "num_beams": 4,
        "num_train_epochs": values.epochs,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 16,
        "learning_rate": 5e-4,
        "warmup_ratio": 0.06,
        "weight_decay": 0.1,
        "output_dir": folder / name,
        **common(seed),
    }
    results = folder / name / "eval_results.json"
    if not results.exists():
        argv = [f"--{key}={value}" for key, value in settings.items()]
        with unique_name.guard():
            finetune_generation.main(["--do_train", "--do_eval", *argv])
    return json.loads(results.read_text(encoding="utf-8"))


def common(seed: int) -> dict[str, object]:
    """What both runs have."""
    return {
        "seed": seed,
        "device": "cpu",
        "report_to": "none",
        "disable_tqdm": "true",
        "save_steps": 100,
        "save_total_limit": 1,
        "logging_steps": 50,
    }


if __name__ == "__main__":
    main()
