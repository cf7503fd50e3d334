"""The products of a decoding step on a CPU, compiled by Numba.

A step multiplies a few rows, one per beam, with every weight of the model: its time is that of reading the weights.
Libraries for products arrange a weight for the processor's cache first, which pays for many rows only. Here a weight
stands as it is read, from its first number to its last, while the few rows stay in the cache.
"""

import numpy as np
from numba import njit, prange

from glm.cpu import tiles
from glm.cpu.loops import OPTIONS
from glm.cpu.vectors import dot_products

FEW = 40  # rows up to which this is faster in float32 than Paddle's products: from there on arithmetic takes the time
TASK = 32  # outputs that a thread computes at a time
CHUNK = 1 << 19  # bytes of states that all panels are multiplied by before the next ones: they stay in the cache


def panels_of(weight: np.ndarray) -> np.ndarray:
    """A weight as tiles are read: [outputs, inputs] -> [outputs / PANEL, inputs / I, PANEL * I].

    Of a panel of 32 outputs, I inputs at a time, which are 64 bytes; of these, two tiles of 16 groups of inputs, each
    of 4 bytes, by 16 outputs. 0 where the weight has no more of them.

    Args:
        weight: bfloat16 as uint16, or uint8.
    """
    group, inputs = 4 // weight.itemsize, tiles.BYTES // weight.itemsize
    panels, steps = -(-weight.shape[0] // tiles.PANEL), -(-weight.shape[1] // inputs)
    whole = np.zeros((panels * tiles.PANEL, steps * inputs), weight.dtype)
    whole[: weight.shape[0], : weight.shape[1]] = weight
    # o = (panel, tile, output), i = (step, group, place)
    by_groups = whole.reshape(panels, -1, tiles.OUTPUTS, steps, inputs // group, group)
    return by_groups.transpose(0, 3, 1, 4, 2, 5).reshape(panels, steps, -1)  # a copy


_ten_rows, _five_rows = dot_products(10, 2), dot_products(5, 4)


@njit(parallel=True, **OPTIONS)
def multiply(states, weight, bias, output):
    """states: [n, I]; weight: [O, I]; bias: [O]; output: [n, O]."""
    n, outputs = len(states), len(weight)
    for task in prange((outputs + TASK - 1) // TASK):
        first, end = task * TASK, min(task * TASK + TASK, outputs)
        for r in range(0, n, 10):
            if n - r > 5:
                for o in range(first, end, 2):
                    _ten_rows(states, weight, output, r, o)
            else:
                for o in range(first, end, 4):
                    _five_rows(states, weight, output, r, o)
        for r in range(n):
            for o in range(first, end):
                output[r, o] += bias[o]


CONFIGURATION, INPUTS, PANEL, BLOCK = tiles.configuration(), tiles.INPUTS, tiles.PANEL, tiles.ROWS
_one_block, _two_blocks = tiles.tile_products(1), tiles.tile_products(2)


@njit(parallel=True, **OPTIONS)
def multiply_tiles(states, panels, bias, output):
    """states: [n, I] float32; panels: see `panels_of`; bias: [O]; output: [n, O]."""
    n, inputs = states.shape
    rounded = np.zeros(((n + 2 * BLOCK - 1) // (2 * BLOCK) * (2 * BLOCK), panels.shape[1] * INPUTS), np.uint16)
    for r in prange(n):
        bits = states[r].view(np.uint32)
        for i in range(inputs):  # to the nearest, of two the even one
            nearest = (bits[i] + np.uint32(0x7FFF) + (bits[i] >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
            rounded[r, i] = nearest if states[r, i] == states[r, i] else np.uint32(0x7FC0)  # NaN stays NaN
    chunk = max(1, CHUNK // (2 * inputs) // (2 * BLOCK)) * (2 * BLOCK)
    for start in range(0, n, chunk):
        for panel in prange(len(panels)):
            sums = np.empty((2 * BLOCK, PANEL), np.float32)
            first, end = panel * PANEL, min(panel * PANEL + PANEL, len(bias))
            for r in range(start, min(start + chunk, n), 2 * BLOCK):
                if n - r > BLOCK:
                    _two_blocks(CONFIGURATION, rounded, panels[panel], sums, r)
                else:
                    _one_block(CONFIGURATION, rounded, panels[panel], sums, r)
                for k in range(min(2 * BLOCK, n - r)):
                    for o in range(first, end):
                        output[r + k, o] = sums[k, o - first] + bias[o]
