"""Matrix products in int8 with sums in int32, compiled by Numba.

A weight has a scale per output and is quantized once; a row of states has a scale of its own and is quantized as it
comes. With signed states x and weights w moved by 128, so that one factor is unsigned as the instructions ask,
sum(x w) = sum(x (w + 128)) - 128 sum(x). Integers are exact: every processor gives the same sums.

Of a layer with few inputs a row of states has two parts: what rounding has left of it is quantized too, with a scale
of its own. There rounding averages over few numbers, and the second product takes little time.
"""

import numpy as np
from numba import njit, prange

from glm.cpu.loops import ELEMENTWISE, OPTIONS, greatest
from glm.cpu.panels import BYTES, PANEL, integer_kernel, panels_of, products_of

OFFSET = 128  # added to a weight before it is stored as unsigned
LARGEST = 127  # largest absolute value of a quantized number
CHUNK = 1 << 18  # bytes of states that are multiplied by all panels before the next ones; they stay in the cache
INPUTS = BYTES  # inputs per step of a panel
ROWS = 1024  # of a weight that are quantized at a time
FEW_INPUTS = 512  # of a layer whose states have two parts
# Processors without any of these kernels refuse `decode_dtype int8`.
MANY_ROWS, _multiply_rows = products_of(integer_kernel() or "avx2")


@njit(**OPTIONS)
def quantize_row(numbers, quantized):
    """Quantizes a row, float32 [I] -> int8 [at least I]: divides by the scale and rounds to the nearest integer, ties
    to even.

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
    """Quantizes a weight, float32 [outputs, inputs] -> int8 and the scales [outputs]: w = integer * scale.

    Raises:
        ValueError: a row has an infinity or NaN.
    """
    integers, scales = np.empty(weight.shape, np.int8), np.empty(len(weight), np.float32)
    for start in range(0, len(weight), ROWS):  # what is computed on the way stays small
        rows = weight[start : start + ROWS]
        largest = np.abs(rows).max(axis=1)
        if not np.isfinite(largest).all():
            raise ValueError(f"row {start + int(np.argmin(np.isfinite(largest)))} has an infinite number or NaN")
        scales[start : start + ROWS] = found = largest / np.float32(LARGEST)
        integers[start : start + ROWS] = np.rint(rows / np.where(found > 0, found, 1)[:, None])
    return integers, scales


def panels_of_integers(integers: np.ndarray) -> np.ndarray:
    """Arranges a weight in int8 [outputs, inputs] in panels; OFFSET is added, as `multiply_integers` expects it."""
    return panels_of(integers.view(np.uint8) + np.uint8(OFFSET))


@njit(**OPTIONS)
def _quantize_rest(numbers, first, scale, quantized):
    """Quantizes what `first`, the row's integers, and their scale leave of its numbers; returns as `quantize_row`."""
    rest = np.empty(len(numbers), np.float32)
    for i in range(len(numbers)):
        rest[i] = numbers[i] - np.float32(first[i]) * scale
    return quantize_row(rest, quantized)


@njit(**ELEMENTWISE)
def _finish_row(sums, correction, scale, weight_scales, biases, result):
    """Turns sums of integers into a row of results; a function of its own, whose contiguous rows are vectorised."""
    for o in range(len(result)):
        result[o] = np.float32(sums[o] - correction) * (scale * weight_scales[o]) + biases[o]


@njit(parallel=True, **OPTIONS)
def multiply_integers(states, panels, outputs, result):
    """Multiplies states [n, I] float32 by panels of `panels_of_integers`; outputs: [2, O], scales and biases; result:
    [n, O]."""
    n = len(states)
    total_rows = 2 * n if states.shape[1] <= FEW_INPUTS else n  # the second parts follow all first ones
    # What lies behind a row's numbers is multiplied by weights of 0, and what lies behind the last row is not read.
    quantized = np.empty((total_rows + MANY_ROWS, panels.shape[1] * INPUTS), np.int8)
    scales, corrections = np.empty(total_rows, np.float32), np.empty(total_rows, np.int32)
    for r in prange(n):
        scales[r], total = quantize_row(states[r], quantized[r])
        corrections[r] = OFFSET * total
        if total_rows > n:
            scales[n + r], total = _quantize_rest(states[r], quantized[r], scales[r], quantized[n + r])
            corrections[n + r] = OFFSET * total
    chunk = max(1, CHUNK // quantized.shape[1] // MANY_ROWS) * MANY_ROWS
    for start in range(0, total_rows, chunk):
        end = min(start + chunk, total_rows)
        for panel in prange(len(panels)):
            sums = np.empty((MANY_ROWS, PANEL), np.int32)
            first, last = panel * PANEL, min(panel * PANEL + PANEL, outputs.shape[1])
            weight_scales, biases = outputs[0][first:last], outputs[1][first:last]
            r = start
            while r < end:
                rows = _multiply_rows(quantized, panels[panel], sums, r, end - r)
                for k in range(min(rows, end - r)):
                    if r + k < n:
                        row = result[r + k][first:last]
                        _finish_row(sums[k], corrections[r + k], scales[r + k], weight_scales, biases, row)
                    else:  # its first part is there, with the biases
                        row = result[r + k - n][first:last]
                        _finish_row(sums[k], corrections[r + k], scales[r + k], weight_scales, row, row)
                r += rows
