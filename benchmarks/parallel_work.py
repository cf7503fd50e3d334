"""What `parallel.py` measures. Standard library only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Steps of training over ranks.

    Args:
        shape: a name in `work.SHAPES`.
        ranks: processes that the model is split over.
        batch, source, target: B examples of S + T tokens.
        recompute: activations of a layer are computed again in the backward pass.
        layers: in place of the shape's; 0 for those.
        steps: behind the first one, which is not counted.
    """

    shape: str
    ranks: int
    batch: int = 2
    source: int = 608
    target: int = 160
    recompute: bool = False
    layers: int = 0
    steps: int = 3
