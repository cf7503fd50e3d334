"""Matrix products in bfloat16 and int8 on a processor's matrix unit (AMX), written in LLVM.

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

from glm.cpu.vectors import AHEAD, INT8, INT64, LINE, call, fetch, tables

ROWS, INPUTS, OUTPUTS = 16, 32, 16  # of states and of weights in a tile
PANEL = 2 * OUTPUTS  # outputs that are computed together
BYTES = 64  # of a tile's row
TILE = ROWS * BYTES
PERMISSION = 158, 0x1023, 18  # arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA


@cache
def has_tiles(feature: str = "amx-bf16") -> bool:
    """Whether the processor has tiles for bfloat16 (or `amx-int8`), and Linux lets this process use them."""
    features = llvmlite.binding.get_host_cpu_features()
    if not (features.get(feature) and sys.platform == "linux"):
        return False
    return ctypes.CDLL(None).syscall(*map(ctypes.c_long, PERMISSION)) == 0


def configuration() -> np.ndarray:
    """Returns the processor's tile configuration, [1, 64] bytes: eight tiles of 16 rows of 64 bytes."""
    config = np.zeros(64, np.uint8)
    config[0] = 1  # palette
    config[16:32].view(np.uint16)[:] = BYTES
    config[48:56] = ROWS
    return config[None]


def tile_products(blocks: int, instruction_name: str = "tdpbf16ps") -> Callable:
    """Returns a function for compiled loops that multiplies `blocks` (1 or 2) blocks of 16 rows by a panel's 32
    outputs.

    It takes a configuration [1, 64], states [n, I] from row r on, a panel [I / 32, 2 * 16 * 16 * 2] (see
    `glm.cpu.products.panels_of`), sums [16 * blocks, 32] float32 to write to, and r. Numbers of bfloat16 are uint16;
    arrays are contiguous. With `tdpbsud` states are int8, weights uint8, both twice as many, and sums int32.
    """

    @intrinsic
    def multiply(typing, config, states, panel, sums, r):
        return types.void(config, states, panel, sums, types.intp), generate

    def generate(context, builder, signature, arguments):
        config, states, panel, sums = tables(context, builder, signature, arguments[:4])

        def instruction(name: str, *arguments: ir.Value) -> None:
            call(builder, f"llvm.x86.{name}", ir.VoidType(), *arguments)

        def behind(address: ir.Value, *factors: ir.Value) -> ir.Value:
            return builder.gep(address, [builder.mul(*factors)])

        rows, outs = range(blocks), range(PANEL // OUTPUTS)
        sum_tiles = {(row, out): INT8(row * len(outs) + out) for row in rows for out in outs}
        first = behind(states.data, arguments[4], states.stride)
        instruction("ldtilecfg", config.data)
        for tile in sum_tiles.values():
            instruction("tilezero", tile)
        with cgutils.for_range(builder, panel.count) as loop:
            weights = behind(panel.data, loop.index, panel.stride)
            for line in range(0, len(outs) * TILE if blocks == 1 else 0, LINE):
                fetch(builder, weights, AHEAD + line)
            for out in outs:
                instruction("tileloadd64", INT8(6 + out), builder.gep(weights, [INT64(out * TILE)]), INT64(BYTES))
            for row in rows:
                block = behind(first, INT64(row * ROWS), states.stride)
                instruction("tileloadd64", INT8(4 + row), behind(block, loop.index, INT64(BYTES)), states.stride)
                for out in outs:
                    instruction(instruction_name, sum_tiles[row, out], INT8(4 + row), INT8(6 + out))
        for (row, out), tile in sum_tiles.items():
            place = sums.address(INT64(row * ROWS), INT64(out * OUTPUTS))
            instruction("tilestored64", tile, place, sums.stride)
        instruction("tilerelease")
        return context.get_dummy_value()

    return multiply
