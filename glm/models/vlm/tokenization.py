"""VLM's tokenizer: GPT-2's byte-level BPE by the library `tokenizers`, and the tags of VLM's tasks.

Every text is stripped, gets one blank in front and is encoded alone, as VLM does; it never becomes a tag, whatever it
contains. Sources: Radford et al. 2019, section 2.2; Lin et al. 2020 (zlinao/VGLM).
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers.decoders import ByteLevel as Bytes
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from glm.errors import InputError, shown
from glm.runtime.settings_file import read_object

VOCAB_FILE, MERGES_FILE, ADDED_FILE = "vocab.json", "merges.txt", "added_tokens.json"  # in a tokenizer's folder
END_OF_TEXT, PAD = "<|endoftext|>", "<pad>"
NO_TOKEN = -1  # every byte has a token, so no text is unknown


@dataclass(frozen=True)
class Tags:
    """The special tokens of a task.

    Args:
        bos, eos: open a row, and close the target.
        parts: tags of a source's parts, by the parts' names; the target's own is the last.
        opens_with_part: whether `bos` counts as a token of the first part.
    """

    bos: str
    eos: str
    parts: tuple[str, ...]
    opens_with_part: bool = False

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tags in the order of their ids."""
        return (self.bos, self.eos, *self.parts)

    @property
    def target(self) -> str:
        """The tag that opens the target."""
        return self.parts[-1]


SLOTS = ("name", "eatType", "familyFriendly", "priceRange", "food", "near", "area", "customerRating")
# By task number in VLM's own files, from 0.
TASKS = {
    "mt": Tags("<bos_mt>", "<eos_mt>", ("<source_mt>", "<target_mt>")),
    "summarization": Tags("<bos_sm>", "<eos_sm>", ("<source_sm>", "<target_sm>")),
    "dialogue": Tags("<bos_dial>", "<eos_dial>", ("<persona>", "<speaker1>", "<speaker2>"), opens_with_part=True),
    "qa": Tags("<bos_qa>", "<eos_qa>", ("<document>", "<question>", "<answer>"), opens_with_part=True),
    "nlg": Tags("<bos_nlg>", "<eos_nlg>", (*(f"<{slot}>" for slot in SLOTS), "<response>")),
}
# In the order of their ids, which follows neither the task numbers nor the order of parts.
ADDED = (
    PAD,
    *("<bos_dial>", "<eos_dial>", "<speaker1>", "<speaker2>", "<persona>"),
    *("<bos_qa>", "<eos_qa>", "<question>", "<answer>", "<document>"),
    *TASKS["mt"].tokens,
    *TASKS["summarization"].tokens,
    *TASKS["nlg"].tokens,
)


