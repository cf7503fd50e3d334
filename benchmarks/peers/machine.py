"""What this machine can do at most: bytes read and float32 operations per second, all threads at work."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
from settings import settle
from work import Work, best

BYTES = 1_600_000_000
SIDE = 2048


def bandwidth(threads: int) -> float:
    """Bytes per second of summing a large array, each thread its part of it."""
    parts = np.array_split(np.ones(BYTES // 8), threads)
    with ThreadPoolExecutor(threads) as pool:
        return BYTES / best(lambda: list(pool.map(np.sum, parts)))


def product_rate() -> float:
    """Operations per second of a large float32 matrix product."""
    a, b = paddle.randn([SIDE, SIDE]), paddle.randn([SIDE, SIDE])
    return 2 * SIDE**3 / best(lambda: paddle.matmul(a, b))


if __name__ == "__main__":
    work = Work(**json.loads(sys.argv[1]))
    settle(work)
    print(json.dumps({"bandwidth": bandwidth(work.threads), "rate": product_rate()}))
