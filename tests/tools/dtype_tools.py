"""Marks for tests of matrix products in short types on a CPU."""

import pytest

from glm.cpu.panels import bfloat16_kernel, integer_kernel

needs_bfloat16 = pytest.mark.skipif(
    bfloat16_kernel() is None, reason="this processor has no bfloat16 products (AMX or AVX512_BF16)"
)
needs_int8 = pytest.mark.skipif(integer_kernel() is None, reason="this processor has no products of integers (AVX2)")
DTYPES = ["float32", pytest.param("bfloat16", marks=needs_bfloat16), pytest.param("int8", marks=needs_int8)]
