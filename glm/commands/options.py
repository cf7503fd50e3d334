"""Options that `check` and `show` share: a tokenizer, and how records are laid out."""

import dataclasses
import sys
import typing
from argparse import Namespace

from glm.checkpoint.tokenizers import load_tokenizer
from glm.commands.parser import Parser
from glm.data.frames import Encoder, encoder_of
from glm.errors import shown
from glm.generation.config import GenerationConfig
from glm.models import registry
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


def build_layout(values: Namespace, *, allow_cut_targets: bool = False) -> tuple[DataArguments, Encoder]:
    """Reads the layout options and makes the encoder; options not given come from the model folder, if one is given.

    Raises:
        InputError: the options do not fit together, or the tokenizer cannot be loaded.
    """
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
    settings = inherited | given
    data = DataArguments(**{name: value for name, value in settings.items() if name not in LENGTHS})
    data.inherited = frozenset(inherited)
    generation = GenerationConfig(**{name: settings[name] for name in LENGTHS if name in settings})
    family = registry.of_model(values.tokenizer_name_or_path)
    family.check_options(vars(data))
    encoder = encoder_of(
        family,
        load_tokenizer(family, values.tokenizer_name_or_path),
        data.find_template(family.templates),
        src_length=data.src_length,
        tgt_length=generation.tgt_length,
        min_tgt_length=generation.min_tgt_length,
        allow_cut_targets=allow_cut_targets,
        **data.layout,
    )
    return data, encoder
