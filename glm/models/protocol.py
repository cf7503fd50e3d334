"""The interface between a family of models and the rest of the toolkit. Loads neither Paddle nor PaddleNLP.

A family is a package `glm.models.NAME` with a `FAMILY`. The rest of the toolkit asks it for a tokenizer, a geometry, a
model and the names of its weights by what stands here, and knows nothing else of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from glm.errors import InputError, UsageError

IGNORE_INDEX = -100  # the label of a position without loss
NO_TASK = -1  # the number of the task of a row that no adapter is for
TASK_NAME = r"^[A-Za-z0-9_\u0080-\uffff][\w+-]*$"  # what users may call one, as a pattern

# What a family may be able to do, and the options that ask for it, each with the value that turns it off.
ABILITIES: dict[str, dict[str, Any]] = {
    "fill": {"fill": None, "fill_file": None},
    "block_position": {"no_block_position": False},
    "visible_pads": {"visible_pads": False},
    "dropout": {"attention_dropout_prob": None, "embedding_dropout_prob": None, "output_dropout_prob": None},
    "freeze": {"freeze": None},
    "recompute": {"recompute": False},
    "layers": {"layerwise_lr_decay": None, "recompute_layers": None},
    "tensor_parallel": {"tensor_parallel_degree": 1},
    "lora": {"lora": False},
    "prefix_tuning": {"prefix_tuning": False},
    "bottleneck": {"adapter_bottleneck": None, "adapters": None},
    "packing": {"packing": False},
    "classification_head": {"classification_head": None},
    "objectives": {"objective": None, "mask_prob": None, "max_pred": None, "target_mask_prob": None},
    "pair_length": {"max_seq_length": None},
    "three_losses": {
        "discriminator_weight": None,
        "discriminator_warmup_steps": None,
        "discriminator_start_warmup_steps": None,
        "inconsistency_weight": None,
        "inconsistency_warmup_steps": None,
        "inconsistency_start_warmup_steps": None,
        "discriminator_sampling_temperature": None,
    },
    "starts": {"start": None},
    "positions": {"max_source_positions": None, "max_target_positions": None},
    "half_precision": {"fp16": False, "bf16": False, "decode_dtype": "float32"},
}


# What only this toolkit's own search can do, each option with the value that turns it off.
OF_OUR_SEARCH: dict[str, Any] = {
    "serve": False,
    "prefix": "",
    "allowed_outputs_file": None,
    "token_scores": False,
    "select_topk": True,
    "finished_rule": "model",
    "no_repeat_ignore": None,
    "processor_order": "after_softmax",
}


class Tokenizer(Protocol):
    """Encodes and decodes text."""

    vocab_size: int  # number of ids it may give, special ones included
    special_ids: Mapping[str, int]  # ids of the family's own tokens, by their texts
    end_token_id: int  # closes a generated text
    pad_token_id: int  # fills rows up
    unknown_token_id: int  # stands for text that has no token
    num_added: (
        int  # of ids at the end, for which a model may lack rows: it gets new ones; 0 if it has no such attribute
    )
    digest: str  # SHA-256 of all that ids depend on

    def encode_text(self, text: str | list[str]) -> list[int] | list[list[int]]:
        """Encodes a text, or each text of a list in several threads; special tokens written in a text are only
        text."""

    def decode_ids(self, ids: Iterable[int]) -> str:
        """Decodes ids; special tokens and ids beyond the vocabulary are left out."""

    def token_of(self, number: int) -> str:
        """Returns the token of an id in readable form."""

    def unknown_parts(self, text: str) -> list[str]:
        """Returns the parts of a text that have no token: single characters, unless a family knows better."""
        return [character for character in text if self.unknown_token_id in self.encode_text(character)]

    def ids_without_text(self, rows: int) -> set[int]:
        """Ids, in a table of so many rows, that stand for no text and are never generated, except to end one:
        `end_token_id` is among them."""
        return {*self.special_ids.values(), *range(self.vocab_size, rows)}


class Example(Protocol):
    """An encoded training example; only the family looks at the rest of it."""

    def __len__(self) -> int:
        """Number of tokens."""

    @property
    def num_labels(self) -> int:
        """Number of positions with loss."""


class Prompt(Protocol):
    """What generation starts from; only the family looks at the rest of it."""

    given: int  # number of tokens of the target that are given

    def __len__(self) -> int:
        """Number of tokens."""


@dataclass(frozen=True)
class TokenTable:
    """A record's tokens and what the model reads of each, in training and in prediction (for `python -m glm show`).

    Args:
        source_length: S, tokens of the source.
        training: [rows, L], ids first, labels last (-100 where there is no loss); None for a record without target.
        prediction: [rows - 1, P], ids first, of what generation starts from.
        rows: what the rows between ids and labels are called.
        sees: [L, L] bool, True = row may attend to column; L is the width of `training`, else of `prediction`.
    """

    source_length: int
    training: np.ndarray | None
    prediction: np.ndarray
    rows: tuple[str, ...]
    sees: np.ndarray

    @property
    def ids(self) -> np.ndarray:
        """[L]"""
        return (self.prediction if self.training is None else self.training)[0]


class Geometry(Protocol):
    """Lays texts out for the model: ids, positions, labels, and who sees whom."""

    special_tokens: int  # how many a source has beside its text

    def lay_out(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Returns the ids of a source: the text before and after the place where the target belongs."""

    def lay_out_blanks(self, parts: Sequence[Sequence[int] | str]) -> list[int]:
        """Returns the ids of a text with blanks of its own, given as its texts (ids) and blanks (one of
        `Family.blanks`).

        Only of a family with the ability `fill`.
        """

    def example(
        self,
        source_ids: Sequence[int],
        span: Sequence[int],
        *,
        tgt_length: int,
        random: np.random.Generator | None = None,
    ) -> Example:
        """Makes the training example of a source and its target, which is cut to `tgt_length` tokens.

        Args:
            random: what a training example that has something random draws it from, a function of the run's seed, the
                epoch and the record; None for the example of evaluation, which is free of chance.
        """

    def prompt(
        self, source_ids: Sequence[int], *, opening: Sequence[int] = (), filled: Sequence[Sequence[int]] = ()
    ) -> Prompt:
        """Returns what generation of a target that begins with `opening` starts from; `filled` are the blanks before
        it."""

    def pair(self, first: Sequence[int], second: Sequence[int], pool: str) -> tuple[Example, int]:
        """Lays out one text, or two, for a classification head, and returns the place whose state is classified too.

        Only of a family with the ability `classification_head`.

        Args:
            second: ids of the second text; none for one text.
            pool: `cls` the place of the first token, `pad` of the last, `start` of the one behind it.

        Raises:
            InputError: the family does not classify by this place.
        """

    def pair_lengths(self, src_length: int, pool: str) -> tuple[int, int]:
        """Returns how many tokens of a row of `src_length` tokens for a classification head are not text, and how many
        tokens are read behind it (see `check_lengths`). Only for a family with the ability `classification_head`."""

    def sizes(self, sources: np.ndarray, spans: np.ndarray, *, tgt_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts tokens and labels of training examples, [n] each, from the lengths of their ids of source and target,
        [n] each; they do not depend on what is random in an example."""

    def collate(self, rows: Sequence[Sequence[Example]], width: int, pad: int) -> dict[str, np.ndarray]:
        """Pads rows of examples to a width, as the batch that `model(**batch)` takes: `input_ids` [B, L], `labels` [B,
        L] with -100 where there is no loss, and what else the family's model reads. Only families with the ability
        `packing` are given rows of more than one example."""

    def token_table(self, example: Example | None, prompt: Prompt) -> TokenTable:
        """Tabulates a record's tokens for people to read.

        Raises:
            AssertionError: generation does not start from what training had, or does not go on as training did: an
                error of this program.
        """

    def room(self, config: Any, src_length: int) -> int:
        """Returns the longest target that fits beside `src_length` tokens of source into a model of this
        configuration; any length where the model has no table of positions."""
        return 1 << 30

    def check_lengths(self, config: Any, src_length: int, tgt_length: int) -> None:
        """Raises InputError if a model of this configuration has no positions for such lengths."""
        if tgt_length > (room := self.room(config, src_length)):
            raise InputError(
                f"tgt_length {tgt_length}: beside src_length {src_length} the model has {room} positions left"
            )


def pad_rows(rows: Sequence[Sequence[int]], width: int, pad: int) -> np.ndarray:
    """Pads rows of ids on the right to [B, width] int64."""
    table = np.full((len(rows), width), pad, dtype=np.int64)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table


@dataclass(frozen=True)
class GeometryOptions:
    """What a geometry depends on beside the tokenizer.

    Args:
        blank: the text that marks the place of the target in the task's template.
        block_position: False writes 1 at every block position (`--no_block_position`).
        closed: False leaves out the token that ends a source, in families whose layout does without (GLM's).
        objective: which of a family's several; None for its own first.
        mask_prob, max_pred, target_mask_prob: what an objective that draws tokens draws; None for its own.
        max_seq_length: most tokens of source and target together, of which the longer one is cut; None where each has
            a length of its own.
        tgt_length: beside `max_seq_length` what is left to a target behind a prompt, which is cut for it.
        task: the number of the task that rows are of, whose adapter they pass through, or `NO_TASK`.
    """

    blank: str
    block_position: bool = True
    closed: bool = True
    objective: str | None = None
    mask_prob: float | None = None
    max_pred: int | None = None
    target_mask_prob: float | None = None
    max_seq_length: int | None = None
    tgt_length: int = 0
    task: int = NO_TASK


class Cache(Protocol):
    """What a model keeps of a batch between decoding steps."""

    def reorder(self, beam_idx: np.ndarray) -> None:
        """Makes row k of the next step continue row `beam_idx[:, k]` ([B, K]) of the last one."""

    def keep(self, examples: np.ndarray) -> None:
        """Drops all but these examples of the batch."""

    def replace(self, places: np.ndarray, other: "Cache") -> None:
        """Puts the examples of `other`, fresh from prefill and with no longer prompts, into these places."""

    def append(self, other: "Cache") -> None:
        """Appends the examples of `other`, fresh from prefill, to those of the batch."""


class Decodable(Protocol):
    """A model that this toolkit's search can decode."""

    def prefill(self, prompts: Sequence[Prompt]) -> tuple[np.ndarray, Cache]:
        """Reads prompts; returns logits [B, V] of the first generated token, and the cache."""

    def step(self, tokens: np.ndarray, numbers: np.ndarray, cache: Cache) -> np.ndarray:
        """Reads one token per row; returns logits [B, R, V] of the next.

        Like those of `prefill` they are the caller's to write over.

        Args:
            tokens: [B, R] int64.
            numbers: [B] int64, which generated token of its text each is, from 0.
        """


class Searching(Protocol):
    """A model with a search of its own instead of `Decodable` (`Family.own_search`)."""

    def search(self, prompts: Sequence[Prompt], options: Any) -> list[list[tuple[list[int], float]]]:
        """Generates for several prompts together; returns the tokens and scores of each one's texts, best first.

        Args:
            options: options of decoding, by the names of `glm.generation.config.GenerationConfig`.
        """


@dataclass(frozen=True)
class TokenScores:
    """A model's probabilities for the tokens of a candidate.

    Args:
        log_probs: [n], of each token behind those before it.
        best: [n] int64, the token that is likeliest in each place.
        likely: [n, top] int64, the likeliest tokens of each place, and [n, top] their log-probabilities; None if they
            were not asked for.
    """

    log_probs: np.ndarray
    best: np.ndarray
    likely: tuple[np.ndarray, np.ndarray] | None = None


class Scorable(Protocol):
    """A model that scores given texts."""

    def log_probs(
        self, prompts: Sequence[Prompt], candidates: Sequence[Sequence[Sequence[int]]], *, top: int = 0
    ) -> list[list[TokenScores]]:
        """Scores candidates behind their prompts; each prompt is read once.

        What is said of a candidate depends on no other, nor on the rest of the batch.

        Args:
            prompts: prompts of B records.
            candidates: for each record its candidates, each of one token or more; one that is to end brings
                `Tokenizer.end_token_id`.
            top: how many of the likeliest tokens of each place are told, too.

        Returns:
            Of each record those of its candidates.
        """


class Trainable(Protocol):
    """A model whose answers are trained, beside `forward(**batch, label_smoothing, num_items) -> loss []`."""

    def labelled_states(self, **batch: Any) -> Any:
        """Returns the head's input at the labelled positions of a batch, row by row: [labels, H]."""

    def labelled_logits(self, **batch: Any) -> Any:
        """Returns the logits of the labelled positions of a batch, row by row: [labels, V], with a gradient."""


class Corpus(Protocol):
    """Running text as ids: the units that a family's `Pretraining` made of documents, each with one part or more, none
    empty. It need not be in memory."""

    tokens: int  # number of tokens of all units

    def __len__(self) -> int:
        """Number of units."""

    def unit(self, number: int) -> Sequence[np.ndarray]:
        """Returns the ids of each part of a unit."""

    def at(self, token: int) -> int:
        """Returns the number of the unit that holds this one of all tokens."""

    def lengths(self) -> np.ndarray:
        """Number of tokens of each unit, [units]."""


@dataclass(frozen=True)
class Sample:
    """One draw of pretraining.

    Args:
        objective: by its name, see `Objectives`.
        examples: at least one.
    """

    objective: str
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.examples))

    @property
    def num_labels(self) -> int:
        """Number of positions with loss."""
        return sum(example.num_labels for example in self.examples)


