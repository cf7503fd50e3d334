"""Whether training faster is training as well: dev loss of this toolkit and of PaddleNLP's own GLM, side by side.

python benchmarks/quality.py --train_file train.json --dev_file dev.json --tokenizer cog-pretrain.model

Both start from the same random weights and see the same records in the same order, at the same learning rate.
PaddleNLP's model runs in the loop of its example: padding, a mask of 0 and 1, logits of all positions. The dev loss of
both is that of the toolkit's model with their weights, so that only training can differ. Rows are seeds: they show
what chance does.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import glm  # noqa: E402, F401, I001  (before Paddle, whose import sets the number of threads)

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from paddlenlp import transformers as paddlenlp  # noqa: E402
from running import markdown  # noqa: E402
from tqdm import trange  # noqa: E402

from glm.options.finetune import parse_finetune_arguments  # noqa: E402
from glm.runtime.device import hush, prepare  # noqa: E402
from glm.training.setup import build_trainer  # noqa: E402
from glm.training.trainer import GenerationTrainer  # noqa: E402


def options(values: argparse.Namespace, seed: int, folder: Path) -> list[str]:
    """The command line of the run."""
    config = {"num_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "max_sequence_length": 1024}
    (folder / "model.json").write_text(json.dumps(config), encoding="utf-8")
    lines = Path(values.train_file).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train.json").write_text("".join(lines[: values.records or None]), encoding="utf-8")
    settings = {
        "model_name_or_path": folder / "model.json",
        "tokenizer_name_or_path": values.tokenizer,
        "train_file": folder / "train.json",
        "dev_file": values.dev_file,
        "data_cache_dir": folder / "cache",
        "output_dir": folder / "run",
        "src_length": 608,
        "tgt_length": 160,
        "num_train_epochs": max(values.epochs),
        "per_device_train_batch_size": values.batch_size,
        "learning_rate": values.learning_rate,
        "warmup_ratio": 0.06,
        "weight_decay": 0.1,
        "label_smoothing": 0.0,
        "seed": seed,
        "report_to": "none",
        "device": "cpu",
    }
    settings |= {f"{part}_dropout_prob": values.dropout for part in ("attention", "embedding", "output")}
    return ["--do_train", "--do_eval", "--group_by_length", *(f"--{name}={value}" for name, value in settings.items())]


class Ours:
    """The toolkit's own step."""

    name = "this toolkit"

    def __init__(self, trainer: GenerationTrainer):
        self.trainer = trainer
        self.model = trainer.model

    def differentiate(self, batch: dict[str, np.ndarray]) -> None:
        """Adds the gradient of a batch."""
        self.trainer.training_step(self.model, {name: paddle.to_tensor(table) for name, table in batch.items()})


class Theirs:
    """PaddleNLP's class on the same batches, with the toolkit's weights at the start."""

    name = "PaddleNLP GLM"

    def __init__(self, trainer: GenerationTrainer):
        config = trainer.model.config
        names = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_sequence_length")
        names += ("attention_dropout_prob", "embedding_dropout_prob", "output_dropout_prob")
        settings = {name: getattr(config, name) for name in names}
        self.model = paddlenlp.GLMForConditionalGeneration(paddlenlp.GLMConfig(**settings, output_predict=True))
        self.model.set_state_dict(trainer.model.state_dict())
        trainer.model = self.model  # whose parameters the optimizer gets

    def differentiate(self, batch: dict[str, np.ndarray]) -> None:
        """Adds the gradient of a batch."""
        self.model.train()
        L = batch["input_ids"].shape[1]
        ends = batch["segments"].sum(axis=(1, 2))[:, None, None]  # of each row
        sources = batch["segments"][:, 0, 0][:, None, None]
        rows, columns = np.arange(L)[:, None], np.arange(L)[None]
        seen = (columns < ends) & ((columns < sources) | (columns <= rows))
        inputs = {name: paddle.to_tensor(batch[name]) for name in ("input_ids", "position_ids", "labels")}
        inputs["attention_mask"] = paddle.to_tensor(seen[:, None].astype("int64"))
        inputs["loss_mask"] = (inputs["labels"] != -100).astype("float32")
        self.model(**inputs, return_dict=True).loss.backward()


def losses(values: argparse.Namespace, seed: int, side: type) -> tuple[list[float], float]:
    """Dev losses after the epochs asked for, and seconds of training."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = build_trainer(parse_finetune_arguments(options(values, seed, Path(folder))))
    evaluated = trainer.model
    program = side(trainer)
    steps = trainer.sampler.steps_per_epoch
    trainer.create_optimizer_and_scheduler(steps * max(values.epochs))
    found, seconds = [], 0.0
    for step in trange(steps * max(values.epochs), desc=f"{side.name}, seed {seed}", disable=None):
        start = perf_counter()
        trainer.state.global_step = step
        program.differentiate(
            trainer.data_collator([trainer.train_examples[i] for i in trainer.sampler.step_examples(step)])
        )
        trainer.optimizer.step()
        trainer.optimizer.clear_grad(set_to_zero=False)
        trainer.lr_scheduler.step()
        seconds += perf_counter() - start
        if (step + 1) % steps == 0 and (step + 1) // steps in values.epochs:
            evaluated.set_state_dict(program.model.state_dict())
            evaluated.eval()
            trainer.model = evaluated
            found.append(trainer._dev_loss())
    return found, seconds


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--dev_file", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--records", type=int, default=0, help="of the training file, from its start; 0 for all")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    values = parser.parse_args()
    hush()
    prepare("cpu")
    rows = []
    for seed in values.seeds:
        for side in (Ours, Theirs):
            found, seconds = losses(values, seed, side)
            rows.append([str(seed), side.name, *(f"{loss:.4f}" for loss in found), f"{seconds:.0f}"])
            print(rows[-1], flush=True)
    epochs = [f"after {epoch} epochs" if epoch > 1 else "after 1 epoch" for epoch in sorted(values.epochs)]
    print(markdown(["seed", "program", *epochs, "seconds"], rows))


if __name__ == "__main__":
    main()
