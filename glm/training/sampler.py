"""The order in which a run sees its examples: a function of seed and epoch alone."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from paddle.io import DistributedBatchSampler


class EpochBatchSampler(DistributedBatchSampler):
    """Batches of a permutation that depends on (seed, epoch) only, so that a resumed run goes on with the same data.

    The Trainer calls `set_epoch` at the start of each epoch. Where ranks or groups of accumulated batches would come
    out uneven, the permutation starts again from its beginning: a group that is cut short would leak its gradients
    into the next epoch's first step.

    Args:
        accumulation: batches per optimizer step.
    """

    def __init__(
        self, dataset: Sequence, *, batch_size: int, accumulation: int, seed: int, num_replicas: int = 1, rank: int = 0
    ):
        super().__init__(dataset, batch_size, num_replicas=num_replicas, rank=rank)
        self.seed = seed
        batches = math.ceil(len(dataset) / (batch_size * num_replicas))
        if batches > accumulation:  # else the Trainer accumulates over the whole epoch
            batches = math.ceil(batches / accumulation) * accumulation
        full = batches * batch_size * num_replicas
        uneven = num_replicas > 1 or full - len(dataset) >= batch_size
        self.examples_per_epoch = full if uneven else len(dataset)
        self.batches_per_epoch = batches

    def __len__(self) -> int:
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.dataset))
        order = np.resize(order, self.examples_per_epoch)[self.local_rank :: self.nranks]
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size].tolist()
