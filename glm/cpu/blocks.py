"""The work of a block between two attentions, for the few rows of a decoding step on a CPU, as one kernel.

Layer by layer it would take a dozen calls, each of which costs more than its arithmetic: reading the weights evicts
the interpreter's own data from the cache.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from glm.cpu.loops import OPTIONS
from glm.cpu.products import multiply, multiply_tiles
from glm.cpu.rows import gelu_in_place, normalize


def product(states, weight, bias, output):
    """Writes x W + b to the output, for a weight of either kind of layer; for kernels only."""


@overload(product)
def _product_of(states, weight, bias, output):
    if weight.ndim == 3:  # panels
        return lambda states, weight, bias, output: multiply_tiles(states, weight, bias, output)
    return lambda states, weight, bias, output: multiply(states, weight, bias, output)


@njit(**OPTIONS)
def finish_block(states, context, dense, up, down, own_norm, next_norm, left, normal):
    """Finishes a block from its input `states` and attention output `context`, [n, H] each.

    Writes the block's result to `left`, and the result after the next LayerNorm to `normal`.
    """
    n = len(states)
    product(context, *dense, left)
    left += states
    normalize(left, *own_norm, normal)
    wide = np.empty((n, len(up[1])), np.float32)
    product(normal, *up, wide)
    gelu_in_place(wide)
    product(wide, *down, normal)
    left += normal
    normalize(left, *next_norm, normal)


@njit(**OPTIONS)
def finish_block_and_project(states, context, dense, up, down, own_norm, next_norm, entering, left, projected):
    """Like `finish_block`, and writes queries, keys and values of the next block to `projected`, [n, 3H]."""
    normal = np.empty_like(states)
    finish_block(states, context, dense, up, down, own_norm, next_norm, left, normal)
    product(normal, *entering, projected)
