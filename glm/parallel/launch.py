"""Joins the processes that `python -m paddle.distributed.launch` has started (the Trainer does it by itself).

Paddle is imported where it is used, so that `predict.py` reads its options without it.
"""


def join(degree: int, device: str) -> int:
    """Initialises tensor parallelism over all processes.

    Args:
        degree: number of processes; 1 does nothing.

    Returns:
        The rank of this process.
    """
    if degree == 1:
        return 0
    from paddle import distributed
    from paddle.distributed import fleet

    from glm.parallel import gloo

    if not distributed.is_initialized():
        if device == "cpu":
            gloo.install()
        strategy = fleet.DistributedStrategy()
        strategy.hybrid_configs = {"mp_degree": degree}
        fleet.init(is_collective=True, strategy=strategy)
    return distributed.get_rank()


def wait_for_all() -> None:
    """Waits until all processes have arrived here."""
    from paddle import distributed

    if distributed.get_world_size() > 1:
        distributed.barrier()
