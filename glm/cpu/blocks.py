"""Compiled decoding steps of a block on a CPU: everything between two attentions as one kernel.

Layer by layer a few rows would take a dozen calls, each of which costs more than its arithmetic: reading the weights
evicts the interpreter's own data from the cache.
"""

from collections.abc import Iterator

import numpy as np
from numba import njit, types
from numba.extending import overload

from glm.cpu.integers import multiply_integers
from glm.cpu.loops import OPTIONS
from glm.cpu.products import MOST_COMPILED_ROWS, multiply, multiply_bfloat16
from glm.cpu.rows import add, exact_gelu_in_place, gelu_in_place, normalize

ROWS_TOGETHER = 960  # of prompts that pass through a block together: what is between two products stays in the cache


def takes_rows(n: int, weight: np.ndarray) -> bool:
    """Whether n rows pass a block's weight faster by these steps than layer by layer: any number that is in panels."""
    return n <= MOST_COMPILED_ROWS or weight.ndim == 3


def blocks_of_rows(n: int, *tables: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the rows of tables [n, ...] that pass through a block together."""
    for start in range(0, n, ROWS_TOGETHER):
        yield tuple(table[start : start + ROWS_TOGETHER] for table in tables)


def product(states, weight, bias, output):
    """Writes x W + b to the output, for a weight of either kind of layer; for kernels only."""


@overload(product)
def _product_of(states, weight, bias, output):
    if weight.dtype == types.uint8:
        return lambda states, weight, bias, output: multiply_integers(states, weight, bias, output)
    if weight.ndim == 3:  # panels of bfloat16
        return lambda states, weight, bias, output: multiply_bfloat16(states, weight, bias, output)
    return lambda states, weight, bias, output: multiply(states, weight, bias, output)


@njit(**OPTIONS)
def finish_block(states, context, dense, up, down, own_norm, next_norm, left, normal):
    """Finishes a block from its input `states` and attention output `context`, [n, H] each.

    Writes the block's result to `left`, and the result after the next LayerNorm to `normal`.
    """
    n = len(states)
    product(context, *dense, left)
    add(left, states)
    normalize(left, *own_norm, normal)
    wide = np.empty((n, up[1].shape[-1]), np.float32)
    product(normal, *up, wide)
    gelu_in_place(wide)
    product(wide, *down, normal)
    add(left, normal)
    normalize(left, *next_norm, normal)


@njit(**OPTIONS)
def finish_block_and_project(states, context, dense, up, down, own_norm, next_norm, entering, left, projected):
    """Like `finish_block`, and writes queries, keys and values of the next block to `projected`, [n, 3H]."""
    normal = np.empty_like(states)
    finish_block(states, context, dense, up, down, own_norm, next_norm, left, normal)
    product(normal, *entering, projected)


@njit(**OPTIONS)
def finish_post_norm_block(states, context, dense, up, down, first_norm, second_norm, left):
    """Computes a post-LN block with the exact GELU, from its attention to its end.

    Args:
        states, context: [n, H], what went into the attention and what it made of it.
        left: [n, H], to write to: the block's result.
    """
    product(context, *dense, left)
    add(left, states)
    normalize(left, *first_norm, left)
    wide, narrow = np.empty((len(states), up[1].shape[-1]), np.float32), np.empty_like(states)
    product(left, *up, wide)
    exact_gelu_in_place(wide)
    product(wide, *down, narrow)
    add(left, narrow)
    normalize(left, *second_norm, left)


@njit(**OPTIONS)
def finish_post_norm_block_and_project(
    states, context, dense, up, down, first_norm, second_norm, entering, left, projected
):
    """As `finish_post_norm_block`; also writes queries, keys and values of the next block to `projected`, [n, 3H]."""
    finish_post_norm_block(states, context, dense, up, down, first_norm, second_norm, left)
    product(left, *entering, projected)


@njit(**OPTIONS)
def turn_to_source(states, context, dense, norm, query, left, queries):
    """Computes what is between the two attentions of a decoder's post-LN block from `states` and `context`, [n, H];
    writes the residual stream to `left` and the queries of the cross-attention, [n, H] each."""
    product(context, *dense, left)
    add(left, states)
    normalize(left, *norm, left)
    product(left, *query, queries)


@njit(**OPTIONS)
def adapt(states, rows, norm, down, up):
    """Passes the `rows` [m] of states [n, H] through an adapter, in place (`glm.modules.bottleneck`)."""
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
    """Writes queries, keys and values of the next block to `projected` [n, 3H], from states [n, H]."""
    normal = np.empty_like(states)
    normalize(states, *norm, normal)
    product(normal, *entering, projected)
