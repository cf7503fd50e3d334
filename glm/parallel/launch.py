"""Joining the processes that `python -m paddle.distributed.launch` has started; PaddleNLP's Trainer does it itself."""

from paddle import distributed
from paddle.distributed import fleet

from glm.parallel import gloo


def join(degree: int, device: str) -> int:
    """Makes this process one of those that a model is split over, which are all there are.

    Args:
        degree: their number; 1 changes nothing.

    Returns:
        The rank of this process.
    """
    if degree == 1:
        return 0
    if not distributed.is_initialized():
        if device == "cpu":
            gloo.install()
        strategy = fleet.DistributedStrategy()
        strategy.hybrid_configs = {"mp_degree": degree}
        fleet.init(is_collective=True, strategy=strategy)
    return distributed.get_rank()


def wait_for_all() -> None:
    """Returns when all processes have come here."""
    if distributed.get_world_size() > 1:
        distributed.barrier()
