"""What opt-in tests need: time."""

import os

import pytest


@pytest.fixture(scope="session")
def long_tests() -> None:
    """Skips a test that takes minutes."""
    if not os.environ.get("GLM_LONG_TESTS"):
        pytest.skip("set GLM_LONG_TESTS=1 for tests that take minutes")
