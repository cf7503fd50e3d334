"""The toolkit's settings of Paddle for a CPU, for everything here that runs on Paddle."""

import paddle
from work import Work

from glm.runtime.device import hush, prepare


def settle(work: Work) -> None:
    """Settings, threads and seed."""
    hush()
    prepare("cpu")
    paddle.base.core.set_num_threads(work.threads)
    paddle.seed(0)
