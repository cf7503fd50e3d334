"""Matrix products of a decoding step on a CPU, compiled by Numba.

A step multiplies a few rows, one per beam, with every weight of the model: its time is that of reading the weights.
Libraries for products arrange a weight for the processor's cache first, which pays for many rows only. Here a weight
stands as it is read, from its first number to its last, while the few rows stay in the cache.
"""

import numpy as np
from numba import njit, prange

from glm.cpu.loops import OPTIONS
from glm.cpu.panels import BYTES, PANEL, bfloat16_kernel, products_of
from glm.cpu.rounding import round_row
from glm.cpu.vectors import dot_products

MOST_COMPILED_ROWS = 40  # in float32; with more rows, arithmetic takes most of the time, and Paddle is faster
TASK = 32  # outputs that a thread computes at a time
CHUNK = 1 << 19  # bytes of states that all panels are multiplied by before the next ones: they stay in the cache


_ten_rows, _eight_rows, _five_rows = dot_products(10, 2), dot_products(8, 2), dot_products(5, 4)


@njit(parallel=True, **OPTIONS)
def multiply(states, weight, bias, output):
    """states: [n, I]; weight: [O, I]; bias: [O]; output: [n, O]."""
    n, outputs = len(states), len(weight)
    for task in prange((outputs + TASK - 1) // TASK):
        first, end = task * TASK, min(task * TASK + TASK, outputs)
        r = 0
        while r < n:  # sums are the same whichever way rows go together; the fewest are computed that nobody wants
            left = n - r
            if 5 < left < 9 or 10 < left < 14 or 15 < left < 19:
                for o in range(first, end, 2):
                    _eight_rows(states, weight, output, r, o)
                r += 8
            elif left > 5:
                for o in range(first, end, 2):
                    _ten_rows(states, weight, output, r, o)
                r += 10
            else:
                for o in range(first, end, 4):
                    _five_rows(states, weight, output, r, o)
                r += 5
        for r in range(n):
            for o in range(first, end):
                output[r, o] += bias[o]


# Without any of them `decode_dtype bfloat16` is refused.
MANY_ROWS, _multiply_rows = products_of(bfloat16_kernel() or "avx512_bf16")


@njit(**OPTIONS)
def _add_bias(sums, biases, result):
    """Writes a row of results; a function of its own, whose contiguous rows are vectorised."""
    for o in range(len(result)):
        result[o] = sums[o] + biases[o]


@njit(parallel=True, **OPTIONS)
def multiply_bfloat16(states, panels, bias, output):
    """states: [n, I] float32; panels: see `panels_of`; bias: [O]; output: [n, O]."""
    n, inputs = states.shape
    rounded = np.empty((n + MANY_ROWS, panels.shape[1] * (BYTES // 2)), np.uint16)
    for r in prange(n):
        round_row(states[r], rounded[r])
        rounded[r, inputs:] = 0  # a NaN there would stay one, times weights of 0
    chunk = max(1, CHUNK // (2 * inputs) // MANY_ROWS) * MANY_ROWS
    for start in range(0, n, chunk):
        end = min(start + chunk, n)
        for panel in prange(len(panels)):
            sums = np.empty((MANY_ROWS, PANEL), np.float32)
            first, last = panel * PANEL, min(panel * PANEL + PANEL, len(bias))
            biases = bias[first:last]
            r = start
            while r < end:
                rows = _multiply_rows(rounded, panels[panel], sums, r, end - r)
                for k in range(min(rows, end - r)):
                    _add_bias(sums[k], biases, output[r + k][first:last])
                r += rows
