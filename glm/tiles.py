"""Products in bfloat16 by a processor's matrix unit (AMX), written for LLVM: eager Paddle has none on a CPU.

A tile is 16 rows of 64 bytes. One instruction multiplies 16 rows of 32 states by 32 inputs of 16 outputs, and adds up
in float32 (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18).
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

ROWS, INPUTS, OUTPUTS = 16, 32, 16  # of states and of weights in a tile
PANEL = 2 * OUTPUTS  # outputs that are computed together
BYTES = 64  # of a tile's row
TILE = ROWS * BYTES
PERMISSION = 158, 0x1023, 18  # arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA

INT8, INT64, VOID = ir.IntType(8), ir.IntType(64), ir.VoidType()
ADDRESS = INT8.as_pointer()


@cache
def has_tiles() -> bool:
    """Whether the processor has tiles of bfloat16, and Linux lets this process use them."""
    features = llvmlite.binding.get_host_cpu_features()
    if not (features.get("amx-bf16") and sys.platform == "linux"):
        return False
    return ctypes.CDLL(None).syscall(*map(ctypes.c_long, PERMISSION)) == 0


def configuration() -> np.ndarray:
    """64 bytes for the processor: eight tiles of 16 rows of 64 bytes."""
    config = np.zeros(64, np.uint8)
    config[0] = 1  # palette
    config[16:32].view(np.uint16)[:] = BYTES
    config[48:56] = ROWS
    return config


def tile_products(blocks: int) -> Callable:
    """A function for compiled loops: `blocks` (1 or 2) blocks of 16 rows by the 32 outputs of a panel.

    It takes a configuration, states [n, I] from row r on, panels [outputs / 32, I / 32, 2, 16, 16, 2] (see
    `glm.host_products.panels_of`), the number of a panel, and sums [16 * blocks, 32] float32 to write to. Numbers of
    bfloat16 are uint16; arrays are contiguous.
    """

    @intrinsic
    def multiply(typing, config, states, panels, sums, r, panel):
        def generate(context, builder, signature, arguments):
            *arrays, r, panel = arguments
            arrays = [
                context.make_array(kind)(context, builder, array)
                for kind, array in zip(signature.args[:4], arrays, strict=True)
            ]
            _generate(builder, blocks, *arrays, r, panel)
            return context.get_dummy_value()

        return types.void(config, states, panels, sums, types.intp, types.intp), generate

    return multiply


def _generate(builder: ir.IRBuilder, blocks: int, config, states, panels, sums, r: ir.Value, panel: ir.Value) -> None:
    def instruction(name: str, *arguments: ir.Value) -> None:
        kind = ir.FunctionType(VOID, [argument.type for argument in arguments])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), arguments)

    def address(array, offset: ir.Value) -> ir.Value:
        return builder.gep(builder.bitcast(array.data, ADDRESS), [offset])

    rows, outs = range(blocks), range(PANEL // OUTPUTS)
    sum_tile = {(row, out): INT8(row * len(outs) + out) for row in rows for out in outs}
    state_tile, weight_tile = {row: INT8(4 + row) for row in rows}, {out: INT8(6 + out) for out in outs}
    inputs = cgutils.unpack_tuple(builder, states.shape)[1]
    steps = cgutils.unpack_tuple(builder, panels.shape)[1]
    width = builder.mul(inputs, INT64(2))  # bytes of a row of states
    of_panel = builder.mul(panel, builder.mul(steps, INT64(len(outs) * TILE)))

    instruction("ldtilecfg", address(config, INT64(0)))
    for tile in sum_tile.values():
        instruction("tilezero", tile)
    with cgutils.for_range(builder, steps) as loop:
        for out in outs:
            place = builder.add(builder.mul(loop.index, INT64(len(outs) * TILE)), INT64(out * TILE))
            instruction("tileloadd64", weight_tile[out], address(panels, builder.add(of_panel, place)), INT64(BYTES))
        for row in rows:
            place = builder.mul(builder.add(r, INT64(row * ROWS)), width)
            place = builder.add(place, builder.mul(loop.index, INT64(BYTES)))
            instruction("tileloadd64", state_tile[row], address(states, place), width)
            for out in outs:
                instruction("tdpbf16ps", sum_tile[row, out], state_tile[row], weight_tile[out])
    for (row, out), tile in sum_tile.items():
        place = INT64(4 * (row * ROWS * PANEL + out * OUTPUTS))
        instruction("tilestored64", tile, address(sums, place), INT64(4 * PANEL))
    instruction("tilerelease")
