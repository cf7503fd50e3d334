"""Loads the tokenizer of a model from a folder, a file or a published name; PaddleNLP only for the last."""

from collections.abc import Sequence
from pathlib import Path

from glm.errors import InputError
from glm.models.protocol import Family, Tokenizer

MOST_BYTES = 1 << 26  # of a file; its pieces in memory take many times as much


def load_tokenizer(family: Family, name_or_path: str) -> Tokenizer:
    """Loads the tokenizer of a folder, of a tokenizer's file or of a published name.

    Raises:
        InputError: there is none, or it cannot be fetched.
    """
    path = Path(name_or_path)
    if path.suffix == ".json":
        raise InputError(f"model {path}: a configuration has no tokenizer; set tokenizer_name_or_path")
    if path.is_dir() and not (path / family.tokenizer_files[0]).is_file():
        raise InputError(
            f"tokenizer {path}: the folder has no {family.tokenizer_files[0]}; set tokenizer_name_or_path"
        )
    if path.exists():
        for file in [path / name for name in family.tokenizer_files] if path.is_dir() else [path]:
            if file.exists() and (size := file.stat().st_size) > MOST_BYTES:
                raise InputError(f"{file}: {size:,} bytes, too many for a file of a tokenizer")
        return family.open_tokenizer(path)
    if is_path(name_or_path):
        raise InputError(f"model_name_or_path or tokenizer_name_or_path {name_or_path}: no such file or folder")
    try:
        if family.fetch_tokenizer is None:
            raise InputError(f"{family.title} has no published tokenizers")
        return family.fetch_tokenizer(name_or_path)
    except Exception as error:  # whatever the reason, the advice is the same
        raise not_found("tokenizer", name_or_path, error, family.published_tokenizers) from error


def is_path(name: str) -> bool:
    """Whether a name can only be a local file or folder."""
    return name.startswith((".", "/", "~"))


def not_found(kind: str, name: str, reason: object, published: Sequence[str]) -> InputError:
    """Returns the message for a model or tokenizer that neither exists locally nor could be fetched."""
    return InputError(
        f"{kind} {name}: neither a folder here, nor could it be fetched ({reason}); published names: "
        f"{', '.join(published) or 'none'}"
    )