class Pretraining(Protocol):
    """Draws a family's training samples from running text. A sample depends only on the corpus, its number and the
    random generator."""

    described: Mapping[str, Any]  # everything beside tokenizer and corpus that samples depend on
    described_units: Mapping[str, Any]  # the part of it that units depend on
    geometry: Geometry
    planned: tuple[int, int]  # most tokens of a sample, labels beside them, and how many of the tokens are labels

    def parts(self, document: str) -> list[str]:
        """Splits a document into the texts that are encoded separately."""

    def units(self, parts: Sequence[Sequence[int]]) -> Iterable[list[Sequence[int]]]:
        """Makes units of a document, whose parts are given as ids."""

    def samples(self, corpus: Corpus) -> int:
        """Returns the number of samples in an epoch: together they have as much text as the corpus."""

    def draw(self, corpus: Corpus, number: int, random: np.random.Generator, objective: str | None = None) -> Sample:
        """Draws a sample of an epoch.

        Args:
            number: which, from 0.
            objective: which objective it is of; drawn if None.
        """

    def check(self, config: Any) -> None:
        """Raises InputError if a model of this configuration cannot read the samples."""


@dataclass(frozen=True)
class Objectives:
    """A family's pretraining objectives.

    Args:
        names: names of the objectives, for the dev losses.
        options: fields of `glm.options.pretrain.ObjectiveArguments` that mean something for them.
        build: makes a `Pretraining` of a tokenizer and values of these options; raises InputError for a value that is
            out of range.
    """

    names: tuple[str, ...]
    options: tuple[str, ...]
    build: Callable[..., Pretraining]


