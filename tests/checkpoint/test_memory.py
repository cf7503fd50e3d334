"""Memory of a conversion: that of its largest tensor, not of the checkpoint. `benchmarks/conversion.py` shows it with
large ones."""

import pytest

from benchmarks.conversion import measure, size_of, write_synthetic


@pytest.mark.parametrize("to", ["glm", "paddlenlp", "huggingface-bin"])
def test_memory_is_that_of_the_largest_tensor(tmp_path, to):
    largest = write_synthetic(tmp_path / "source", 0.15)
    peak, before, _ = measure(tmp_path / "source", tmp_path / "target", to)
    # A tensor merged of two ranks: its parts as the system has read them, the merged one, and the transposed one.
    assert peak - before < 3.5 * largest + 30e6 < size_of(tmp_path / "target")
