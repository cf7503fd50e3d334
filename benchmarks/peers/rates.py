"""What this machine's instructions for fewer bits do at most: operations per second of oneDNN's products, by torch."""

import json
import sys

import torch
from work import Work, best

SIDE = 2048


def rate(dtype: str) -> float:
    """Operations per second of a large product in bfloat16, or of int8 with sums in int32."""
    if dtype == "bfloat16":
        a, b = (torch.randn(SIDE, SIDE).to(torch.bfloat16) for _ in range(2))
        return 2 * SIDE**3 / best(lambda: torch.mm(a, b))
    a, b = (torch.randint(-127, 128, (SIDE, SIDE), dtype=torch.int8) for _ in range(2))
    return 2 * SIDE**3 / best(lambda: torch._int_mm(a, b))


if __name__ == "__main__":
    torch.set_num_threads(Work(**json.loads(sys.argv[1])).threads)
    print(json.dumps({dtype: rate(dtype) for dtype in ("bfloat16", "int8")}))