class WeightNames:
    """Names and shapes of a family's weights, and how a configuration follows from them: tables and pure functions.

    What stands here does for a family that runs in one process and whose files have no other names than its own.

    Attributes:
        words: the name of the word embedding, whose rows are the vocabulary.
        required: without which nothing can be said of sizes.
        resizable: endings of tables that have as many rows as the configuration says, whatever a file has:
            `--max_source_positions`.
        new_rows_std: standard deviation of rows that a table of `resizable` lacks; 0 for zeros.
        copied_rows_key: in Megatron's files, says that `copied_rows` have numbers of their own: this toolkit wrote it.
        linears: endings of the weights that PyTorch keeps the other way round ([out, in]).
        biased_linears: endings of two weights of `linears` whose biases tell which way round a file has them.
        fused: parts of a name in the weights that hold queries, keys and values side by side.
        plan: how weights are split over tensor-parallel ranks (`glm.parallel.plan`).
        divided: the sizes that a number of ranks has to divide.
        fields: what of a config.json means something, and its type.
        sizes: the fields that weights show.
        agreed: the fields on which weights, config.json and preset must agree.
        ignored: endings of names in files that are no weights.
        parts: what `--freeze` may name beside layers.
        lora_targets: the linear layers of a block, for `--lora_targets`; the first is the default.
        defaults: what a configuration that leaves fields out means.
        optional: the fields that say which parts a model has beside those that all have: a fetched file decides.
        foreign_to: formats of files (`glm.checkpoint.convert.WRITERS`) that nobody has of this family.
    """

    words: str = ""
    required: tuple[str, ...] = ()
    resizable: tuple[str, ...] = ()
    new_rows_std: float = 0.0
    copied_rows_key: str = ""
    linears: tuple[str, ...] = ()
    biased_linears: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    plan: Mapping[str, tuple[int, int]] = {}
    divided: tuple[str, ...] = ()
    fields: Mapping[str, type] = {}
    sizes: tuple[str, ...] = ()
    agreed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    lora_targets: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = {}
    foreign_to: tuple[str, ...] = ("fairseq",)

    def shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Maps the name of every weight of a configuration to its shape, linears as [in, out]."""
        raise NotImplementedError

    def recognises(self, names: Iterable[str]) -> bool:
        """Whether a file with weights of these names belongs to the family, in any naming it knows."""
        return {*self.required} <= {self.ours(name)[0] for name in names}

    def sizes_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Derives the fields `sizes` from whole weights; 0 where the weights that show them are missing.

        Raises:
            InputError: a weight that shows one is no table.
        """
        raise NotImplementedError

    def ours(self, name: str) -> tuple[str, int, int]:
        """Returns which weight one of a file belongs to: the family's name for it, which part of it this is, and of
        how many side by side on the last axis. A name that the family does not know is returned as it is."""
        return name, 0, 1

    def stated(self, options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Returns what the options in a fairseq file say of the configuration, given the names of its weights."""
        return {}

    def made_of(self, name: str, format: str) -> tuple[str, ...]:
        """Returns a weight's names in files of a format: more than one if it is stored in parts."""
        return (name,)

    def linears_out_in(self, names: Iterable[str]) -> bool | None:
        """Whether a file's linears are [out, in], by its names, if its biases do not tell; None if unknown."""
        return None

    def settled(self, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a file's weights under the family's names, each with `shape`, `dtype` and `load()`: drops what is no
        weight, and adapts the size of what has another size.

        Raises:
            InputError: what a file says twice differs.
        """
        return weights

    def declared(self, content: Mapping[str, Any], origin: object) -> Mapping[str, Any]:
        """Returns the entries of a config.json that are kept of `fields`. Raises InputError if it describes another
        model."""
        return content

    def config_of(self, format: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns what a config.json in files of a format says beside `config`, or instead of it."""
        return {}

    def copy_of(self, name: str) -> str | None:
        """Returns the name of the weight that a file holds a second time under this name; None for any other name."""
        return None

    def copies(self, config: Mapping[str, Any], format: str) -> Mapping[str, str]:
        """Returns the names under which files of a format hold a weight a second time, each with that weight's
        name."""
        return {}

    def foreign_options(self, config: Mapping[str, Any], format: str) -> dict[str, Any]:
        """Returns what files of a format say of a configuration beside the weights, under that format's names."""
        return {}

    def copied_rows(self, format: str, config: Mapping[str, Any]) -> Sequence[tuple[int, int]]:
        """Returns rows of the word embedding, as (to, from), that a format's files do not store separately."""
        return ()

    def reshaped(
        self, weights: Mapping[str, Any], *, positions: int | None = None, tasks: int | None = None
    ) -> tuple[Mapping[str, Any], Sequence[str]]:
        """Resizes weights to another number of positions or of tasks; returns them with a message about it.

        Raises:
            InputError: the family, or this model, has no such.
        """
        asked = {"positions": positions, "tasks": tasks}
        for name, value in asked.items():
            if value is not None:
                raise InputError(f"{name} {value}: models of this family keep theirs; leave it out")
        return weights, ()

    def started(self, config: Mapping[str, Any], start: str) -> dict[str, Any]:
        """Returns the configuration of a model that starts from parts of another (`--start`).

        Raises:
            InputError: the model lacks a part.
        """
        raise NotImplementedError

    def at_start(self, name: str, config: Mapping[str, Any], start: str) -> str | None:
        """Returns the new name of a weight in a model that starts from parts of another; None drops it."""
        return name

    def part_of(self, name: str) -> str | int | None:
        """Returns what a weight belongs to: a layer (its number), or one of `parts`; None for neither."""
        return None


@dataclass(frozen=True)
class Trial:
    """A small model with its data, for trying a device out: the same on every machine.

    Args:
        config: the model's configuration; its weights are drawn by whoever tries it.
        geometry: lays ids out.
        sources, spans: ids of the examples that it learns, one after the other in batches of `batch_size`.
        end_token_id: ends a generated text.
        pad_token_id: fills rows up.
    """

    config: Mapping[str, Any]
    geometry: Geometry
    sources: Sequence[Sequence[int]]
    spans: Sequence[Sequence[int]]
    end_token_id: int
    pad_token_id: int
    batch_size: int = 4


@dataclass(frozen=True)
class Family:
    """A family of models: its model, tokenizer, geometry and names of weights.

    Args:
        name: name of its folder, and `model_type` in its config.json.
        title: what people call it.
        architecture: what its config.json calls the model's class.
        tokenizer_files: the files of its tokenizer; the first makes a folder one of a tokenizer of this family.
        weights: names and shapes.
        open_tokenizer: the tokenizer of a file or folder; loads neither Paddle nor PaddleNLP.
        save_tokenizer: writes a tokenizer's files into a folder.
        fetch_tokenizer: fetches the tokenizer of a published name.
        geometry: for a tokenizer and a template.
        config_class, model_class: import Paddle when they are called.
        abilities: some of `ABILITIES`, and `memory_forecast`.
        blanks: texts that mark a blank; none for a family that writes behind its source.
        reserved: texts that data may not hold.
        marks: texts of special tokens that data may hold, as any other text; a check names the rows.
        aliases: other values of `model_type` that mean the family.
        row_width: what an example takes of `--max_tokens`, of the tokens [n] of sources and of targets.
        cuts_tokens: whether a source that is all of a template loses tokens at its end where it is too long; else it
            is cut between sentences.
        published: hub names of models that can be fetched; `configs/model` has a configuration for each.
        presets: names in `configs/model` of models that are published, but cannot be fetched by a name.
        published_tokenizers: hub names of tokenizers that can be fetched.
        vocabulary_multiple: a new model's word embedding has a multiple of so many rows.
        has_exact_vocabulary: whether a model's has no more rows than its tokenizer's ids fill up to that multiple.
        classes: labels of the classifier that a model may bring, by number.
        templates: templates of tasks that the family frames in its own way, by task name.
        tasks: its own tasks, which its adapters are for, by their numbers; none where users name theirs.
        own_search: its model is `Searching`: what only this toolkit's search can do is refused.
        trial: what a device is tried out with; imports no Paddle. A family without is tried by the others' layers.
        code: folder of the programs with which Hugging Face's library runs its models, which go into an export.
        code_settings: what config.json says for these, of a folder's tokenizer and the settings of its run.
        code_tokenizer: what tokenizer_config.json says for these.
        pretraining: its objectives of running text; None if it is not pretrained here.
    """

    name: str
    title: str
    architecture: str
    tokenizer_files: tuple[str, ...]
    weights: WeightNames
    open_tokenizer: Callable[[Path], Tokenizer]
    save_tokenizer: Callable[[Tokenizer, Path], None]
    geometry: Callable[[Tokenizer, GeometryOptions], Geometry]
    config_class: Callable[[], type]
    model_class: Callable[[], type]
    fetch_tokenizer: Callable[[str], Tokenizer] | None = None
    abilities: frozenset[str] = field(default_factory=frozenset)
    blanks: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    row_width: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.add
    cuts_tokens: bool = False
    published: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    published_tokenizers: tuple[str, ...] = ()
    vocabulary_multiple: int = 128  # Megatron's
    has_exact_vocabulary: bool = False
    classes: tuple[str, ...] = ()
    templates: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    own_search: bool = False
    trial: Callable[[], Trial] | None = None
    code: Path | None = None
    code_settings: Callable[[Tokenizer, Mapping[str, Any]], Mapping[str, Any]] | None = None
    code_tokenizer: Callable[[Tokenizer], Mapping[str, Any]] | None = None
    pretraining: Objectives | None = None

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raises UsageError for an option that asks for what the family cannot do.

        Args:
            options: values of options by name; those that are off are well.
        """
        for name, off in OF_OUR_SEARCH.items() if self.own_search else ():
            if options.get(name, off) != off:
                raise UsageError(
                    f"{name} {options[name]}: {self.title} has a search of its own, without it; leave it out"
                )
        for ability in ABILITIES.keys() - self.abilities:
            for name, off in ABILITIES[ability].items():
                if options.get(name, off) != off:
                    raise UsageError(f"{name} {options[name]}: {self.title} cannot do this ({ability}); leave it out")

    def check_template(self, source: str, blank: str) -> None:
        """Raises InputError for a template that the family cannot lay out.

        Args:
            source: the template's text.
            blank: the one blank in it.
        """
        if self.blanks and blank not in self.blanks:
            raise InputError(f"template {source}: {blank} is no blank of {self.title}; use {', '.join(self.blanks)}")
        if not self.blanks and not source.endswith(blank):
            raise InputError(f"template {source}: {self.title} writes behind its source; put {blank} last")
