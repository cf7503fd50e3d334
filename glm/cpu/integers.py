"""Products in int8 with sums in int32 (LLM.int8() without outliers; the scheme of most CPU runtimes), compiled by Numba.

A weight has a scale per output and is quantized once; a row of states has a scale of its own and is quantized as it
comes. With signed states x and weights w moved by 128, so that one factor is unsigned as the instructions ask,
sum(x w) = sum(x (w + 128)) - 128 sum(x). Integers are exact: every processor gives the same sums.
"""

from collections.abc import Callable
from functools import cache

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, prange
from numba.core import cgutils, types
from numba.extending import intrinsic

from glm.cpu import tiles
from glm.cpu.loops import OPTIONS, greatest
from glm.cpu.vectors import AHEAD, INT8, INT32, INT64, call, fetch, tables

INPUTS, OUTPUTS, PANEL = 64, 16, 32  # inputs and outputs of a tile, outputs that are computed together
QUAD = 4  # inputs whose products one instruction adds up
OFFSET = 128  # between a weight and what is stored of it
LARGEST = 127  # a quantized number's absolute value
CHUNK = 1 << 18  # bytes of states that all panels are multiplied by before the next ones: they stay in the cache


@cache
def best_kernel() -> str | None:
    """The fastest kernel of this processor: `amx`, `avx512_vnni`, `avx_vnni`, `avx2`, or None if it has none of them."""
    features = llvmlite.binding.get_host_cpu_features()
    if tiles.has_tiles("amx-int8"):
        return "amx"
    names = {"avx512_vnni": "avx512vnni", "avx_vnni": "avxvnni", "avx2": "avx2"}
    return next((kernel for kernel, feature in names.items() if features.get(feature)), None)


# Rows that a kernel computes together: many, some, few. A vector kernel keeps all of their sums in registers.
ROWS = {"amx": (32, 16, 16), "avx512_vnni": (12, 6, 2), "avx_vnni": (3, 2, 1), "avx2": (2, 2, 1)}


