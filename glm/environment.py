"""What must be said or noted before Paddle is imported; `glm/__init__.py` imports this first."""

import os
import warnings

# Paddle sets OMP_NUM_THREADS to 1 where it is unset, so that later nobody could tell a wish from that default.
WANTED_THREADS = os.environ.get("OMP_NUM_THREADS")

# What Paddle and jieba say of build tools at import is of no use to someone who trains a model.
for beginning in ("No ccache found", "Setuptools is replacing distutils", "pkg_resources is deprecated"):
    warnings.filterwarnings("ignore", message=beginning)
