"""The product of matrices of bfloat16 in the oneDNN that Paddle brings; eager Paddle has none on a CPU.

The library exports the function, but oneDNN documents only its other ways to multiply: a later Paddle may lack it.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import paddle

from glm.runtime.environment import processor

INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}  # of /proc/cpuinfo; with one of them bfloat16 is faster than float32
SIZE, MATRIX = ctypes.c_int64, [ctypes.c_void_p, ctypes.c_int64]  # a matrix: its numbers, how far its rows are apart


@cache
def bfloat16_product() -> Callable | None:
    """C = alpha A B + beta C of tables row by row, A and B of bfloat16 and C of float32, on all threads of OpenMP.

    It takes "N" or "T" (transposed) for A and for B, [m, n] of C and k that it sums over, alpha, A, B, beta, C, and
    returns 0. None where Paddle brings no oneDNN that has it.
    """
    try:
        function = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / "libdnnl.so.3")).dnnl_gemm_bf16bf16f32
    except (OSError, AttributeError):
        return None
    sizes = [ctypes.c_char, ctypes.c_char, SIZE, SIZE, SIZE]
    function.argtypes = [*sizes, ctypes.c_float, *MATRIX, *MATRIX, ctypes.c_float, *MATRIX]
    return function


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 (AVX512_BF16 or AMX), and oneDNN is there to use them."""
    features = set(processor().get("flags", "").split())
    return bool(INSTRUCTIONS & features) and bfloat16_product() is not None
