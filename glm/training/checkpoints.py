"""Writes checkpoints that are either complete or absent: under a temporary name with a manifest, renamed at the end,
verified before use.

`checkpoint-N` appears by one rename, when all of it is on the disk. Its manifest has the size and SHA-256 of every
file, and is itself guarded by one. What is spoilt or out of date is set aside under another name, never deleted;
rotation renames before it deletes, so that a half-deleted folder is no candidate.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from paddlenlp.utils.log import logger
from pydantic import ConfigDict, Field
from tqdm import tqdm

from glm.errors import InputError, shown
from glm.runtime.atomic import new_folder
from glm.runtime.seals import FileSeal
from glm.runtime.settings_file import Settings, checked, read_object

MANIFEST_NAME = "manifest.json"
FORMAT = 1
NAME = re.compile(r"checkpoint-(\d+)")
DEAD = ".dead-"  # prefix of a folder that is being deleted
CHUNK = 1 << 22  # bytes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were all verified.

    Attributes:
        facts: what its manifest says besides step and files.
    """

    folder: Path
    step: int
    facts: dict[str, Any]


class Facts(Settings):
    """The entries of a manifest that a resumed run reads."""

    model_config = ConfigDict(extra="allow")

    fingerprint: dict[str, Any] = {}
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    changes: list[dict[str, Any]] = []


class Manifest(Settings):
    """`manifest.json`; it lists the files of its own folder."""

    format: int
    step: Annotated[int, Field(ge=0, lt=1 << 63)]
    files: dict[Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=255)], FileSeal]
    facts: Facts


def folder_of(output_dir: Path, step: int) -> Path:
    """Returns the folder of a step's checkpoint."""
    return output_dir / f"checkpoint-{step}"


def step_of(folder: Path) -> int | None:
    """Returns the step in a folder's name; None if it is no checkpoint's name."""
    found = NAME.fullmatch(folder.name)
    return int(found[1]) if found else None


def write_checkpoint(output_dir: Path, step: int, write: Callable[[Path], None], facts: dict[str, Any]) -> Checkpoint:
    """Writes a checkpoint.

    Args:
        write: puts the files into a folder.
        facts: what the manifest says of the run; JSON.

    Raises:
        InputError: it cannot be written; what was written of it is removed, and what there was before is untouched.
    """
    target = folder_of(output_dir, step)
    try:
        with new_folder(target) as aside:
            write(aside)
            names = sorted(path.name for path in aside.iterdir())
            files = {name: {"bytes": (aside / name).stat().st_size, "sha256": _digest(aside / name)} for name in names}
            manifest = {"format": FORMAT, "step": step, "files": files, "facts": facts}
            (aside / MANIFEST_NAME).write_bytes(_manifest_bytes(manifest))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error
    return Checkpoint(target, step, facts)


def verify(folder: Path) -> Checkpoint:
    """Reads a whole checkpoint and compares it with its manifest.

    Raises:
        InputError: it is not whole; the text names the file.
    """
    manifest = _read_manifest(folder)
    files = manifest["files"]
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{folder}: {name} is missing")
        if path.stat().st_size != entry["bytes"]:
            raise InputError(f"{folder}: {name} has {path.stat().st_size} bytes in place of {entry['bytes']}")
    with tqdm(total=sum(entry["bytes"] for entry in files.values()), desc=f"verifying {folder.name}", unit="B",
              unit_scale=True, disable=None) as bar:  # fmt: skip
        for name, entry in files.items():
            if _digest(folder / name, bar) != entry["sha256"]:
                raise InputError(f"{folder}: {name} is not what was saved (SHA-256 differs)")
    if step_of(folder) not in (None, manifest["step"]):
        raise InputError(f"{folder}: is the checkpoint of step {manifest['step']} under another name")
    return Checkpoint(folder, manifest["step"], manifest["facts"])


def newest_whole(output_dir: Path) -> Checkpoint | None:
    """Returns the newest checkpoint that is complete; reports later ones that are not, and sets them aside."""
    for folder in reversed(checkpoint_folders(output_dir)):
        try:
            return verify(folder)
        except (InputError, OSError) as error:
            logger.warning(f"{error}; it is left out, and kept as {set_aside(folder, 'damaged').name}")
    return None


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """Returns the folders of all checkpoints, earliest step first."""
    found = [folder for folder in output_dir.glob("checkpoint-*") if step_of(folder) is not None and folder.is_dir()]
    return sorted(found, key=step_of)


def set_aside(folder: Path, reason: str) -> Path:
    """Renames a folder so that it no longer counts as a checkpoint."""
    new, number = folder.with_name(f"{folder.name}.{reason}"), 1
    while new.exists():
        number += 1
        new = folder.with_name(f"{folder.name}.{reason}-{number}")
    return folder.rename(new)


def rotate(output_dir: Path, *, limit: int | None, best: str | None) -> None:
    """Deletes all but the `limit` latest checkpoints (`--save_total_limit`); the best one and the latest always stay.

    Args:
        best: the name of the best one's folder; it counts among the `limit`.
    """
    folders = checkpoint_folders(output_dir)
    if not limit or limit <= 0 or not folders:
        return
    kept = {folders[-1].name, *(folder.name for folder in folders if folder.name == best)}
    for folder in reversed(folders):
        if len(kept) < limit:
            kept.add(folder.name)
    _delete([folder for folder in folders if folder.name not in kept])


def delete_all(output_dir: Path) -> None:
    """Deletes all checkpoints (`--overwrite_output_dir`)."""
    _delete(checkpoint_folders(output_dir))


def sweep(output_dir: Path) -> None:
    """Removes what a killed process left half-written or half-deleted."""
    for folder in [*output_dir.glob(".checkpoint-*.partial"), *output_dir.glob(f"{DEAD}checkpoint-*")]:
        _remove(folder)


def _delete(folders: Sequence[Path]) -> None:
    for folder in folders:
        dead = folder.with_name(DEAD + folder.name)
        _remove(dead)
        _remove(folder.rename(dead))


def _remove(folder: Path) -> None:
    """Deletes a folder; for a link, only the link."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InputError(f"{folder}: {MANIFEST_NAME} is missing, so it is no whole checkpoint of this program")
    try:
        manifest = read_object(path)
        del manifest["sha256"]
    except (InputError, LookupError):
        manifest = None
    if manifest is None or _manifest_bytes(manifest) != path.read_bytes():
        raise InputError(f"{folder}: {MANIFEST_NAME} is not what was saved")
    if manifest.get("format") != FORMAT:
        found = shown(str(manifest.get("format")))
        raise InputError(f"{folder}: its format is {found}; this version of the program knows {FORMAT}")
    checked(manifest, Manifest, path)
    return manifest


def _manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """Serialises a manifest; equal content gives equal bytes, which include the content's SHA-256."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**manifest, "sha256": digest}, indent=2, sort_keys=True) + "\n").encode()


def _digest(path: Path, bar: tqdm | None = None) -> str:
    """Returns the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK):
            digest.update(block)
            if bar is not None:
                bar.update(len(block))
    return digest.hexdigest()
