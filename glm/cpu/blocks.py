"""What blocks do between two attentions, for the few rows of a decoding step on a CPU, in one compiled function.

Layer by layer it takes a dozen calls, each of which costs more than its arithmetic: reading the weights drives out of
the cache what calls are made of.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from glm.cpu.loops import OPTIONS
from glm.cpu.products import multiply, multiply_tiles
from glm.cpu.rows import gelu_in_place, normalize


def product(states, weight, bias, output):
    """x W + b to the output, of a weight as either kind of layer has it; for compiled functions only."""


@overload(product)
def _product_of(states, weight, bias, output):
    if weight.ndim == 3:  # panels
        return lambda states, weight, bias, output: multiply_tiles(states, weight, bias, output)
    return lambda states, weight, bias, output: multiply(states, weight, bias, output)


@njit(**OPTIONS)
def finish_block(states, context, dense, up, down, own_norm, next_norm, left, normal):
    """states, context: [n, H]; to write to: left, the result, and normal, that behind the next LayerNorm."""
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
    """As `finish_block`; projected: [n, 3H], queries, keys and values of the next block."""
    normal = np.empty_like(states)
    finish_block(states, context, dense, up, down, own_norm, next_norm, left, normal)
    product(normal, *entering, projected)


@njit(**OPTIONS)
def adapt(states, rows, norm, down, up):
    """states: [n, H], of which `rows` [m] pass through an adapter, in place (`glm.modules.bottleneck`)."""
    own = states[rows]
    changed = np.empty_like(own)
    normalize(own, *norm, changed)
    narrow = np.empty((len(own), len(down[1])), np.float32)
    multiply(changed, *down, narrow)
    narrow[:] = np.maximum(narrow, np.float32(0))
    multiply(narrow, *up, changed)
    for place in range(len(rows)):
        states[rows[place]] += changed[place]


@njit(**OPTIONS)
def enter_block(states, norm, entering, projected):
    """states: [n, H]; projected: [n, 3H], queries, keys and values of the next block, to write to."""
    normal = np.empty_like(states)
    normalize(states, *norm, normal)
    product(normal, *entering, projected)
