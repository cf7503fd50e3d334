"""Running text in `check` and `show`: options, and samples for people to read."""

import dataclasses
import typing
from argparse import Namespace
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from glm.checkpoint.tokenizers import load_tokenizer
from glm.commands.parser import Parser
from glm.data.corpus_check import CorpusCheck
from glm.data.corpus_store import MemoryCorpus
from glm.errors import InputError, UsageError
from glm.models import registry
from glm.models.protocol import IGNORE_INDEX, Example, Family, Pretraining, Tokenizer
from glm.options.corpora import OF_MODEL, CorpusArguments, PretrainObjectiveArguments
from glm.options.parser import without_none

READ = ("text_column", "documents_end_at")  # fields of `CorpusArguments` used here
MOST_UNITS = 1000  # units that samples are drawn from


@dataclass(frozen=True)
class CorpusFrame:
    """How running text becomes samples."""

    family: Family
    tokenizer: Tokenizer
    pretraining: Pretraining


def add_corpus_options(parser: Parser) -> None:
    """Adds the options of texts and objectives, with their names in pretraining."""
    known = parser._option_string_actions
    for group, names in ((CorpusArguments, READ), (PretrainObjectiveArguments, None)):
        types = typing.get_type_hints(group)
        for item in dataclasses.fields(group):
            name = f"--{item.name}"
            if (names is not None and item.name not in names) or item.name in OF_MODEL or name in known:
                continue
            kind = without_none(types[item.name])
            how = {"action": "store_true"} if kind is bool else {"type": kind}
            how |= {key: value for key, value in item.metadata.items() if key == "choices"}
            parser.add_argument(name, default=None, help=item.metadata["help"].replace("%", "%%"), **how)


def build_corpus(values: Namespace) -> tuple[CorpusArguments, CorpusFrame]:
    """Makes the frame of running text from these options.

    Raises:
        InputError: they do not fit together, or the tokenizer cannot be loaded.
    """
    corpora = CorpusArguments(train_data="-", **_given(values, READ))
    names = [item.name for item in dataclasses.fields(PretrainObjectiveArguments) if item.name not in OF_MODEL]
    objective = PretrainObjectiveArguments(**_given(values, names))
    family = registry.of_model(values.tokenizer_name_or_path)
    tokenizer = load_tokenizer(family, values.tokenizer_name_or_path)
    options = objective.of_family(family)
    return corpora, CorpusFrame(family, tokenizer, family.pretraining.build(tokenizer, **options))


def _given(values: Namespace, names: typing.Iterable[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(values, name, None)) is not None}


def show_samples(values: Namespace, console: Console) -> None:
    """Prints samples of a file of running text as the model sees them.

    Raises:
        InputError: no document of it can be used.
        UsageError: the family has no such objective.
    """
    corpora, frame = build_corpus(values)
    names = frame.family.pretraining.names
    if values.objective not in (*names, "any"):
        raise UsageError(f"--objective {values.objective}: use {', '.join(names)}, or any to draw it")
    check = CorpusCheck(values.file, frame.tokenizer, frame.pretraining)
    batches = check.encoded(corpora.files_of(values.file, frame.family))
    corpus = MemoryCorpus(islice(chain.from_iterable(batch.split() for batch in batches), MOST_UNITS))
    if not len(corpus):
        first = next((words[0] for words in check.problems.values()), f"{values.file}: no document in it")
        raise InputError(first)
    objective = None if values.objective == "any" else values.objective
    for number in range(min(values.samples, frame.pretraining.samples(corpus))):
        random = np.random.default_rng([values.seed, 0, number])
        sample = frame.pretraining.draw(corpus, number, random, objective)
        for example in sample.examples:
            console.print(_table(example, frame, f"sample {number}, {sample.objective}"))
        console.print(f"{len(sample)} tokens, {sample.num_labels} with loss")


def _table(example: Example, frame: CorpusFrame, title: str) -> Table:
    """Tabulates a sample, a row per token: what the model reads there, and the label."""
    batch = frame.pretraining.geometry.collate([[example]], len(example), frame.tokenizer.pad_token_id)
    rows = {name: array[0] for name, array in batch.items() if array.shape[-1] == len(example)}
    others = {name: array[0].tolist() for name, array in batch.items() if name not in rows}
    table = Table(title=f"{title} ({', '.join(f'{name} {value}' for name, value in others.items())})", show_edge=False)
    columns = {}
    for name, array in rows.items():
        for place, row in enumerate(np.atleast_2d(array)):
            columns[f"{name} {place}" if array.ndim > 1 else name] = row
    for heading in ("place", "piece", *columns):
        table.add_column(heading, justify="left" if heading == "piece" else "right", no_wrap=True)
    token_of = frame.tokenizer.token_of
    for place, number in enumerate(columns["input_ids"]):
        cells = [
            ("-" if row[place] == IGNORE_INDEX else f"{token_of(row[place])} {row[place]}")
            if name == "labels"
            else str(row[place])
            for name, row in columns.items()
        ]
        table.add_row(str(place), token_of(number), *cells)
    return table
