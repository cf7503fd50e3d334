"""`python -m glm memory MODEL…`: computes whether training and generation fit into a card, without building the
model."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from glm.commands.parser import Parser
from glm.errors import InputError, UsageError
from glm.models import registry
from glm.models.memory import GIB, Bytes, Decoding, Training, decoding_memory, training_memory
from glm.models.presets import PRESET_FOLDER
from glm.models.protocol import Family

DEGREES = (1, 2, 4, 8)  # numbers of cards if none is given
CARDS = (24, 40, 80)  # GiB
NEEDED = ("num_layers", "hidden_size", "num_attention_heads", "max_sequence_length")


def main(argv: list[str]) -> None:
    """Computes and prints."""
    values = _parser().parse_args(argv)
    _check(values)
    found = {name: _by_degree(name, *read_model(name), values) for name in values.models}
    if values.format == "json":
        print(json.dumps(found, indent=2))
        return
    for name, degrees in found.items():
        for use in ("training", "generation"):
            _print_table(name, use, {cards: needs[use] for cards, needs in degrees.items()}, values)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m glm memory",
        description="Memory per card of training (AdamW) and generation, by part: computed, not measured. Options as "
        "in training and prediction.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model folder, published name or preset")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--src_length", type=int, default=608, help="most source tokens [608]")
    parser.add_argument("--tgt_length", type=int, default=160, help="most target tokens [160]")
    parser.add_argument("--per_device_train_batch_size", type=int, default=8, help="[8]")
    parser.add_argument("--fp16", action="store_true", help="train in half precision")
    parser.add_argument("--bf16", action="store_true", help="train in half precision; on a CPU products only")
    parser.add_argument("--fp16_opt_level", choices=("O1", "O2"), help="O2: weights too, of both fp16 and bf16 [O1]")
    parser.add_argument("--recompute", action="store_true", help="keep activations of one layer at a time only")
    parser.add_argument("--tensor_parallel_degree", type=int, help="cards of a model [1, 2, 4 and 8]")
    parser.add_argument(
        "--sharding",
        choices=("stage1", "stage2", "stage3"),
        help="divide the optimizer's state (and gradients, weights)",
    )
    parser.add_argument("--sharding_parallel_degree", type=int, help="over so many cards")
    parser.add_argument("--per_device_eval_batch_size", type=int, default=16, help="records decoded together [16]")
    parser.add_argument("--num_beams", type=int, default=5, help="[5]")
    parser.add_argument("--decode_dtype", choices=("float32", "float16", "bfloat16", "int8"), default="float32")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: bytes")
    return parser


def _check(values: Namespace) -> None:
    """Raises UsageError for an option that is out of range or has no effect."""
    for name, value in vars(values).items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise UsageError(f"--{name} {value}: 1 or more is expected")
    half = values.fp16 or values.bf16
    if values.fp16 and values.bf16:
        raise UsageError("--fp16: has no effect beside --bf16; choose one")
    if values.fp16_opt_level and not half:
        raise UsageError(f"--fp16_opt_level {values.fp16_opt_level}: has no effect without --fp16 or --bf16")
    if values.fp16 and values.device == "cpu":
        raise UsageError("--fp16: a CPU does not train in it; leave it out, or use --bf16")
    if values.fp16_opt_level and values.device == "cpu":
        raise UsageError(f"--fp16_opt_level {values.fp16_opt_level}: is for a GPU; leave it out")
    if values.decode_dtype == "float16" and values.device == "cpu":
        raise UsageError("--decode_dtype float16: a CPU has no such products; use float32, bfloat16 or int8")
    if values.decode_dtype == "int8" and values.device != "cpu":
        raise UsageError("--decode_dtype int8: for a CPU; use float16 or bfloat16, or --device cpu")
    if bool(values.sharding) != bool(values.sharding_parallel_degree):
        raise UsageError("--sharding and --sharding_parallel_degree: give both, or none")


def read_model(name: str) -> tuple[Family, dict[str, Any]]:
    """Returns family and configuration of a model folder, a published name or a preset.

    Raises:
        InputError: there is none, it does not say how large the model is, or its family has no forecast.
    """
    from glm.checkpoint.whole import open_model, read_preset

    preset = PRESET_FOLDER / f"{name}.json"  # which says whose it is, where it is named without its suffix
    family = registry.of_model(str(preset) if preset.is_file() and not Path(name).exists() else name)
    if "memory_forecast" not in family.abilities:
        raise InputError(f"{name}: there is no forecast of memory for {family.title}")
    config = open_model(name).config if Path(name).is_dir() else read_preset(family, name)[1]
    missing = [field for field in NEEDED if field not in config]
    if missing:
        raise InputError(f"{name}: {', '.join(missing)} missing in the configuration")
    if "vocab_size" not in config:
        rows = family.weights.defaults["vocab_size"]
        print(f"{name}: has no vocab_size; {rows} is taken (published Chinese models)", file=sys.stderr)
    return family, {**family.weights.defaults, **config}


def _by_degree(name: str, family: Family, config: dict[str, Any], values: Namespace) -> dict[int, dict[str, Bytes]]:
    """Returns the memory of training and of generation by number of cards."""
    asked = values.tensor_parallel_degree
    degrees = (asked,) if asked else DEGREES if values.device == "gpu" else DEGREES[:1]
    length = values.src_length + values.tgt_length
    if length > config["max_sequence_length"]:
        raise InputError(
            f"src_length {values.src_length} + tgt_length {values.tgt_length} = {length}: {name} has "
            f"{config['max_sequence_length']} positions; shorten one of them"
        )
    found = {}
    for degree in degrees:
        if not asked and config["num_attention_heads"] % degree:
            continue
        shared = {"target_tokens": values.tgt_length, "source_tokens": values.src_length, "device": values.device}
        training = Training(
            examples=values.per_device_train_batch_size,
            half=values.fp16 or values.bf16,
            opt_level=values.fp16_opt_level or "O1",
            recompute=values.recompute,
            tensor_parallel_degree=degree,
            sharding=values.sharding or "",
            sharding_parallel_degree=values.sharding_parallel_degree or 1,
            **shared,
        )
        decoding = Decoding(
            examples=values.per_device_eval_batch_size,
            num_beams=values.num_beams,
            dtype=values.decode_dtype,
            tensor_parallel_degree=degree,
            **shared,
        )
        parts = {
            "training": training_memory(family, config, training),
            "generation": decoding_memory(family, config, decoding),
        }
        found[degree * (values.sharding_parallel_degree or 1)] = parts
    return found


def _print_table(name: str, use: str, by_cards: dict[int, Bytes], values: Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    unit = "GiB per card" if values.device == "gpu" else "GiB"
    table = Table(title=f"{name}, {use}: {unit}, computed, not measured")
    table.add_column("")
    for cards in by_cards:
        table.add_column(f"{cards} card{'s' * (cards > 1)}" if values.device == "gpu" else "CPU", justify="right")
    parts = list(dict.fromkeys(part for needs in by_cards.values() for part in needs))
    for part in parts:
        table.add_row(part, *(f"{needs.get(part, 0) / GIB:.2f}" for needs in by_cards.values()))
    totals = [sum(needs.values()) / GIB for needs in by_cards.values()]
    table.add_section()
    table.add_row("in all", *(f"{total:.1f}" for total in totals))
    if values.device == "gpu":
        for size in CARDS:
            table.add_row(f"fits into {size} GiB", *("yes" if total <= size else "no" for total in totals))
    Console(highlight=False, markup=False, soft_wrap=True).print(table)
