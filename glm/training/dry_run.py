"""Shows what a run would do (`--dry_run`): examples as the model sees them, lengths, memory, steps, time."""

import time
from collections.abc import Mapping
from datetime import timedelta
from itertools import islice

import numpy as np
import paddle

from glm.data.check import quantiles
from glm.data.frames import Encoder
from glm.data.records import Record
from glm.data.report import FileReport
from glm.data.tasks import GENERATE
from glm.data.view import view_record
from glm.models.protocol import IGNORE_INDEX, Sample
from glm.training.progress import process_memory_gib
from glm.training.trainer import GenerationTrainer

EXAMPLES = 3
STEPS = 3  # measured steps, after one that compiles and allocates memory
MEASURED = 256  # samples whose lengths are measured
PIECES = 400  # tokens shown of an example


def show_dry_run(trainer: GenerationTrainer, records: list[Record], report: FileReport) -> None:
    """Prints the summary; nothing is written, and the model's weights change in memory only.

    Args:
        records: the first training records.
        report: report of the training records.
    """
    for number, record in enumerate(records[:EXAMPLES], start=1):
        print(f"example {number}: {record.origin}", *example_lines(record, trainer.encoder), sep="\n")
    for name, units in report.lengths.items():
        print_lengths(name, units["tokens"])
    show_plan(trainer, "examples", float(trainer.train_examples.lengths.mean()))


def show_samples_dry_run(trainer: GenerationTrainer, reports: Mapping[str, FileReport]) -> None:
    """As `show_dry_run`, of pretraining: samples are those that the first steps draw.

    Args:
        reports: of the corpora, by name.
    """
    first = [index for step in range(MEASURED) for index in trainer.sampler.step_examples(step)][:MEASURED]
    samples = [trainer.train_dataset[index] for index in first]
    for number, sample in enumerate(samples[:EXAMPLES], start=1):
        print(f"sample {number}: {sample.objective}", *sample_lines(sample, trainer.encoder), sep="\n")
    for name, report in reports.items():
        for units in report.lengths.values():
            print_lengths(f"documents of {name}", units["tokens"])
    for name, sizes in (
        ("samples", [len(sample) for sample in samples]),
        ("of these learnt", [sample.num_labels for sample in samples]),
    ):
        print_lengths(f"{name} (the first {len(samples)})", quantiles(sizes))
    show_plan(trainer, "samples", float(np.mean([len(sample) for sample in samples])))


def print_lengths(name: str, tokens: Mapping[str, int]) -> None:
    """Prints quantiles of lengths."""
    print(f"{name}, tokens: " + ", ".join(f"{quantile} {value}" for quantile, value in tokens.items()))


def show_plan(trainer: GenerationTrainer, items: str, mean_length: float) -> None:
    """Prints steps, memory and time.

    Args:
        items: what a run learns from, in words.
        mean_length: tokens of one.
    """
    args, sampler = trainer.args, trainer.sampler
    steps, in_step = trainer.total_steps(), len(trainer.train_examples) / sampler.steps_per_epoch
    a_step = f"{in_step:.1f} {items} and {in_step * mean_length:.0f} tokens a step on average"
    epochs = f"{steps / sampler.steps_per_epoch:.2f} epochs of {sampler.steps_per_epoch}"
    print(f"steps: {steps} = {epochs}, {a_step}")
    seconds = measured_seconds(trainer)
    print(f"memory: {memory_gib(args.device):.2f} GiB after {STEPS + 1} steps (evaluation and saving not included)")
    whole = timedelta(seconds=round(seconds * steps))
    print(f"time: {seconds:.3f} s a step of {STEPS} measured, so {whole} for all steps")
    print("dry_run True: nothing was trained or written; leave it out to begin")


def sample_lines(sample: Sample, frame: Encoder) -> list[str]:
    """Formats a sample as the model sees it: the tokens that it reads, and those with a label."""
    found = []
    for example in sample.examples:
        batch = frame.geometry.collate([[example]], len(example), frame.tokenizer.pad_token_id)
        read, learnt = (batch[name].flatten() for name in ("input_ids", "labels"))
        learnt = learnt[learnt != IGNORE_INDEX]
        for name, ids in (("reads", read), ("learns", learnt)):
            pieces = " ".join(frame.tokenizer.token_of(int(number)) for number in ids[:PIECES])
            found.append(f"  {name} ({len(ids)} tokens): {pieces}{' …' if len(ids) > PIECES else ''}")
    return found


def example_lines(record: Record, encoder: Encoder) -> list[str]:
    """Formats a record as the model sees it: the tokens of its source, and the target tokens with a label."""
    if encoder.kind != GENERATE:
        return [f"  {line}" for line in record.source.splitlines()] + [f"  learns: {record.target}"]
    view = view_record(record, encoder)
    table = view.tokens
    pieces = [encoder.tokenizer.token_of(int(number)) for number in table.ids]
    learnt = table.training[-1] if table.training is not None else np.full(len(pieces), IGNORE_INDEX)
    S = table.source_length
    shown = " ".join(pieces[:S][:PIECES]) + (" …" if S > PIECES else "")
    labels = " ".join(encoder.tokenizer.token_of(int(label)) for label in learnt if label != IGNORE_INDEX)
    cut = f"; {view.lost_source} tokens were cut" if view.lost_source else ""
    return [f"  reads ({S} tokens{cut}): {shown}", f"  goes on with: {' '.join(pieces[S:])}", f"  learns: {labels}"]


def measured_seconds(trainer: GenerationTrainer) -> float:
    """Measures the mean seconds of an optimizer step on the first batches."""
    trainer.create_optimizer_and_scheduler(num_training_steps=trainer.total_steps())
    accumulation = trainer.args.gradient_accumulation_steps
    batches = iter(trainer.get_train_dataloader())
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        parts = list(islice(batches, accumulation))
        if not parts:
            break
        for number, inputs in enumerate(parts):
            loss = trainer.loss_and_gradient(trainer.model, inputs, number)
        trainer.optimizer.step()
        trainer.optimizer.clear_grad()
        float(loss)  # waits for the device
        seconds.append(time.perf_counter() - start)
    return float(np.mean(seconds[1:] or seconds))


def memory_gib(device: str) -> float:
    """Returns the peak memory so far: the card's, or the process's."""
    if device.startswith("gpu"):
        return paddle.device.cuda.max_memory_allocated() / 2**30
    return process_memory_gib()
