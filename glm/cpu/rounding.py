"""Rounding to bfloat16 in compiled loops, as all products in bfloat16 need it. Loads Numba."""

import numpy as np
from numba import njit

from glm.cpu.loops import OPTIONS


@njit(**OPTIONS)
def round_row(numbers, rounded):
    """Rounds float32 [I] to bfloat16 as uint16 [at least I]: to the nearest, of two the even one; NaN stays NaN."""
    bits = numbers.view(np.uint32)
    for i in range(len(numbers)):
        nearest = (bits[i] + np.uint32(0x7FFF) + (bits[i] >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
        rounded[i] = nearest if numbers[i] == numbers[i] else np.uint32(0x7FC0)
