"""Weights stored in panels, and kernels in LLVM that multiply them in int8 and bfloat16.

A panel is 32 outputs of a weight as the instructions read it. One instruction multiplies 4 bytes of a row of states (4
of int8, 2 of bfloat16) by the same of 16 outputs, and adds the products up in 32 bits; the matrix unit (AMX) does that
for 16 rows and 64 bytes. So all kernels read the same panels.
"""

from collections.abc import Callable
from functools import cache

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from glm.cpu import tiles
from glm.cpu.loops import OPTIONS
from glm.cpu.tiles import BYTES, OUTPUTS, PANEL
from glm.cpu.vectors import AHEAD, FLOAT, INT8, INT32, INT64, call, fetch, tables

GROUP = 4  # bytes of a row whose products one instruction sums
CONFIGURATION = tiles.configuration()
# Row counts of the kernels: many, some, few. Vector kernels keep all sums of that many rows in registers.
INTEGER_KERNELS = {"amx": (32, 16, 16), "avx512_vnni": (12, 6, 2), "avx_vnni": (3, 2, 1), "avx2": (2, 2, 1)}
BFLOAT16_KERNELS = {"amx_bf16": (32, 16, 16), "avx512_bf16": (12, 6, 2)}
FEATURES = {
    "amx": "amx-int8",
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "avx2": "avx2",
    "amx_bf16": "amx-bf16",
    "avx512_bf16": "avx512bf16",
}


def has_kernel(kind: str) -> bool:
    """Whether the processor has a kernel's instructions, and Linux lets this process use them."""
    feature = FEATURES[kind]
    if feature.startswith("amx"):
        return tiles.has_tiles(feature)
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))


@cache
def integer_kernel() -> str | None:
    """Returns the fastest kernel for int8 on this processor; None if it has none."""
    return next(filter(has_kernel, INTEGER_KERNELS), None)


@cache
def bfloat16_kernel() -> str | None:
    """As `integer_kernel`, for bfloat16."""
    return next(filter(has_kernel, BFLOAT16_KERNELS), None)


