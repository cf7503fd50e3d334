"""The order in which a run sees its examples: a function of seed and epoch, known before the epoch starts."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from paddle.io import DistributedBatchSampler

from glm.data.mixture import Mixture

Batch = list[int]  # indices of examples


class EpochBatchSampler(DistributedBatchSampler):
    """Yields batches of a permutation that depends only on (seed, epoch), so that a resumed run sees the same data.

    An epoch is a list of rounds, a round one batch for each rank, of examples that stand next to each other in the
    epoch's order: where that order is by length, ranks get batches of like size. Rounds are cut at `batch_size`
    examples a rank or, with `max_tokens`, where a rank's padded batch would exceed it (the max-tokens batching of
    fairseq). By length, the order of rounds is shuffled, and examples of equal width are mixed anew each epoch; the
    number of rounds depends on the widths alone and is the same in every epoch. Where rounds or groups of accumulated
    rounds come out uneven, what comes first is repeated: a group that is cut short would leak its gradients into the
    next epoch's first step.

    Of several data sets a mixture says which examples an epoch has.

    The Trainer calls `set_epoch` at the start of each epoch.

    Attributes:
        start: the batch of a rank (from 0) that the next epoch drawn begins with; the one after it begins with 0.

    Args:
        widths: tokens that a row with this example alone takes, padding included.
        batch_size: examples of a rank's batch; None if `max_tokens` decides.
        max_tokens: most tokens of a rank's batch, padding included; implies `by_length`.
        by_length: batches are of examples of like width.
        accumulation: rounds per optimizer step.
        multiple: a rank's batch has fewer examples than this or a multiple of it (fairseq's
            `required_batch_size_multiple`); the rest opens the next one. 1 leaves it out.
        order_by: what examples are ordered by, the first of these arrays before the next; their width if not given.
        mixture: which examples an epoch has; all of them if None. With shares neither beside `max_tokens` nor beside
            `multiple`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        by_length: bool = False,
        accumulation: int = 1,
        multiple: int = 1,
        order_by: Sequence[np.ndarray] | None = None,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        mixture: Mixture | None = None,
    ):
        super().__init__(widths, batch_size or 1, num_replicas=num_replicas, rank=rank)
        self.widths = np.asarray(widths)
        self.mixture = mixture or Mixture([len(widths)])
        self.per_batch = batch_size
        self.max_tokens = max_tokens
        self.by_length = by_length or max_tokens is not None or multiple > 1
        self.multiple = multiple
        self.keys = [self.widths] if order_by is None else list(order_by)
        self.seed = seed
        self.start = 0
        self.ends = self._ends()
        # The Trainer accumulates over the whole epoch if it has fewer rounds.
        self.rounds_per_step = min(accumulation, len(self.ends))
        self.steps_per_epoch = -(-len(self.ends) // self.rounds_per_step)
        self.rounds = functools.lru_cache(maxsize=1)(self._rounds)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.rounds_per_step

    def __iter__(self) -> Iterator[Batch]:
        start, self.start = self.start, 0
        for batches in self.rounds(self.epoch)[start:]:
            yield batches[self.local_rank]

    def step_examples(self, step: int) -> Batch:
        """Returns the examples of an optimizer step (counted from 0 over the whole run), of all ranks."""
        epoch, number = divmod(step, self.steps_per_epoch)
        start = number * self.rounds_per_step
        chosen = self.rounds(epoch)[start : start + self.rounds_per_step]
        return [index for batches in chosen for batch in batches for index in batch]

    def _ends(self) -> list[int]:
        """Returns where each round of an epoch ends, as positions in the epoch's order."""
        if self.multiple > 1:
            widths = self.widths[np.lexsort(self.keys[::-1])]
            rows = np.maximum.reduceat(widths, np.arange(0, len(widths), self.nranks))  # one example per rank
            ends = batch_ends(rows, max_tokens=self.max_tokens, most=self.per_batch, multiple=self.multiple)
            return [min(end * self.nranks, len(widths)) for end in ends]
        if self.max_tokens is None:
            size = self.per_batch * self.nranks
            return [min(start + size, len(self.mixture)) for start in range(0, len(self.mixture), size)]
        ends, start = [], 0
        for place, width in enumerate(np.sort(self.widths).tolist()):
            rows = -(-(place + 1 - start) // self.nranks)
            if rows * width > self.max_tokens:
                start += (rows - 1) * self.nranks  # whole rows per round, so that no example is repeated
                ends.append(start)
        return [*ends, len(self.widths)]

    def _rounds(self, epoch: int) -> list[list[Batch]]:
        """Returns the batches as [round][rank][example]."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self.mixture.epoch(epoch))
        if self.by_length:
            order = order[np.lexsort([key[order] for key in self.keys[::-1]])]
        rounds = [self._share(chosen) for chosen in np.split(order, self.ends[:-1])]
        if self.by_length:
            rounds = [rounds[number] for number in random.permutation(len(rounds))]
        return rounds + rounds[: len(self) - len(rounds)]

    def _share(self, examples: np.ndarray) -> list[Batch]:
        """Distributes examples over the ranks; if there are too few, the first ones are repeated."""
        full = -(-len(examples) // self.nranks) * self.nranks
        return [np.resize(examples, full)[rank :: self.nranks].tolist() for rank in range(self.nranks)]


def batch_ends(widths: np.ndarray, *, max_tokens: int | None, most: int | None, multiple: int) -> list[int]:
    """Returns where batches end when examples come in this order, as fairseq groups them (data_utils_fast.pyx).

    A batch grows while its rows times its widest stay within `max_tokens` and its rows within `most`. It ends where it
    has fewer than `multiple` rows or a multiple of it, at the end of the data too.

    Args:
        widths: [n].
    """
    ends, start, place, widest = [], 0, 0, 0
    while start < len(widths):
        rows = place + 1 - start
        fits = place < len(widths) and (most is None or rows <= most)
        if fits and (max_tokens is None or rows * max(widest, int(widths[place])) <= max_tokens):
            widest = max(widest, int(widths[place]))
            place += 1
            continue
        rows = max(place - start, 1)
        rows -= rows % multiple if rows >= multiple else 0
        start += rows
        ends.append(start)
        widest = int(widths[start:place].max(initial=0))
        place = max(place, start)
    return ends
