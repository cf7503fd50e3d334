"""Whether a processor can train in bfloat16."""

import pytest

from glm.runtime import onednn


def test_paddle_brings_the_product():
    """Without it `--bf16` is float32 on every CPU: a Paddle that has lost it is to be noticed."""
    assert onednn.bfloat16_product() is not None


@pytest.mark.parametrize(
    ("flags", "product", "expected"),
    [
        ("fpu avx512f avx512_bf16", print, True),
        ("fpu avx512f amx_bf16 amx_tile", print, True),
        ("fpu avx2 avx512f avx512_vnni", print, False),
        ("", print, False),
        ("fpu avx512_bf16", None, False),
    ],
)
def test_what_it_needs(monkeypatch, flags, product, expected):
    monkeypatch.setattr(onednn, "processor", lambda: {"flags": flags} if flags else {})
    monkeypatch.setattr(onednn, "bfloat16_product", lambda: product)
    assert onednn.multiplies_bfloat16() is expected
