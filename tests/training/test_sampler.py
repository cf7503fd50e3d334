"""The order of examples: a function of seed and epoch, whole groups of batches, nothing left out."""

from collections import Counter

import pytest

from glm.training.sampler import EpochBatchSampler


def sampler_of(size: int, *, batch_size=2, accumulation=1, seed=42, num_replicas=1, rank=0) -> EpochBatchSampler:
    return EpochBatchSampler(
        range(size),
        batch_size=batch_size,
        accumulation=accumulation,
        seed=seed,
        num_replicas=num_replicas,
        rank=rank,
    )


def epoch_of(sampler: EpochBatchSampler, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def test_every_example_once():
    batches = epoch_of(sampler_of(11, batch_size=3), 0)
    assert [len(batch) for batch in batches] == [3, 3, 3, 2]
    assert sorted(flat(batches)) == list(range(11))
    assert flat(batches) != list(range(11))


def test_order_depends_on_seed_and_epoch_only():
    first, second = sampler_of(50), sampler_of(50)
    epoch_of(second, 0)
    epoch_of(second, 7)
    assert epoch_of(first, 3) == epoch_of(second, 3) == epoch_of(first, 3)
    assert epoch_of(first, 3) != epoch_of(first, 4)
    assert epoch_of(sampler_of(50, seed=1), 3) != epoch_of(first, 3)


def test_order_does_not_depend_on_the_size_of_batches():
    orders = [
        flat(epoch_of(sampler_of(24, batch_size=size, accumulation=accumulation), 2))
        for size, accumulation in ((1, 1), (2, 1), (2, 4), (4, 2), (8, 3), (24, 1))
    ]
    assert all(order == orders[0] for order in orders)


@pytest.mark.parametrize(
    ("size", "batch_size", "accumulation", "batches", "examples"),
    [
        (24, 2, 3, 12, 24),  # comes out even
        (11, 3, 1, 4, 11),  # the last batch is smaller
        (11, 3, 2, 4, 11),  # so it may be at the end of a group
        (13, 3, 2, 6, 18),  # 5 batches: one more, and all whole
        (12, 3, 3, 6, 18),  # 4 batches: two more
        (7, 2, 3, 6, 12),
        (6, 2, 2, 4, 8),  # 3 batches, all whole: one more
        (7, 2, 4, 4, 7),  # not more batches than a group has: the Trainer accumulates over the epoch
        (7, 2, 9, 4, 7),
        (1, 4, 1, 1, 1),
    ],
)
def test_groups_of_batches_come_out_even(size, batch_size, accumulation, batches, examples):
    sampler = sampler_of(size, batch_size=batch_size, accumulation=accumulation)
    drawn = epoch_of(sampler, 0)
    assert len(drawn) == len(sampler) == batches
    assert len(flat(drawn)) == examples
    order = flat(drawn)
    assert sorted(order[:size]) == list(range(size))
    assert order[size:] == order[: examples - size]  # starts again from its beginning
    if batches > accumulation:
        assert batches % accumulation == 0


@pytest.mark.parametrize(
    ("size", "batch_size", "accumulation", "ranks", "batches"),
    [(24, 2, 1, 2, 6), (23, 2, 1, 2, 6), (21, 2, 1, 2, 6), (25, 2, 4, 2, 8), (7, 2, 9, 2, 2), (1, 2, 1, 4, 1)],
)
def test_ranks_share_an_epoch(size, batch_size, accumulation, ranks, batches):
    drawn = [
        epoch_of(sampler_of(size, batch_size=batch_size, accumulation=accumulation, num_replicas=ranks, rank=rank), 5)
        for rank in range(ranks)
    ]
    assert [[len(batch) for batch in of_rank] for of_rank in drawn] == [[batch_size] * batches] * ranks
    counts = Counter(index for of_rank in drawn for index in flat(of_rank))
    assert set(counts) == set(range(size))
    total = ranks * batches * batch_size
    assert max(counts.values()) - min(counts.values()) <= 1 and sum(counts.values()) == total


def test_two_ranks_see_what_one_process_would():
    """Step by step the two ranks' batches together are the batch of a single process of twice the size."""
    whole = epoch_of(sampler_of(32, batch_size=4), 1)
    halves = [epoch_of(sampler_of(32, batch_size=2, num_replicas=2, rank=rank), 1) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(batch) for batch in whole]


def test_indices_are_plain_numbers():
    assert {type(index) for index in flat(epoch_of(sampler_of(5), 0))} == {int}


def test_an_epoch_goes_on_where_it_was_left():
    """What skipping the first batches of an epoch leaves is the rest of the same permutation."""
    whole, again = epoch_of(sampler_of(20), 4), epoch_of(sampler_of(20), 4)
    assert whole[6:] == again[6:] and sorted(flat(whole)) == list(range(20))
