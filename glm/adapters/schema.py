"""Schemas of an adapter folder's settings, which are PaddleNLP's files and may come from anywhere."""

import string
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from glm.errors import InputError, shown
from glm.runtime.settings_file import Settings

MOST_PATTERNS = 64
MOST_STARS = 4  # in one pattern
OF_A_NAME = {*string.ascii_letters, *string.digits, *"_.-*?"}

Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(max_length=4096)]  # of a folder's path or a published name
Size = Annotated[int, Field(ge=1, le=1 << 20)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Dtype = Literal["float32", "float16", "bfloat16"]
Degree = Annotated[int, Field(ge=-1, le=1024)]  # information about training; the files are complete without it


class LoRASettings(Settings):
    """`lora_config.json`. Options that change LoRA's matrices into another method have to be null or false."""

    base_model_name_or_path: Name | None = None
    target_modules: Pattern | Annotated[list[Pattern], Field(min_length=1, max_length=MOST_PATTERNS)]
    r: Annotated[int, Field(ge=1, le=4096)]
    lora_alpha: Annotated[int | float, Field(gt=0, le=1 << 20)]
    lora_dropout: Rate = 0.0
    lora_plus_scale: Annotated[float, Field(gt=0, le=1 << 20)] = 1.0
    rslora: bool = False
    use_quick_lora: bool = False
    tensor_parallel_degree: Degree = -1
    dtype: Dtype | None = None

    scaling: float | None = None  # computed from the others
    trainable_modules: None = None
    trainable_bias: None = None
    enable_lora_list: None = None
    head_dim: None = None
    merge_weights: Literal[False] = False
    do_qat: Literal[False] = False
    pissa: Literal[False] = False
    loraga: Literal[False] = False
    use_mora: Literal[False] = False
    lora_use_mixer: Literal[False] = False


class PrefixSettings(Settings):
    """`prefix_config.json`; its sizes are compared with the model's when the prefix is loaded."""

    base_model_name_or_path: Name | None = None
    prefix_dropout: Rate = 0.0
    num_prefix_tokens: Size | None = None
    num_attention_heads: Size | None = None
    multi_query_group_num: Size | None = None
    num_hidden_layers: Size | None = None
    hidden_size: Size | None = None
    prefix_projection: bool = False
    prefix_projection_hidden_size: Size | None = None
    tensor_parallel_degree: Degree = -1
    dtype: Dtype | None = None


def matching(names: Sequence[str], patterns: Sequence[str] | str) -> list[str]:
    """Returns the layer names that `target_modules` matches.

    A pattern is a whole name, the end of one, or has `*` and `?` (fnmatch). Of regular expressions, which PaddleNLP
    reads there, only its usual forms are known, and none is run: `.*\\.(a|b)`, which this toolkit writes, `.*\\.a` and
    `.*a.*`.

    Raises:
        InputError: a pattern is of no known form.
    """
    given = [patterns] if isinstance(patterns, str) else patterns
    wanted = [name for pattern in given for name in _as_fnmatch(pattern)]
    return [name for name in names if any(fnmatchcase(name, end) for end in wanted)]


def _as_fnmatch(pattern: str) -> list[str]:
    """Rewrites a pattern for fnmatch."""
    if pattern.startswith(".*\\.(") and pattern.endswith(")"):
        found = [f"*.{name}" for name in pattern[5:-1].split("|")]
    elif pattern.startswith(".*\\."):
        found = [f"*.{pattern[4:]}"]
    elif pattern.startswith(".*") and pattern.endswith(".*"):
        found = [f"*{pattern[2:-2]}*"]
    else:
        found = [pattern, f"*.{pattern}"]
    for form in found:
        if not set(form) <= OF_A_NAME or form.count("*") > MOST_STARS or len(found) > MOST_PATTERNS:
            raise InputError(
                f"target_modules {shown(pattern)}: names of linear layers are expected, with * for any characters; of "
                "regular expressions only .*\\.(name|name)"
            )
    return found
