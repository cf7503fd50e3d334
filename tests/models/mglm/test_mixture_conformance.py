"""Check 13 of the multilingual GLM's specification: how often languages are read."""

import json

import numpy as np
import pytest

from glm.data.mixture import Mixture, probabilities, times_read
from tools.reference_files import entry_of, reference_file

pytestmark = pytest.mark.conformance
DRAWS = 100_000
FILE = "language-sampling.json"


@pytest.fixture
def golden():
    return json.loads(reference_file(f"mglm/{FILE}").read_text(encoding="utf-8"))


def test_probabilities(golden):
    for case in entry_of(golden, "sampling", of=FILE):
        found = probabilities(case["sizes"], case["temperature"], limit=case["max_limit"])
        assert found.tolist() == pytest.approx(case["probabilities"], rel=1e-12, abs=0)


def test_load_factors(golden):
    for case in entry_of(golden, "loading", of=FILE):
        shares = probabilities(case["sizes"], case["temperature"])
        found = times_read(case["sizes"], shares, fraction=case["loader_fraction"])
        assert found.tolist() == pytest.approx(case["sample_fractions"], rel=1e-12, abs=0)


def test_draws(golden):
    """Of many epochs each set has its share, and within a set all examples are alike."""
    for case in entry_of(golden, "sampling", of=FILE):
        expected = np.array(case["probabilities"])
        mixture = Mixture(case["sizes"], expected)
        epochs = -(-DRAWS // len(mixture))
        drawn = np.concatenate([mixture.epoch(number) for number in range(epochs)])
        counts = np.array([((drawn >= start) & (drawn < start + size)).sum() for start, size in
                           zip(mixture.starts, mixture.sizes, strict=True)])  # fmt: skip
        errors = np.sqrt(len(drawn) * expected * (1 - expected))
        assert (np.abs(counts - len(drawn) * expected) <= 3 * errors).all()
        each = np.bincount(drawn, minlength=sum(case["sizes"]))
        for start, size in zip(mixture.starts, mixture.sizes, strict=True):
            assert np.ptp(each[start : start + size]) <= 1
