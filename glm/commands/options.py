"""Options that `check` and `show` share: a tokenizer, and how records are laid out."""

import dataclasses
import sys
import typing
from argparse import Namespace
from functools import cached_property

from glm.checkpoint.tokenizers import load_tokenizer
from glm.commands.parser import Parser
from glm.data.frames import Encoder, encoder_of
from glm.data.task_table import TASKS, in_language
from glm.data.templates import TEMPLATES
from glm.errors import shown
from glm.generation.config import GenerationConfig
from glm.models import registry
from glm.models.protocol import Tokenizer
from glm.options.data import FRAME, OF_FRAME, DataArguments
from glm.options.parser import truth, without_none
from glm.options.run_config import trained_with

OF_GENERATED_TEXTS = ("punctuation",)  # fields of `DataArguments` without effect here
LENGTHS = ("tgt_length", "min_tgt_length")  # options beside `DataArguments` that a layout depends on


def add_layout_options(parser: Parser) -> None:
    """Adds the tokenizer and the options of a record's layout, with their names in training."""
    parser.add_argument(
        "--tokenizer_name_or_path",
        required=True,
        metavar="T",
        help="A folder, a SentencePiece .model file or a published name. A model folder brings its template "
        "and lengths too.",
    )
    for group in (DataArguments, GenerationConfig):
        types = typing.get_type_hints(group)
        for item in dataclasses.fields(group):
            if (group is GenerationConfig and item.name not in LENGTHS) or item.name in OF_GENERATED_TEXTS:
                continue
            kind = without_none(types[item.name])
            if types[item.name] is bool:
                how = {"action": "store_true", "default": None}
            else:
                how = {"type": truth if kind is bool else kind}
            how |= {name: value for name, value in item.metadata.items() if name in ("choices", "nargs", "const")}
            parser.add_argument(f"--{item.name}", help=item.metadata["help"].replace("%", "%%"), **how)


class Layouts:
    """How records are laid out by the options of a command line; options not given come from the model folder, if one
    is given.

    Raises:
        InputError: the options do not fit together, or the tokenizer cannot be loaded.
    """

    def __init__(self, values: Namespace, *, allow_cut_targets: bool = False):
        names = {item.name for item in dataclasses.fields(DataArguments)} | set(LENGTHS)
        given = {name: value for name, value in vars(values).items() if name in names and value is not None}
        own = set(given)
        if FRAME & own:
            own |= OF_FRAME
        trained = trained_with(values.tokenizer_name_or_path)
        inherited = {name: value for name, value in trained.items() if name in names - own}
        if inherited:
            taken = " ".join(f"--{name} {shown(str(value))}" for name, value in inherited.items())
            print(f"from {values.tokenizer_name_or_path}: {taken}", file=sys.stderr)
        self.settings, self.inherited = inherited | given, frozenset(inherited)
        self.allow_cut_targets = allow_cut_targets
        self.family = registry.of_model(values.tokenizer_name_or_path)
        self._tokenizer_name = values.tokenizer_name_or_path
        self._of_name: dict[str, tuple[DataArguments, Encoder]] = {}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Is loaded when all options are known to be right."""
        return load_tokenizer(self.family, self._tokenizer_name)

    def of(self, name: str = "") -> tuple[DataArguments, Encoder]:
        """Returns options and encoder of a file; its name says its task or its language, as in training."""
        if name not in self._of_name:
            self._of_name[name] = self._build(name)
        return self._of_name[name]

    def _build(self, name: str) -> tuple[DataArguments, Encoder]:
        settings = {name: value for name, value in self.settings.items() if name not in LENGTHS}
        if (name in TEMPLATES or name in TASKS) and not FRAME & set(settings):
            settings["task_name"] = name
        data = DataArguments(**settings)
        data.inherited = self.inherited
        generation = GenerationConfig(**{name: self.settings[name] for name in LENGTHS if name in self.settings})
        self.family.check_options(vars(data))
        encoder = encoder_of(
            self.family,
            self.tokenizer,
            in_language(data.find_template(self.family.templates), name),
            src_length=data.src_length,
            tgt_length=generation.tgt_length,
            min_tgt_length=generation.min_tgt_length,
            allow_cut_targets=self.allow_cut_targets,
            **data.layout,
        )
        return data, encoder
