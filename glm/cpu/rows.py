"""Row-wise kernels for a CPU: GELU and LayerNorm.

GELU in its tanh approximation (Hendrycks and Gimpel 2016, section 2): x s, with s = 1 / (1 + exp(-2 u)) and
u = sqrt(2 / pi) (x + CUBE x^3). GELU itself: x Phi(x), where 1 - Phi of a positive number is exp(-x^2 / 2) times a
polynomial in t = 1 / (1 + TAIL x) (Abramowitz and Stegun 1964, 7.1.26; error 1e-7).
"""

import numpy as np
import paddle
from numba import njit, prange
from paddle import Tensor
from paddle.autograd import PyLayer

from glm.cpu.arrays import empty, pop_saved, tensor_of, view
from glm.cpu.loops import ELEMENTWISE, OPTIONS, exponential, use_own_threads

TWICE_SLOPE, CUBE = np.float32(2 * np.sqrt(2 / np.pi)), np.float32(0.044715)
ZERO, ONE, THREE = np.float32(0), np.float32(1), np.float32(3)
# The formula's p over the root of 2, for its argument is x over that root; its a1 to a5 halved, as erf is 2 Phi - 1.
TAIL, HALF, DENSITY = np.float32(0.3275911 / np.sqrt(2)), np.float32(0.5), np.float32(1 / np.sqrt(2 * np.pi))
A1, A2, A3 = np.float32(0.254829592 / 2), np.float32(-0.284496736 / 2), np.float32(1.421413741 / 2)
A4, A5 = np.float32(-1.453152027 / 2), np.float32(1.061405429 / 2)
MOST_ROWS_OF_A_STEP = 40  # that one thread computes: to start others takes longer
ROWS = 64  # summed by one thread, so that results do not depend on the number of threads


class CompiledGELU(PyLayer):
    """GELU of float32. The gradient of Paddle's operator takes 67 ms for [1536, 3072].

    Args:
        exact: with the error function; otherwise its tanh approximation.
    """

    @staticmethod
    def forward(ctx, states: Tensor, exact: bool) -> Tensor:
        states = states.contiguous()
        ctx.save_for_backward(states)
        ctx.exact = exact
        output = empty(states.shape)
        use_own_threads()
        (_apply_exact_gelu if exact else _apply_gelu)(_flat(states), _flat(output))
        return output

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (states,) = pop_saved(ctx)
        d_states = paddle.empty_like(states)
        use_own_threads()
        differentiate = _differentiate_exact_gelu if ctx.exact else _differentiate_gelu
        differentiate(_flat(states), _flat(grad.contiguous()), _flat(d_states))
        return d_states


def _flat(states: Tensor) -> np.ndarray:
    """Reshapes [..., H] to [n, H]."""
    return view(states).reshape(-1, states.shape[-1])


@njit(inline="always", **OPTIONS)
def _gelu_factor(x):
    """Returns s of the module's docstring."""
    return ONE / (ONE + exponential(-TWICE_SLOPE * (x + CUBE * x * x * x)))


@njit(parallel=True, **OPTIONS)
def _apply_gelu(states, output):
    for r in prange(len(states)):
        for h in range(states.shape[1]):
            output[r, h] = states[r, h] * _gelu_factor(states[r, h])


@njit(parallel=True, **OPTIONS)
def gelu_in_place(states):
    """GELU of [n, H] in place. A kernel of its own: with input and output aliased, a shared one is not vectorised."""
    for r in prange(len(states)):
        for h in range(states.shape[1]):
            states[r, h] *= _gelu_factor(states[r, h])


@njit(parallel=True, **OPTIONS)
def _differentiate_gelu(states, grad, d_states):
    for r in prange(len(states)):
        for h in range(states.shape[1]):
            x = states[r, h]
            s = _gelu_factor(x)
            slope = s + x * s * (ONE - s) * TWICE_SLOPE * (ONE + THREE * CUBE * x * x)
            d_states[r, h] = grad[r, h] * slope


@njit(inline="always", **OPTIONS)
def _normal(x):
    """Returns Phi(x) and exp(-x^2 / 2)."""
    bell = exponential(-HALF * x * x)
    t = ONE / (ONE + TAIL * abs(x))
    tail = t * (A1 + t * (A2 + t * (A3 + t * (A4 + t * A5)))) * bell
    return (tail if x < ZERO else ONE - tail), bell


@njit(parallel=True, **OPTIONS)
def _apply_exact_gelu(states, output):
    for r in prange(len(states)):
        for h in range(states.shape[1]):
            phi, _ = _normal(states[r, h])
            output[r, h] = states[r, h] * phi


