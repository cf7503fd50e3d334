"""The options of running text: where it is read from, and how samples are drawn from it. Loads no Paddle."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glm.data.corpora import DOCUMENT_ENDS, LINE, CorpusFiles
from glm.data.formats import MOST_BYTES
from glm.data.mixture import NamedFile, check_shares, given_shares, named_files
from glm.errors import UsageError
from glm.generation.config import option
from glm.options.ranges import COUNT, MANY, Ranges, out_of_range, raise_any

CORPUS_RANGES: Ranges = {
    "max_bad_records": (0, MANY, "use 0 or more"),
    "max_record_bytes": COUNT,
    "max_dev_samples": COUNT,
    "multi_task_ratio": (0, 1, "use 0 to 1"),
}
OBJECTIVE_RANGES: Ranges = {
    "gpt_infill_prob": (0, 1, "use 0 to 1"),
    "discriminator_weight": (0, 1e6, "use 0 or more"),
    "inconsistency_weight": (0, 1e6, "use 0 or more"),
    "discriminator_warmup_steps": (0, MANY, "use 0 or more"),
    "inconsistency_warmup_steps": (0, MANY, "use 0 or more"),
}
# Options of objectives that set a part of the model's configuration.
OF_MODEL = ("discriminator_weight", "discriminator_warmup_steps", "inconsistency_weight", "inconsistency_warmup_steps")


@dataclass
class CorpusArguments:
    """The texts of pretraining: JSON lines, tables, parquet, plain text, folders; several as NAME=PATH NAME=PATH."""

    train_data: str | list[str] | None = option(
        None, "Texts; several corpora as NAME=PATH NAME=PATH, each of one path or several joined by commas."
    )
    dev_data: str | list[str] | None = option(
        None, "Held-out texts on which the loss of each objective is measured; several as in train_data."
    )
    weights: str | None = option(None, "Share of each corpus in an epoch, e.g. 2,1; all of each if unset.")
    sampling_temperature: float | None = option(
        None, "T: a corpus of n samples has a share of n^T in an epoch (1 in proportion, 0 all alike)."
    )
    text_column: str = option("text", "Column of the text, in files with columns.")
    documents_end_at: str = option(
        LINE, "What ends a document of plain text: its line, or the next blank line.", choices=list(DOCUMENT_ENDS)
    )
    max_record_bytes: int = option(MOST_BYTES, "Most bytes of a document; a larger one is refused.")
    max_bad_records: int = option(
        0, "Unusable documents of a corpus that may be left out and written to refused-*.jsonl; more stop the run."
    )
    max_dev_samples: int = option(256, "Most samples of an objective and a corpus that a dev loss is the mean over.")
    multi_task_data: str | list[str] | None = option(
        None, "Training records of tasks, TASK=PATH TASK=PATH, mixed in by multi_task_ratio; all patterns are used."
    )
    multi_task_ratio: float | None = option(None, "Share of samples that are examples of multi_task_data [0.5].")
    data_cache_dir: str | None = option(
        None, "Folder of encoded corpora, found again by content; ~/.cache/glm if not given."
    )

    def __post_init__(self):
        raise_any(out_of_range(vars(self), CORPUS_RANGES))
        if self.train_data is None:
            raise UsageError("train_data: is missing; give the texts to learn from (--train_data FILE)")
        for split in ("train", "dev"):
            self.corpora(split)
        count = len(self.corpora("train"))
        check_shares(self.weights, self.sampling_temperature, count=count, one="corpus", several="corpora")
        tasks = self.tasks
        if self.multi_task_ratio is not None and not tasks:
            raise UsageError(f"multi_task_ratio {self.multi_task_ratio}: has no effect without multi_task_data")
        for task in tasks:
            if not task.name:
                raise UsageError(f"multi_task_data {task.path}: say which task it is of, TASK={task.path}")

    def corpora(self, split: str) -> tuple[NamedFile, ...]:
        """Returns the corpora of `train` or `dev`. Raises UsageError for names that cannot be told apart."""
        given = getattr(self, f"{split}_data")
        return () if given is None else named_files(f"{split}_data", given)

    def files_of(self, path: str, family: Any) -> CorpusFiles:
        """Opens a corpus with these options. Raises InputError if there is no such file."""
        return CorpusFiles(
            path,
            column=self.text_column,
            ends_at=self.documents_end_at,
            reserved=family.reserved,
            most=self.max_record_bytes,
        )

    @property
    def tasks(self) -> tuple[NamedFile, ...]:
        """Returns the files of tasks."""
        return () if self.multi_task_data is None else named_files("multi_task_data", self.multi_task_data)

    @property
    def task_share(self) -> float:
        """Share of samples that are examples of tasks."""
        return 0.5 if self.multi_task_ratio is None else self.multi_task_ratio

    def shares(self, sizes: Sequence[int]) -> list[float] | None:
        """Returns the share that each corpus has of an epoch; None if all of each is read."""
        return given_shares(sizes, self.weights, self.sampling_temperature)


@dataclass
class PretrainObjectiveArguments:
    """What a sample of text is, and what is learnt of it; a family's own where an option is not given."""

    seq_length: int | None = option(None, "Most tokens of a sample's text [512; UniLM 128].")
    bert_prob: float | None = option(None, "GLM: share of samples with blanks of few tokens [0.4].")
    gap_sentence_prob: float | None = option(
        None,
        "GLM: share of samples with blanks of sentences [0.3]; the rest has one blank, of most of the text.",
    )
    bert_ratio: float | None = option(None, "Share of a sample's tokens in blanks of few tokens [0.15].")
    gap_sentence_ratio: float | None = option(None, "Share of a sample's tokens in blanks of sentences [0.15].")
    gpt_min_ratio: float | None = option(None, "Least share of a sample in a blank of most of a document [0.25].")
    infill_prob: float | None = option(
        None, "Share of these samples, if of one document, whose blank may be anywhere instead of at the end [0.5]."
    )
    gpt_infill_prob: float | None = option(
        None, "THUDM/GLM's name for the opposite: 1 - infill_prob, the share whose blank is the end."
    )
    block_mask_prob: float | None = option(
        None, "Share of the input tokens in blanks of few tokens that are hidden [0.1]."
    )
    short_seq_prob: float | None = option(None, "Share of samples that are cut into shorter ones [0.02].")
    single_span_prob: float | None = option(None, "Share of samples with one blank of few tokens [0].")
    non_sentence_start: float | None = option(
        None, "Share of windows of long documents that need not begin with a sentence [0]."
    )
    sample_one_document: bool = option(False, "Do not fill up a short document with another one.")
    no_block_position: bool = option(False, "Write 1 at every block position (THUDM/GLM's --no-block-position).")
    mask_prob: float | None = option(None, "UniLM: share of a sample's tokens that is predicted [0.15].")
    max_pred: int | None = option(None, "UniLM: most tokens of a sample that are predicted [48].")
    discriminator_weight: float | None = option(None, "GanLM: weight of the discriminator's loss [5; published 10].")
    discriminator_warmup_steps: int | None = option(None, "GanLM: updates over which it grows from 0 [0].")
    inconsistency_weight: float | None = option(
        None, "GanLM: weight of the generator's loss where the discriminator erred [1]."
    )
    inconsistency_warmup_steps: int | None = option(None, "GanLM: updates over which it grows from 0 [0].")

    def __post_init__(self):
        raise_any(out_of_range(vars(self), OBJECTIVE_RANGES))
        if self.gpt_infill_prob is not None and self.infill_prob is not None:
            raise UsageError(
                f"gpt_infill_prob {self.gpt_infill_prob}: is 1 - infill_prob by its old name; leave one out"
            )

    @property
    def of_model(self) -> dict[str, Any]:
        """Settings that replace the model's own."""
        return {name: value for name, value in vars(self).items() if name in OF_MODEL and value is not None}

    def of_family(self, family: Any) -> dict[str, Any]:
        """Returns the given options for a family's objectives.

        Args:
            family: a `glm.models.protocol.Family`.

        Raises:
            UsageError: the family has no objectives of running text, or none for which an option means something.
        """
        if family.pretraining is None:
            raise UsageError(f"{family.title} has no objectives of running text here; give a model of another family")
        given = {name: value for name, value in vars(self).items() if value not in (None, False)}
        # The family's abilities decide about those.
        given = {name: value for name, value in given.items() if name not in OF_MODEL}
        if "gpt_infill_prob" in given:
            old = given.pop("gpt_infill_prob")
            given["infill_prob"] = 1 - old
            note = f"gpt_infill_prob {old}: is the share of continuations; taken as infill_prob {1 - old:g}"
            print(note, file=sys.stderr)
        if given.pop("no_block_position", False):
            given["block_position"] = False
        for name in given:
            if name not in family.pretraining.options:
                raise UsageError(f"{name} {given[name]}: means nothing for {family.title}'s objectives; leave it out")
        return given