def kernel_of(kind: str, rows: int) -> Callable:
    """A function for compiled loops: `rows` rows of states, from row r on, by the 32 outputs of a panel.

    It takes a configuration of tiles [1, 64], states [n, I] int8, a panel [I / 64, 2048] uint8 (see
    `glm.cpu.products.panels_of`), sums [rows, 32] int32 to write to, and r. Arrays are contiguous, and I a multiple of
    64.

    Args:
        kind: see `best_kernel`.
        rows: one of `ROWS[kind]`.
    """
    if kind == "amx":
        return tiles.tile_products(rows // tiles.ROWS, "tdpbsud")
    return _vector_products(rows, 16 if kind == "avx512_vnni" else 8, _add_quads if "vnni" in kind else _add_pairs)


def _vector_products(rows: int, lanes: int, add: Callable) -> Callable:
    """See `kernel_of`; `lanes` sums in a vector, to which `add` adds four products each."""
    sums_type, bytes_type = ir.VectorType(INT32, lanes), ir.VectorType(INT8, 4 * lanes)

    @intrinsic
    def multiply(typing, config, states, panel, sums, r):
        return types.void(config, states, panel, sums, types.intp), generate

    def generate(context, builder, signature, arguments):
        _, states, panel, sums = tables(context, builder, signature, arguments[:4])
        row_numbers = [builder.add(arguments[4], INT64(row)) for row in range(rows)]
        starts = range(0, PANEL, lanes)
        cells = {(row, start): _zeros(builder, sums_type) for row in range(rows) for start in starts}
        with cgutils.for_range(builder, panel.count) as step, cgutils.for_range(builder, INT64(INPUTS // QUAD)) as quad:
            here = builder.mul(quad.index, INT64(QUAD * OUTPUTS))
            vectors = {}
            for start in starts:
                tile, place = divmod(start, OUTPUTS)
                offset = builder.add(here, INT64(tile * OUTPUTS * INPUTS + place * QUAD))
                address = panel.address(step.index, offset)
                vectors[start] = builder.load(builder.bitcast(address, bytes_type.as_pointer()), align=1)
                if place == 0:
                    fetch(builder, address, AHEAD)
            column = builder.add(builder.mul(step.index, INT64(INPUTS)), builder.mul(quad.index, INT64(QUAD)))
            for row, number in enumerate(row_numbers):
                four = builder.load(builder.bitcast(states.address(number, column), INT32.as_pointer()), align=1)
                everywhere = builder.bitcast(_spread(builder, four, sums_type), bytes_type)
                for start, weights in vectors.items():
                    cell = cells[row, start]
                    builder.store(add(builder, builder.load(cell), weights, everywhere), cell)
        for (row, start), cell in cells.items():
            place = builder.bitcast(sums.address(INT64(row), INT64(start)), sums_type.as_pointer())
            builder.store(builder.load(cell), place, align=4)
        return context.get_dummy_value()

    return multiply


def _add_quads(builder: ir.IRBuilder, sums: ir.Value, weights: ir.Value, states: ir.Value) -> ir.Value:
    """Adds four products of unsigned weights and signed states to each sum, by the instruction made for it (VNNI)."""
    return call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * sums.type.count}", sums.type, sums, weights, states)


def _add_pairs(builder: ir.IRBuilder, sums: ir.Value, weights: ir.Value, states: ir.Value) -> ir.Value:
    """The same where there are only products of 16 bits, added up in pairs (AVX2)."""
    halves = []
    for first in (0, 16):
        chosen = ir.Constant(ir.VectorType(INT32, 16), list(range(first, first + 16)))
        wide = ir.VectorType(ir.IntType(16), 16)
        some_weights = builder.zext(builder.shuffle_vector(weights, weights, chosen), wide)
        some_states = builder.sext(builder.shuffle_vector(states, states, chosen), wide)
        halves.append(call(builder, "llvm.x86.avx2.pmadd.wd", sums.type, some_weights, some_states))
    even, odd = (ir.Constant(ir.VectorType(INT32, 8), list(range(place, 16, 2))) for place in range(2))
    both = builder.add(builder.shuffle_vector(*halves, even), builder.shuffle_vector(*halves, odd))
    return builder.add(sums, both)


def _zeros(builder: ir.IRBuilder, kind: ir.VectorType) -> ir.Value:
    """The place of a vector of sums, which LLVM keeps in a register."""
    place = cgutils.alloca_once(builder, kind)
    builder.store(ir.Constant(kind, [0] * kind.count), place)
    return place


def _spread(builder: ir.IRBuilder, number: ir.Value, kind: ir.VectorType) -> ir.Value:
    """A number in all lanes."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, number, INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count))


@njit(**OPTIONS)
def quantize_row(numbers, quantized):
    """float32 [I] -> int8 [at least I], each divided by the scale and rounded to the nearest integer, ties to even.

    Returns:
        The scale (NaN for a row with an infinity or NaN, whose numbers are 0 then), and the sum of the integers.
    """
    magnitudes = np.empty(len(numbers), np.float32)
    for i in range(len(numbers)):
        magnitudes[i] = abs(numbers[i])
    largest, total = greatest(magnitudes), np.int32(0)
    if not largest < np.inf:
        quantized[: len(numbers)] = 0
        return np.float32(np.nan), total
    inverse = np.float32(LARGEST) / max(largest, np.float32(1e-30))
    for i in range(len(numbers)):
        number = np.int32(np.rint(numbers[i] * inverse))
        quantized[i] = number
        total += number
    return largest / np.float32(LARGEST), total


def quantize_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 [outputs, inputs] -> uint8, moved by OFFSET, and the scales [outputs]: w = (integer - OFFSET) * scale.

    Raises:
        ValueError: a row has an infinity or NaN.
    """
    largest = np.abs(weight).max(axis=1)
    if not np.isfinite(largest).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(largest)))} has an infinite number or NaN")
    scales = largest / np.float32(LARGEST)
    integers = np.rint(weight / np.where(scales > 0, scales, 1)[:, None]) + OFFSET
    return integers.astype(np.uint8), scales


CONFIGURATION = tiles.configuration()
MANY, SOME, FEW = ROWS[best_kernel() or "avx2"]
_many, _some, _few = (kernel_of(best_kernel() or "avx2", rows) for rows in (MANY, SOME, FEW))


@njit(parallel=True, **OPTIONS)
def multiply_integers(states, panels, outputs, result):
    """states: [n, I] float32; panels: see `panels_of`; outputs: [2, O], scales and biases; result: [n, O]."""
    n, inputs = states.shape
    quantized = np.zeros((n + MANY, panels.shape[1] * INPUTS), np.int8)
    scales, corrections = np.empty(n, np.float32), np.empty(n, np.int32)
    for r in prange(n):
        scales[r], total = quantize_row(states[r], quantized[r])
        corrections[r] = OFFSET * total
    chunk = max(1, CHUNK // quantized.shape[1] // MANY) * MANY
    for start in range(0, n, chunk):
        end = min(start + chunk, n)
        for panel in prange(len(panels)):
            sums = np.empty((MANY, PANEL), np.int32)
            first, last = panel * PANEL, min(panel * PANEL + PANEL, outputs.shape[1])
            r = start
            while r < end:
                if end - r > SOME:
                    _many(CONFIGURATION, quantized, panels[panel], sums, r)
                    rows = MANY
                elif end - r > FEW:
                    _some(CONFIGURATION, quantized, panels[panel], sums, r)
                    rows = SOME
                else:
                    _few(CONFIGURATION, quantized, panels[panel], sums, r)
                    rows = FEW
                for k in range(min(rows, end - r)):
                    for o in range(first, last):
                        exact = np.float32(sums[k, o - first] - corrections[r + k])
                        result[r + k, o] = exact * (scales[r + k] * outputs[0, o]) + outputs[1, o]
                r += rows
