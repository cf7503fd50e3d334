"""The configuration stored in a run's folder, and what prediction and checks take from it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field

from glm.data.pairs import POOLS
from glm.data.tasks import PARTS_FILE
from glm.errors import InputError, UsageError, shown
from glm.generation.config import GenerationConfig
from glm.options.data import DataArguments
from glm.runtime.paths import published_values
from glm.runtime.settings_file import MOST_DEPTH, Settings, as_utf8, checked, read_object, read_plain, stand_in

RUN_CONFIG_NAME = "finetune_config.json"
CONFIG_SUFFIXES = (".json", ".yaml", ".yml")
MOST_YAML_BYTES = 1 << 17  # take about two seconds to read
MOST_YAML_ITEMS = 10_000  # names and values

# Options that are paths. `finetune_config.json` is published with a model, so the user's home folder is removed from
# them.
PATHS = ("model_name_or_path", "tokenizer_name_or_path", "train_file", "dev_file", "test_file", "fill_file")
PATHS += ("allowed_outputs_file", "data_cache_dir", "output_dir", "logging_dir", "resume_from_checkpoint")
PATHS += ("output_file", "metrics_file", "report", "api_key_file", "train_data", "dev_data", "multi_task_data")

Text = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Length = Annotated[int, Field(ge=0, le=1 << 20)]  # of texts, in tokens
Rate = Annotated[float, Field(ge=-1000, le=1000)]


def no_file(template: str) -> str:
    """Checks that a template is the template itself and not a file's name. Raises ValueError."""
    if template.endswith(PARTS_FILE):
        raise ValueError("names a file; its parts themselves are expected")
    return template


class TrainedWith(Settings):
    """The settings of a model's training that prediction follows, with their limits: a model folder may come from
    anywhere, so it may say how texts are read and written, but never where anything lies or goes.

    The other entries of the file are options of training, which prediction does not look at.
    """

    model_config = ConfigDict(extra="ignore")

    task_name: Name = None
    template: Annotated[Text, AfterValidator(no_file)] = None
    target_prefix: Text = None
    source_column: Name = None
    answer_column: Name = None
    target_column: Name = None
    labels: Text = None
    pattern_id: Annotated[int, Field(ge=0, le=1000)] = None
    multi_token: bool = None
    candidate_length_penalty: Rate = None
    classification_head: Literal[*POOLS] = None
    unidirectional: bool = None
    multi_turn: Literal["error", "last"] = None
    punctuation: Literal["fullwidth", "halfwidth"] = None
    max_history: Annotated[int, Field(ge=0, le=10_000)] = None
    document_length: Length = None
    src_length: Length = None
    max_seq_length: Length = None
    no_block_position: bool = None
    visible_pads: bool = None

    tgt_length: Length = None
    min_tgt_length: Length = None
    num_beams: Annotated[int, Field(ge=1, le=1024)] = None
    length_penalty: Rate = None
    early_stopping: Literal["true", "false", "never"] = None
    finished_rule: Literal["model", "glm", "unilm"] = None
    search_rules: Literal["glm", "fairseq"] = None
    no_repeat_ngram_size: Length = None
    no_repeat_ignore: Text = None
    repetition_penalty: Rate = None
    select_topk: bool = None
    temperature: Rate = None
    top_k: Length = None
    top_p: Annotated[float, Field(ge=0, le=1)] = None
    processor_order: Literal["after_softmax", "before_softmax"] = None
    num_return_sequences: Annotated[int, Field(ge=1, le=1024)] = None
    generation_seed: Annotated[int, Field(ge=0, lt=1 << 64)] = None
    decode_dtype: Literal["int8"] = None  # of a quantized folder

    @classmethod
    def of(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Selects the settings of a run that prediction follows."""
        return {name: value for name, value in settings.items() if name in cls.model_fields}


def read_config(path: Path) -> dict[str, Any]:
    """Reads options from a configuration file, JSON or YAML; keys that start with an underscore are notes.

    Values of YAML stay the words that they are written as: `no` and `1e-3` mean what they do on the command line.

    Raises:
        UsageError: the file cannot be read, is not an object, has a key twice, or sets an option to null.
    """
    is_yaml = path.suffix in (".yaml", ".yml")
    try:
        settings = _read_yaml(path) if is_yaml else read_object(path)
    except InputError as error:
        raise UsageError(str(error)) from error
    settings = {name: value for name, value in settings.items() if not name.startswith("_")}
    nulls = [name for name, value in settings.items() if value is None or (is_yaml and value in ("", "~", "null"))]
    if nulls:
        raise UsageError(*(f"{path}: {name} is null; leave it out to have its default" for name in nulls))
    return settings


def published_config(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns options as `finetune_config.json` stores them, see `PATHS`; the option parser reads them back."""
    return {name: published_values(value) if name in PATHS else value for name, value in settings.items()}


def _read_yaml(path: Path) -> dict[str, Any]:
    data = read_plain(path, "YAML", MOST_YAML_BYTES)
    try:
        settings = yaml.load(as_utf8(data).decode("utf-8-sig"), Loader=_Words)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = stand_in(data) or shown(" ".join(str(error).split()))
        raise InputError(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: names and values are expected, and this is {stand_in(data) or 'something else'}")
    return {str(name): value for name, value in settings.items()}


class _Words(yaml.BaseLoader):
    """YAML loader without types: it creates no objects, and a scalar stays the text that it is written as.

    A value that others stand for (`*name`) counts as often as it is meant, so that no few lines are a million values.
    """

    depth = count = 0  # depth of the present node, and number of values so far

    def compose_node(self, parent, index):
        self.depth += 1
        self.count += 1
        _check_size(self.count, self.depth)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if not hasattr(node, "items"):
            _measure(node)
        return node

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(name, deep=True) for name, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1][:1]:
            raise ValueError(f"{twice[0]} is set twice")
        return super().construct_mapping(node, deep=True)


def _measure(node: yaml.Node) -> None:
    """Counts the values of a node, and measures its depth."""
    parts = [] if isinstance(node, yaml.ScalarNode) else node.value
    inner = [part for parts in node.value for part in parts] if isinstance(node, yaml.MappingNode) else parts
    node.items = 1 + sum(part.items for part in inner)
    node.height = 1 + max((part.height for part in inner), default=0)
    _check_size(node.items, node.height)


def _check_size(items: int, depth: int) -> None:
    if items > MOST_YAML_ITEMS:
        raise ValueError(f"more than {MOST_YAML_ITEMS} names and values")
    if depth > MOST_DEPTH:
        raise ValueError(f"nested more than {MOST_DEPTH} deep")


def trained_with(folder: str) -> dict[str, Any]:
    """Reads the settings in a model folder that prediction follows; none if there is no configuration.

    Raises:
        UsageError: the file cannot be read, or one of them is of another type, out of its range or without effect
            beside the others; the text names both.
    """
    path = Path(folder) / RUN_CONFIG_NAME
    if not path.is_file():
        return {}
    settings = read_config(path)
    try:
        found = checked(settings, TrainedWith, path).model_dump(exclude_unset=True)
        for group in (DataArguments, GenerationConfig):
            _check(group, found, path)
    except InputError as error:
        raise UsageError(str(error)) from error
    return {name: found[name] for name in settings if name in found}  # in the file's order


def _check(group: type, settings: dict[str, Any], path: Path) -> None:
    """Raises InputError if options of a group do not go together."""
    try:
        group(**{name: value for name, value in settings.items() if name in group.__dataclass_fields__})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
