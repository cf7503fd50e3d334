"""The mark of tests that multiply in bfloat16 on a CPU."""

import pytest

from glm.cpu.tiles import has_tiles

needs_tiles = pytest.mark.skipif(not has_tiles(), reason="this processor has no bfloat16 products (AMX)")
