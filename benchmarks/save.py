"""What a checkpoint costs: written aside, hashed, synced and renamed, against PaddleNLP's and against plain files.

python benchmarks/save.py [--model configs/model/base.json] [--repeats 5]
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from paddlenlp.trainer import Trainer  # noqa: E402  (the path has to be set first)

from glm.options.finetune import parse_finetune_arguments  # noqa: E402
from glm.runtime.device import hush, prepare  # noqa: E402
from glm.training import checkpoints  # noqa: E402
from glm.training.setup import build_trainer  # noqa: E402
from glm.training.trainer import GenerationTrainer  # noqa: E402


def trained(model: str, output_dir: Path) -> GenerationTrainer:
    """A trainer that has made a step, so that its optimizer has a state."""
    options = {
        **{"model_name_or_path": model, "tokenizer_name_or_path": ROOT / "data/tokenizer/spm.model"},
        **{"train_file": ROOT / "data/train.json", "output_dir": output_dir, "src_length": 96, "tgt_length": 32},
        **{"max_steps": 1, "save_strategy": "no", "device": "cpu", "disable_tqdm": "true", "report_to": "none"},
    }
    argv = [f"--{name}={value}" for name, value in options.items()] + ["--do_train"]
    trainer, _ = build_trainer(parse_finetune_arguments(argv))
    trainer.train()
    return trainer


@contextmanager
def _plain_folder(target: Path) -> Iterator[Path]:
    target.mkdir(parents=True)
    yield target


def ours(trainer: GenerationTrainer) -> None:
    """A checkpoint as runs write it."""
    trainer._save_checkpoint(trainer.model)


def plain(trainer: GenerationTrainer) -> None:
    """The same files straight to their names: no hash, no sync, no rename."""
    with (
        mock.patch.object(checkpoints, "new_folder", _plain_folder),
        mock.patch.object(checkpoints, "_digest", lambda path, bar=None: ""),
    ):
        trainer._save_checkpoint(trainer.model)


def paddlenlp(trainer: GenerationTrainer) -> None:
    """PaddleNLP's own: pickles of optimizer and scheduler beside the weights."""

    def save(output_dir=None, **options):
        trainer.model.save_pretrained(output_dir, safe_serialization=True, max_shard_size="1024GB")

    with mock.patch.object(trainer, "save_model", save):
        Trainer._save_checkpoint(trainer, trainer.model)


def seconds(save: Callable[[GenerationTrainer], None], trainer: GenerationTrainer) -> float:
    """Of one save into an empty folder."""
    folder = checkpoints.folder_of(Path(trainer.args.output_dir), trainer.state.global_step)
    start = time.perf_counter()
    save(trainer)
    taken = time.perf_counter() - start
    shutil.rmtree(folder)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "configs/model/base.json"))
    parser.add_argument("--folder", help="where to write; a temporary folder if not given")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    hush()
    prepare("cpu")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        trainer = trained(arguments.model, Path(name) / "run")
        size = sum(trainer.expected_sizes()[key] for key in ("checkpoint_bytes",))
        ways = {"PaddleNLP": paddlenlp, "plain files": plain, "ours": ours}
        taken = {title: [] for title in ways}
        for _ in range(arguments.repeats):  # in turn, so that a busy disk is everybody's
            for title, save in ways.items():
                taken[title].append(seconds(save, trainer))
    middle = {title: statistics.median(values) for title, values in taken.items()}
    print(f"checkpoint of {size / 2**20:.0f} MiB, median of {arguments.repeats}")
    for title, value in middle.items():
        print(f"{title:12} {value:6.2f} s   ours takes {middle['ours'] / value:.2f} times as long")


if __name__ == "__main__":
    main()