class BytePairTokenizer:
    """GPT-2's tokenizer with VLM's tags behind its words.

    Args:
        folder: has `vocab.json` and `merges.txt`.

    Raises:
        InputError: a file is missing or no such file, or `added_tokens.json` has other tags than VLM's.

    Attributes:
        num_added: rows that a GPT-2 lacks.
    """

    num_added = len(ADDED)

    def __init__(self, folder: Path):
        self.folder = folder
        self.ids = _read_vocabulary(folder / VOCAB_FILE)
        try:
            model = BPE.from_file(str(folder / VOCAB_FILE), str(folder / MERGES_FILE))
        except Exception as error:  # the library raises no more specific error
            raise InputError(
                f"{folder / MERGES_FILE}: cannot be read as the merges of {VOCAB_FILE} ({error})"
            ) from error
        self._pieces = tokenizers.Tokenizer(model)
        self._pieces.pre_tokenizer = ByteLevel(add_prefix_space=False)
        self._pieces.decoder = Bytes()
        self.words = len(self.ids)
        self.tag_ids = {tag: self.words + place for place, tag in enumerate(ADDED)}
        self._texts = {number: token for token, number in {**self.ids, **self.tag_ids}.items()}
        self._check_added(folder / ADDED_FILE)

    def _check_added(self, path: Path) -> None:
        found = read_object(path) if path.is_file() else {}
        for token, number in found.items():
            if token != END_OF_TEXT and self.tag_ids.get(token) != number:
                expected = self.tag_ids.get(token, "no such token")
                raise InputError(
                    f"{path}: {shown(token)} is {number!r:.40} and VLM has {expected}; use VLM's own file"
                )

    # -- what the toolkit asks of a tokenizer, see `glm.models.protocol.Tokenizer`

    @property
    def vocab_size(self) -> int:
        """Number of GPT-2's words and tags."""
        return self.words + self.num_added

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids of `<|endoftext|>` and the tags, by their texts."""
        return {END_OF_TEXT: self.end_token_id, **self.tag_ids}

    @property
    def end_token_id(self) -> int:
        """`<|endoftext|>`, which closes a text. Where a task has an end token of its own, the model writes that
        token's logit here."""
        return self.ids[END_OF_TEXT]

    @property
    def pad_token_id(self) -> int:
        """Fills rows up: `<pad>`."""
        return self.tag_ids[PAD]

    @property
    def unknown_token_id(self) -> int:
        """None: every byte has a token."""
        return NO_TOKEN

    @cached_property
    def digest(self) -> str:
        """SHA-256 of words and merges."""
        return hashlib.sha256(
            b"\0".join((self.folder / name).read_bytes() for name in (VOCAB_FILE, MERGES_FILE))
        ).hexdigest()

    def encode_text(self, text: str | list[str]) -> list[int] | list[list[int]]:
        """Encodes a text, or each text of a list: stripped and with a space in front; an empty text has no ids."""
        if isinstance(text, str):
            return self.encode_text([text])[0]
        spelt = [f" {stripped}" if (stripped := part.strip()) else "" for part in text]
        return [found.ids for found in self._pieces.encode_batch(spelt, add_special_tokens=False)]

    def decode_ids(self, ids: Iterable[int]) -> str:
        """Decodes ids without the space that encoding adds; special tokens are left out."""
        return self.raw_text(ids).removeprefix(" ")

    def raw_text(self, ids: Iterable[int]) -> str:
        """Decodes ids with the space that encoding adds."""
        return self._pieces.decode([number for number in ids if number < self.words and number != self.end_token_id])

    def token_of(self, number: int) -> str:
        """Returns the piece or tag of an id, with bytes as GPT-2 writes them."""
        return self._texts.get(int(number), "")

    def unknown_parts(self, text: str) -> list[str]:
        """None: every byte has a token."""
        return []

    def ids_without_text(self, rows: int) -> set[int]:
        """Ids of `<|endoftext|>`, the tags, and rows behind the vocabulary."""
        return {self.end_token_id, *range(self.words, rows)}

    def rows_of(self, task: str) -> list[int]:
        """Returns the ids of a task's tags."""
        return sorted(self.tag_ids[tag] for tag in TASKS[task].tokens)


def _read_vocabulary(path: Path) -> dict[str, int]:
    ids = read_object(path)
    if sorted(map(repr, ids.values())) != sorted(map(repr, range(len(ids)))):
        raise InputError(f"{path}: its ids are not the numbers from 0 to {len(ids) - 1}, each once")
    if END_OF_TEXT not in ids:
        raise InputError(f"{path}: has no {END_OF_TEXT}; the vocabulary of a GPT-2 is expected")
    return ids


def open_tokenizer(path: Path) -> BytePairTokenizer:
    """Opens the tokenizer of a folder, or of the folder that holds a `vocab.json`.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    if path.suffix == ".json" and path.name != VOCAB_FILE:
        raise InputError(f"model {path}: a configuration has no tokenizer; set tokenizer_name_or_path")
    for name in (VOCAB_FILE, MERGES_FILE):
        if not (folder / name).is_file():
            raise InputError(f"tokenizer {path}: the folder has no {name}; set tokenizer_name_or_path")
    return BytePairTokenizer(folder)


def save_tokenizer(tokenizer: BytePairTokenizer, folder: Path) -> None:
    """Writes GPT-2's two files and VLM's file of tags."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (VOCAB_FILE, MERGES_FILE):
        (folder / name).write_bytes((tokenizer.folder / name).read_bytes())
    (folder / ADDED_FILE).write_text(json.dumps(tokenizer.tag_ids) + "\n", encoding="utf-8")