@njit(parallel=True, **OPTIONS)
def exact_gelu_in_place(states):
    """Exact GELU of [n, H] in place."""
    for r in prange(len(states)):
        for h in range(states.shape[1]):
            phi, _ = _normal(states[r, h])
            states[r, h] *= phi


@njit(parallel=True, **OPTIONS)
def _differentiate_exact_gelu(states, grad, d_states):
    for r in prange(len(states)):
        for h in range(states.shape[1]):
            phi, bell = _normal(states[r, h])
            d_states[r, h] = grad[r, h] * (phi + states[r, h] * DENSITY * bell)


def layer_norm_gradients(states: Tensor, weight: Tensor, epsilon: float, grad: Tensor) -> list[Tensor]:
    """Returns the gradients of a LayerNorm's input, weight and bias.

    Args:
        states, grad: [..., H], the input, and the gradient of the output; float32 or float64.
        weight: [H].
    """
    states, H = states.contiguous(), states.shape[-1]
    d_states = paddle.empty_like(states)
    blocks = -(-states.size // (H * ROWS))
    d_weight, d_bias = (np.zeros((blocks, H), view(weight).dtype) for _ in range(2))
    use_own_threads()
    rows = _flat(states), _flat(grad.contiguous()), _flat(d_states)
    _differentiate_norm(*rows, view(weight), d_weight.dtype.type(epsilon), d_weight, d_bias)
    return [d_states, tensor_of(d_weight.sum(0)), tensor_of(d_bias.sum(0))]


@njit(parallel=True, **OPTIONS)
def _differentiate_norm(states, grad, d_states, weight, epsilon, d_weight, d_bias):
    """Writes d_states, and adds to d_weight and d_bias [blocks, H] (zeros at first) the sums over ROWS rows each."""
    for block in prange(len(d_weight)):
        for r in range(block * ROWS, min((block + 1) * ROWS, len(states))):
            _differentiate_row(states[r], grad[r], d_states[r], weight, epsilon, d_weight[block], d_bias[block])


@njit(**OPTIONS)
def _differentiate_row(x, grad, d_x, weight, epsilon, d_weight, d_bias):
    mean, scale = _moments(x, epsilon)
    zero, size = x.dtype.type(0), x.dtype.type(len(x))
    total, along = zero, zero
    for h in range(len(x)):  # writes nothing, so that its sums have one order, see `ELEMENTWISE`
        slope = grad[h] * weight[h]
        total += slope
        along += slope * ((x[h] - mean) * scale)
    _write_gradients(x, grad, d_x, weight, mean, scale, total / size, along / size, d_weight, d_bias)


@njit(**ELEMENTWISE)
def _write_gradients(x, grad, d_x, weight, mean, scale, total, along, d_weight, d_bias):
    for h in range(len(x)):
        normal = (x[h] - mean) * scale
        d_weight[h] += grad[h] * normal
        d_bias[h] += grad[h]
        d_x[h] = scale * (grad[h] * weight[h] - total - normal * along)


@njit(**OPTIONS)
def _moments(x, epsilon):
    """Returns the mean of a row and 1 / sqrt(variance + epsilon)."""
    total, squares, size = x.dtype.type(0), x.dtype.type(0), x.dtype.type(len(x))
    for h in range(len(x)):
        total += x[h]
    mean = total / size
    for h in range(len(x)):
        squares += (x[h] - mean) ** 2
    return mean, x.dtype.type(1) / np.sqrt(squares / size + epsilon)


@njit(**OPTIONS)
def _normalize_row(x, weight, bias, epsilon, output):
    mean, scale = _moments(x, epsilon)
    _write_normal(x, mean, scale, weight, bias, output)


@njit(**ELEMENTWISE)
def _write_normal(x, mean, scale, weight, bias, output):
    for h in range(len(x)):
        output[h] = (x[h] - mean) * scale * weight[h] + bias[h]


@njit(parallel=True, **OPTIONS)
def _normalize_many(states, weight, bias, epsilon, output):
    for r in prange(len(states)):
        _normalize_row(states[r], weight, bias, epsilon, output[r])


@njit(**OPTIONS)
def normalize(states, weight, bias, epsilon, output):
    """Writes the LayerNorm of [n, H] to the output."""
    if len(states) > MOST_ROWS_OF_A_STEP:
        _normalize_many(states, weight, bias, epsilon, output)
    else:
        for r in range(len(states)):
            _normalize_row(states[r], weight, bias, epsilon, output[r])


@njit(parallel=True, **OPTIONS)
def _add_many(states, addend):
    for r in prange(len(states)):
        states[r] += addend[r]


@njit(**OPTIONS)
def add(states, addend):
    """Adds [n, H] to states [n, H] in place."""
    if len(states) > MOST_ROWS_OF_A_STEP:
        _add_many(states, addend)
    else:
        states += addend
