"""Buckets of distances for relative position bias. NumPy only.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1.
"""

import numpy as np

MOST_DISTANCE = 128  # from this distance on, all share the last bucket


def bucket_of(distances: np.ndarray, buckets: int, *, both_ways: bool = True) -> np.ndarray:
    """Returns the bucket of each distance (position of the key minus that of the query).

    Half of the buckets are of one distance each, the others of ranges that grow by a constant factor.

    Args:
        distances: any shape, int.
        buckets: how many there are.
        both_ways: keys behind their query have the upper half of the buckets; else they share bucket 0.

    Returns:
        of the distances' shape, int64
    """
    behind = np.zeros_like(distances, dtype=np.int64)
    if both_ways:
        buckets //= 2
        behind = np.where(distances > 0, buckets, 0)
        far = np.abs(distances)
    else:
        far = np.maximum(-distances, 0)
    exact = buckets // 2
    ratio = np.log(np.maximum(far, 1) / exact) / np.log(MOST_DISTANCE / exact)
    wide = np.minimum(exact + np.floor(ratio * (buckets - exact)).astype(np.int64), buckets - 1)
    return behind + np.where(far < exact, far, wide)
