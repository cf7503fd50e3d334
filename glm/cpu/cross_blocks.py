"""What a decoder's post-LN blocks do between their attentions, for the few rows of a decoding step on a CPU, compiled.

As `glm.cpu.blocks`, but that a block has two attentions, and its LayerNorms stand behind its sums.
"""

import numpy as np
from numba import njit

from glm.cpu.blocks import product
from glm.cpu.loops import OPTIONS
from glm.cpu.rows import exact_gelu_in_place, normalize


@njit(**OPTIONS)
def turn_to_source(states, context, dense, norm, query, left, queries):
    """From attention to itself to that to the source: states, context [n, H]; to write to: left, queries [n, H]."""
    product(context, *dense, left)
    left += states
    normalize(left, *norm, left)
    product(left, *query, queries)


@njit(**OPTIONS)
def finish_cross_block(states, context, dense, up, down, cross_norm, own_norm, left):
    """Behind attention to the source: states, context [n, H]; to write to: left, the block's result."""
    product(context, *dense, left)
    left += states
    normalize(left, *cross_norm, left)
    wide, narrow = np.empty((len(states), up[1].shape[-1]), np.float32), np.empty_like(states)
    product(left, *up, wide)
    exact_gelu_in_place(wide)
    product(wide, *down, narrow)
    left += narrow
    normalize(left, *own_norm, left)


@njit(**OPTIONS)
def finish_cross_block_and_project(states, context, dense, up, down, cross_norm, own_norm, entering, left, projected):
    """As `finish_cross_block`; projected: [n, 3H], queries, keys and values of the next block."""
    finish_cross_block(states, context, dense, up, down, cross_norm, own_norm, left)
    product(left, *entering, projected)
