"""Reads files of `torch.save` without torch (zip archives since torch 1.6, and the older format), and writes archives.

An archive has `NAME/data.pkl`, a pickle in which a tensor refers to a storage by its key, and each storage as
`NAME/data/KEY`, uncompressed. A file of the older format is five pickles (magic number, protocol, byte order, the
value, the keys), and then for each key the number of items and the items.
Source: torch/serialization.py and torch/_utils.py of PyTorch.
"""

import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from glm.checkpoint.pickled_values import STORAGE_DTYPES, Global, Storage
from glm.checkpoint.pickles import Window, plain, read_pickle
from glm.checkpoint.tensors import ITEMS, LazyTensor, Place, chunks, reading, row_by_row, with_progress
from glm.errors import InputError

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member: the lengths of its name and of its extra field
DIRECTORY_LIMIT = 1 << 22  # bytes; a member takes about 100
TYPES_OF_DTYPES = {dtype: name for name, dtype in STORAGE_DTYPES.items()}


def read_torch(path: Path) -> Any:
    """Reads the value in a file of `torch.save`; tensors are `TorchTensor`.

    Raises:
        InputError: it cannot be read, or wants to call something.
    """
    with path.open("rb") as file, reading(path, "PyTorch file"):
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            return _read_zip(file, path)
        return _read_legacy(file, path)


def _storage_of(found: Callable[[str, str, int], Storage]) -> Callable[[Any], Storage]:
    """Reads a persistent id: (`storage`, type, key, device, items, …)."""

    def storage(identifier: tuple) -> Storage:
        kind, storage_type, key, _, count, *view = identifier
        if kind != "storage" or not isinstance(storage_type, Global) or not isinstance(key, str):
            raise ValueError("a persistent id that is no storage")
        if type(count) is not int or count < 0 or any(part is not None for part in view):
            raise ValueError("a storage of no size, or a view of another")
        return found(key, STORAGE_DTYPES[storage_type.name.removeprefix("torch.")], count)

    return storage


class _SmallReads:
    """A file for `zipfile` that limits reads to what a directory needs, since it trusts the sizes in an archive."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell, self.file = file.seek, file.tell, file

    def read(self, length: int = -1) -> bytes:
        if length > DIRECTORY_LIMIT:
            raise ValueError(f"a directory of {length} bytes")
        return self.file.read(DIRECTORY_LIMIT if length < 0 else length)


def _read_zip(file: BinaryIO, path: Path) -> Any:
    places = _members(file, path)
    pickles = [name for name in places if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} files data.pkl in it")
    root = pickles[0].removesuffix("data.pkl")
    order = places.get(f"{root}byteorder")
    if order is not None:
        file.seek(order.start)
        if file.read(min(order.end - order.start, 10)) != b"little":
            raise ValueError("its numbers are not little-endian")

    def find(key: str, dtype: str, count: int) -> Storage:
        place = places[f"{root}data/{key}"]
        if place.end - place.start != count * ITEMS[dtype].itemsize:
            raise ValueError(f"a storage of {count} items has {place.end - place.start} bytes")
        return Storage(dtype, count, place)

    value = places[pickles[0]]
    return read_pickle(Window(file, path, value.start, value.end), _storage_of(find))


def _members(file: BinaryIO, path: Path) -> dict[str, Place]:
    """Returns the places of an archive's members; checks that they are uncompressed and do not overlap."""
    size = file.seek(0, 2)
    places = {}
    try:
        archive = zipfile.ZipFile(_SmallReads(file))
    except zipfile.BadZipFile as error:
        raise ValueError("the directory at the end of the archive is missing or damaged: cut short?") from error
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise ValueError("a member is compressed or encrypted, which torch.save never does")
        if not 0 <= info.header_offset < size:
            raise ValueError("a member is not in the file")
        file.seek(info.header_offset)
        magic, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
        if magic != ZIP_MAGIC or start + info.file_size > size:
            raise ValueError("a member is not where the directory says")
        if info.filename in places:
            raise ValueError("two members of the same name")
        places[info.filename] = Place(path, start, start + info.file_size)
    ordered = sorted(places.values(), key=lambda place: place.start)
    if any(following.start < place.end for place, following in zip(ordered, ordered[1:], strict=False)):
        raise ValueError("members overlap")
    return places


def _read_legacy(file: BinaryIO, path: Path) -> Any:
    storages: dict[str, Storage] = {}

    def find(key: str, dtype: str, count: int) -> Storage:
        storage = storages.setdefault(key, Storage(dtype, count))
        if (storage.dtype, storage.count) != (dtype, count):
            raise ValueError("a storage of two sizes")
        return storage

    window = Window(file, path)
    if read_pickle(window) != LEGACY_MAGIC:
        raise InputError(f"{path}: not a file of torch.save")
    read_pickle(window)  # the protocol
    if read_pickle(window)["little_endian"] is not True:
        raise ValueError("its numbers are not little-endian")
    value = read_pickle(window, _storage_of(find))
    for key in read_pickle(window):
        storage = storages[key]
        (count,) = struct.unpack("<q", window.read(8))
        start = window.tell()
        end = start + count * ITEMS[storage.dtype].itemsize
        if count != storage.count or storage.place is not None or end > window.end:
            raise ValueError("a storage of another size, given twice, or cut short")
        storage.place = Place(path, start, end)
        file.seek(end)
    return value


def write_torch(path: Path, tree: dict) -> None:
    """Writes nested dicts of strings, numbers and `LazyTensor` for `torch.load`.

    A tensor that occurs twice is written once, as torch does with tied weights.
    """
    tensors: dict[str, LazyTensor] = {}
    content = b"\x80\x02" + _opcodes(tree, tensors) + pickle.STOP
    root = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        # A ZipInfo has the date 1980, so that the same tensors give the same file.
        archive.writestr(zipfile.ZipInfo(f"{root}/data.pkl"), content)
        archive.writestr(zipfile.ZipInfo(f"{root}/byteorder"), "little")
        for key, tensor in with_progress(tensors, path.name):
            member = zipfile.ZipInfo(f"{root}/data/{key}")
            member.file_size = tensor.nbytes  # decides whether the entry needs 64-bit sizes
            with archive.open(member, "w") as target:
                for chunk in chunks(tensor):
                    target.write(chunk)
        archive.writestr(zipfile.ZipInfo(f"{root}/version"), "3\n")


def _opcodes(value: Any, tensors: dict[str, LazyTensor]) -> bytes:
    if isinstance(value, Mapping):
        items = b"".join(plain(name) + _opcodes(inner, tensors) for name, inner in value.items())
        return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    if not isinstance(value, LazyTensor):
        return plain(value)
    key = next((key for key, tensor in tensors.items() if tensor is value), str(len(tensors)))
    tensors[key] = value
    return b"".join(
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            pickle.MARK,
            pickle.MARK + plain("storage") + f"ctorch\n{TYPES_OF_DTYPES[value.dtype]}\n".encode(),
            plain(key) + plain("cpu") + plain(math.prod(value.shape)) + pickle.TUPLE + pickle.BINPERSID,
            plain(0) + plain(value.shape) + plain(row_by_row(value.shape)) + plain(False),
            b"ccollections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE,
            pickle.TUPLE + pickle.REDUCE,
        ]
    )