def panels_of(weight: np.ndarray) -> np.ndarray:
    """Rearranges a weight for the kernels: [outputs, inputs] -> [outputs / 32, inputs / I, 32 * I].

    Of a panel of 32 outputs, I inputs at a time, which are 64 bytes; of these, two tiles of 16 groups of inputs, each
    of 4 bytes, by 16 outputs. 0 where the weight has no more of them.

    Args:
        weight: bfloat16 as uint16, or uint8.
    """
    group, inputs = GROUP // weight.itemsize, BYTES // weight.itemsize
    panels, steps = -(-weight.shape[0] // PANEL), -(-weight.shape[1] // inputs)
    whole = np.zeros((panels * PANEL, steps * inputs), weight.dtype)
    whole[: weight.shape[0], : weight.shape[1]] = weight
    # o = (panel, tile, output), i = (step, group, place)
    by_groups = whole.reshape(panels, -1, OUTPUTS, steps, inputs // group, group)
    return by_groups.transpose(0, 3, 1, 4, 2, 5).reshape(panels, steps, -1)  # a copy


def kernel_of(kind: str, rows: int) -> Callable:
    """Returns a function for compiled loops that multiplies `rows` rows of states, from row r on, by a panel's 32
    outputs.

    It takes a configuration of tiles [1, 64], states [n, I] (int8, or bfloat16 as uint16), a panel of `panels_of` (of
    uint8, or bfloat16 as uint16), sums [rows, 32] (int32, or float32) to write to, and r. Arrays are contiguous, and a
    row of states is a multiple of 64 bytes.

    Args:
        kind: one of `INTEGER_KERNELS` or `BFLOAT16_KERNELS`.
        rows: one of that kernel's.
    """
    if kind.startswith("amx"):
        return tiles.tile_products(rows // tiles.ROWS, "tdpbsud" if kind in INTEGER_KERNELS else "tdpbf16ps")
    if kind == "avx512_bf16":
        return _vector_products(rows, ir.VectorType(FLOAT, 16), _add_bfloat16)
    sums = ir.VectorType(INT32, 16 if kind == "avx512_vnni" else 8)
    return _vector_products(rows, sums, _add_pairs if kind == "avx2" else _add_quads)


def products_of(kind: str) -> tuple[int, Callable]:
    """Returns the most rows that a kernel multiplies at once, and a function for compiled loops.

    It takes states [n + most, I], a panel, sums [most, 32] to write to, r, and how many rows are left from r on; it
    returns how many it has multiplied, with the smallest kernel that takes all that are left. See `kernel_of`.

    Args:
        kind: as of `kernel_of`.
    """
    most, some, few = (INTEGER_KERNELS | BFLOAT16_KERNELS)[kind]
    of_most, of_some, of_few = (kernel_of(kind, rows) for rows in (most, some, few))

    @njit(**OPTIONS | {"cache": False})  # it is compiled into those that call it
    def multiply(states, panel, sums, r, left):
        if left > some:
            of_most(CONFIGURATION, states, panel, sums, r)
            return most
        if left > few:
            of_some(CONFIGURATION, states, panel, sums, r)
            return some
        of_few(CONFIGURATION, states, panel, sums, r)
        return few

    return most, multiply


def _vector_products(rows: int, sums_type: ir.VectorType, add: Callable) -> Callable:
    """Writes a kernel of vector instructions, see `kernel_of`; `add` adds the products of a group to each sum of a
    vector."""
    lanes = sums_type.count
    groups = ir.VectorType(INT32, lanes)  # groups as they are loaded

    @intrinsic
    def multiply(typing, config, states, panel, sums, r):
        return types.void(config, states, panel, sums, types.intp), generate

    def generate(context, builder, signature, arguments):
        _, states, panel, sums = tables(context, builder, signature, arguments[:4])
        row_numbers = [builder.add(arguments[4], INT64(row)) for row in range(rows)]
        starts = range(0, PANEL, lanes)
        cells = {(row, start): _zeros(builder, sums_type) for row in range(rows) for start in starts}
        groups_of_step = INT64(BYTES // GROUP)
        with cgutils.for_range(builder, panel.count) as step, cgutils.for_range(builder, groups_of_step) as group:
            tile = builder.gep(panel.data, [builder.mul(step.index, panel.stride)])
            line = builder.gep(tile, [builder.mul(group.index, INT64(GROUP * OUTPUTS))])
            weights = {}
            for start in starts:
                number, place = divmod(start, OUTPUTS)
                address = builder.gep(line, [INT64(number * OUTPUTS * BYTES + place * GROUP)])
                weights[start] = builder.load(builder.bitcast(address, groups.as_pointer()), align=1)
                if place == 0:
                    fetch(builder, address, AHEAD)
            column = builder.add(builder.mul(step.index, INT64(BYTES)), builder.mul(group.index, INT64(GROUP)))
            for row, number in enumerate(row_numbers):
                address = builder.gep(states.data, [builder.add(builder.mul(number, states.stride), column)])
                four = builder.load(builder.bitcast(address, INT32.as_pointer()), align=1)
                everywhere = _spread(builder, four, groups)
                for start in starts:
                    cell = cells[row, start]
                    builder.store(add(builder, builder.load(cell), weights[start], everywhere), cell)
        for (row, start), cell in cells.items():
            place = builder.bitcast(sums.address(INT64(row), INT64(start)), sums_type.as_pointer())
            builder.store(builder.load(cell), place, align=4)
        return context.get_dummy_value()

    return multiply


def _add_quads(builder: ir.IRBuilder, sums: ir.Value, weights: ir.Value, states: ir.Value) -> ir.Value:
    """Adds four products with unsigned weights and signed states to each sum in one instruction (VNNI)."""
    as_bytes = ir.VectorType(INT8, GROUP * sums.type.count)
    factors = (builder.bitcast(factor, as_bytes) for factor in (weights, states))
    return call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * sums.type.count}", sums.type, sums, *factors)


def _add_pairs(builder: ir.IRBuilder, sums: ir.Value, weights: ir.Value, states: ir.Value) -> ir.Value:
    """As `_add_quads`, by 16-bit products that are summed in pairs (AVX2)."""
    as_bytes, wide = ir.VectorType(INT8, 32), ir.VectorType(ir.IntType(16), 16)
    weights, states = builder.bitcast(weights, as_bytes), builder.bitcast(states, as_bytes)
    halves = []
    for first in (0, 16):
        chosen = ir.Constant(ir.VectorType(INT32, 16), list(range(first, first + 16)))
        some_weights = builder.zext(builder.shuffle_vector(weights, weights, chosen), wide)
        some_states = builder.sext(builder.shuffle_vector(states, states, chosen), wide)
        halves.append(call(builder, "llvm.x86.avx2.pmadd.wd", sums.type, some_weights, some_states))
    even, odd = (ir.Constant(ir.VectorType(INT32, 8), list(range(place, 16, 2))) for place in range(2))
    both = builder.add(builder.shuffle_vector(*halves, even), builder.shuffle_vector(*halves, odd))
    return builder.add(sums, both)


def _add_bfloat16(builder: ir.IRBuilder, sums: ir.Value, weights: ir.Value, states: ir.Value) -> ir.Value:
    """Adds two products in bfloat16 to each float32 sum (AVX512_BF16)."""
    pairs = ir.VectorType(_BFloat16(), 2 * sums.type.count)
    factors = (builder.bitcast(factor, pairs) for factor in (weights, states))
    return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", sums.type, sums, *factors)


class _BFloat16(ir.Type):
    """LLVM's type bfloat, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


def _zeros(builder: ir.IRBuilder, kind: ir.VectorType) -> ir.Value:
    """Allocates a vector of sums, which LLVM keeps in a register."""
    place = cgutils.alloca_once(builder, kind)
    builder.store(ir.Constant(kind, [0] * kind.count if kind.element == INT32 else [0.0] * kind.count), place)
    return place


def _spread(builder: ir.IRBuilder, number: ir.Value, kind: ir.VectorType) -> ir.Value:
    """Broadcasts a number to all lanes."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, number, INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count))
