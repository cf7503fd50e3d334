"""Reads and writes files of `paddle.save` without Paddle: one pickle that contains the bytes of each array.

Source: paddle/framework/io.py (`_pickle_save`): a state dict is saved as a dict of NumPy arrays, bfloat16 as uint16,
and a table of the parameters' own names beside them.
"""

import pickle
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from glm.checkpoint.pickled_values import tensors_in
from glm.checkpoint.pickles import Window, plain, read_pickle
from glm.checkpoint.tensors import ITEMS, LazyTensor, chunks, reading, with_progress

NAME_TABLE = "StructuredToParameterName@@"


def read_paddle(path: Path) -> dict[str, LazyTensor]:
    """Reads the tensors of a `.pdparams` file.

    Raises:
        InputError: it cannot be read, or wants to call something.
    """
    with path.open("rb") as file, reading(path, "Paddle file"):
        tree = read_pickle(Window(file, path))
        if isinstance(tree, dict):
            tree.pop(NAME_TABLE, None)
        tensors = tensors_in(tree, path)
    bits = {"uint16": "bfloat16"}
    return {name: replace(tensor, dtype=bits.get(tensor.dtype, tensor.dtype)) for name, tensor in tensors.items()}


def write_paddle(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Writes tensors for `paddle.load`."""
    with path.open("wb") as file:
        file.write(pickle.PROTO + b"\x04" + pickle.EMPTY_DICT)
        for name, tensor in with_progress(tensors, path.name):
            file.write(plain(name) + _opening(tensor))
            for chunk in chunks(tensor):
                file.write(chunk)
            file.write(pickle.TUPLE + pickle.BUILD + pickle.SETITEM)
        file.write(pickle.STOP)


def _opening(tensor: LazyTensor) -> bytes:
    """Returns the opcodes of an array that come before its bytes."""
    item = ITEMS[tensor.dtype].str
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\n",
            b"(cnumpy\nndarray\n" + plain((0,)) + pickle.SHORT_BINBYTES + b"\x01b" + pickle.TUPLE + pickle.REDUCE,
            pickle.MARK + plain(1) + plain(tensor.shape),
            b"cnumpy\ndtype\n" + plain((item[1:], False, True)) + pickle.REDUCE,
            plain((3, item[0], None, None, None, -1, -1, 0)) + pickle.BUILD,
            plain(False) + pickle.BINBYTES8 + struct.pack("<Q", tensor.nbytes),
        ]
    )
