"""This toolkit's Trainer on records of a file: one epoch as `finetune_generation.py` runs it, but for saving."""

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from paddlenlp.trainer import TrainerCallback
from settings import settle
from train_work import LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, TrainWork, report

from glm.options.finetune import parse_finetune_arguments
from glm.training.setup import build_trainer


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(perf_counter())


def options(work: TrainWork, folder: Path) -> list[str]:
    """The command line of the run."""
    size, dropout = work.size, str(work.dropout)
    config = {"num_layers": size.layers, "hidden_size": size.hidden, "num_attention_heads": size.heads}
    (folder / "model.json").write_text(json.dumps(config | {"max_sequence_length": 1024}), encoding="utf-8")
    lines = Path(work.data).read_text(encoding="utf-8").splitlines()
    chosen = np.linspace(0, len(lines) - 1, min(work.records or len(lines), len(lines))).astype(int)
    (folder / "train.json").write_text("\n".join(lines[place] for place in chosen), encoding="utf-8")
    settings = {
        "model_name_or_path": folder / "model.json",
        "tokenizer_name_or_path": work.tokenizer,
        "train_file": folder / "train.json",
        "data_cache_dir": folder / "cache",
        "output_dir": folder / "run",
        "src_length": work.source,
        "tgt_length": work.target,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_GRAD_NORM,
        "label_smoothing": work.label_smoothing,
        "attention_dropout_prob": dropout,
        "embedding_dropout_prob": dropout,
        "output_dropout_prob": dropout,
        "save_strategy": "no",
        "report_to": "none",
        "device": "cpu",
    }
    settings |= {"max_tokens": work.max_tokens} if work.max_tokens else {"per_device_train_batch_size": work.batch}
    return ["--do_train", "--group_by_length", *(f"--{name}={value}" for name, value in settings.items())]


def main() -> None:
    """Trains, and reports seconds per record of the steps behind the first ones."""
    work = TrainWork(**json.loads(sys.argv[1]))
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = parse_finetune_arguments(options(work, Path(folder)))
        settle(work)
        trainer, data = build_trainer(arguments)
        clock = Clock()
        trainer.add_callback(clock)
        built = perf_counter()
        trainer.train()
    examples = [trainer.sampler.step_examples(step) for step in range(len(clock.ends))]
    counted = [len(chosen) for chosen in examples[work.warm_up :]]
    elapsed = clock.ends[-1] - clock.ends[work.warm_up - 1]
    tokens = sum(int(data.train_examples.lengths[chosen].sum()) for chosen in examples[work.warm_up :])
    figures = {"seconds": elapsed / sum(counted), "tokens": tokens / elapsed, "build": built - start}
    figures |= {"warm_up": clock.ends[work.warm_up - 1] - built, "records": sum(counted)}
    report(figures, ["paddlepaddle", "paddlenlp", "numpy"])


if __name__ == "__main__":
    main()
