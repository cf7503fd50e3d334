"""The order of examples: a function of seed and epoch, whole groups of batches, nothing left out."""

from collections import Counter

import numpy as np
import pytest

from glm.data.mixture import Mixture
from glm.training.sampler import EpochBatchSampler

WIDTHS = np.random.default_rng(0).choice([16, 24, 32, 40, 48, 64, 96, 128], 203).tolist()


def sampler_of(size: int, *, batch_size=2, **options) -> EpochBatchSampler:
    return EpochBatchSampler([8] * size, batch_size=batch_size, **{"seed": 42, **options})


def epoch_of(sampler: EpochBatchSampler, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def padded_tokens(batches: list[list[int]]) -> int:
    return sum(len(batch) * max(WIDTHS[index] for index in batch) for batch in batches)


# -- batches in the order of a permutation


def test_every_example_once():
    batches = epoch_of(sampler_of(11, batch_size=3), 0)
    assert [len(batch) for batch in batches] == [3, 3, 3, 2]
    assert sorted(flat(batches)) == list(range(11))
    assert flat(batches) != list(range(11))


def test_order_does_not_depend_on_the_size_of_batches():
    orders = [
        flat(epoch_of(sampler_of(24, batch_size=size, accumulation=accumulation), 2))
        for size, accumulation in ((1, 1), (2, 1), (2, 4), (4, 2), (8, 3), (24, 1))
    ]
    assert all(order == orders[0] for order in orders)


@pytest.mark.parametrize(
    ("size", "batch_size", "accumulation", "lengths"),
    [
        (24, 2, 3, [2] * 12),  # comes out even
        (11, 3, 1, [3, 3, 3, 2]),
        (11, 3, 2, [3, 3, 3, 2]),
        (13, 3, 2, [3, 3, 3, 3, 1, 3]),  # 5 batches: one more
        (12, 3, 3, [3] * 6),  # 4 batches: two more
        (7, 2, 3, [2, 2, 2, 1, 2, 2]),
        (6, 2, 2, [2] * 4),
        (7, 2, 4, [2, 2, 2, 1]),  # not more batches than a group has: the Trainer accumulates over the epoch
        (7, 2, 9, [2, 2, 2, 1]),
        (1, 4, 1, [1]),
    ],
)
def test_groups_of_batches_come_out_even(size, batch_size, accumulation, lengths):
    sampler = sampler_of(size, batch_size=batch_size, accumulation=accumulation)
    drawn = epoch_of(sampler, 0)
    assert [len(batch) for batch in drawn] == lengths and len(sampler) == len(lengths)
    order = flat(drawn)
    assert sorted(order[:size]) == list(range(size))
    assert order[size:] == order[: len(order) - size]  # starts again from its beginning


@pytest.mark.parametrize(
    ("size", "batch_size", "accumulation", "ranks", "lengths"),
    [
        (24, 2, 1, 2, [2] * 6),
        (23, 2, 1, 2, [2] * 6),
        (21, 2, 1, 2, [2] * 5 + [1]),
        (25, 2, 4, 2, [2] * 6 + [1, 2]),
        (7, 2, 9, 2, [2, 2]),
        (1, 2, 1, 4, [1]),
    ],
)
def test_ranks_share_an_epoch(size, batch_size, accumulation, ranks, lengths):
    drawn = [
        epoch_of(sampler_of(size, batch_size=batch_size, accumulation=accumulation, num_replicas=ranks, rank=rank), 5)
        for rank in range(ranks)
    ]
    assert [[len(batch) for batch in of_rank] for of_rank in drawn] == [lengths] * ranks
    counts = Counter(index for of_rank in drawn for index in flat(of_rank))
    assert set(counts) == set(range(size))


def test_two_ranks_see_what_one_process_would():
    """Step by step the two ranks' batches together are the batch of a single process of twice the size."""
    whole = epoch_of(sampler_of(32, batch_size=4), 1)
    halves = [epoch_of(sampler_of(32, batch_size=2, num_replicas=2, rank=rank), 1) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(batch) for batch in whole]


@pytest.mark.parametrize("shares", [[3.0, 1.0], [0.2, 0.8]])
def test_two_ranks_see_the_shares_that_one_process_would(shares):
    """Of sets that are mixed too; and a run that goes on in the middle of an epoch sees its rest."""
    mixture = Mixture([24, 8], shares, seed=42)
    whole = epoch_of(sampler_of(32, batch_size=4, mixture=mixture), 1)
    ranks = [sampler_of(32, batch_size=2, num_replicas=2, rank=rank, mixture=mixture) for rank in range(2)]
    halves = [epoch_of(sampler, 1) for sampler in ranks]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(batch) for batch in whole]
    of_first = sum(index < 24 for index in flat(whole)) / len(flat(whole))
    assert of_first == pytest.approx(shares[0] / sum(shares), abs=1 / 32)
    for sampler, half in zip(ranks, halves, strict=True):
        sampler.start = 3
        assert epoch_of(sampler, 1) == half[3:]


def test_indices_are_plain_numbers():
    assert {type(index) for index in flat(epoch_of(sampler_of(5), 0))} == {int}


# -- what holds for every kind of batch

KINDS = {
    "plain": {"batch_size": 6},
    "by length": {"batch_size": 6, "by_length": True},
    "max_tokens": {"max_tokens": 300},
}


def sampler_of_kind(kind: str, **options) -> EpochBatchSampler:
    return EpochBatchSampler(WIDTHS, **KINDS[kind], **{"seed": 42, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_order_depends_on_seed_and_epoch_only(kind):
    first, second = sampler_of_kind(kind), sampler_of_kind(kind)
    epoch_of(second, 0)
    epoch_of(second, 7)
    assert epoch_of(first, 3) == epoch_of(second, 3) == epoch_of(first, 3)
    assert epoch_of(first, 3) != epoch_of(first, 4)
    assert epoch_of(sampler_of_kind(kind, seed=1), 3) != epoch_of(first, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 1), (1, 4), (3, 1), (3, 4)])
def test_an_epoch_has_everything_and_the_same_number_of_batches(kind, ranks, accumulation):
    samplers = [
        sampler_of_kind(kind, num_replicas=ranks, rank=rank, accumulation=accumulation) for rank in range(ranks)
    ]
    for epoch in range(5):
        drawn = [epoch_of(sampler, epoch) for sampler in samplers]
        assert {len(batches) for batches in drawn} == {len(samplers[0])}
        assert len(samplers[0]) % accumulation == 0
        counts = Counter(index for batches in drawn for index in flat(batches))
        assert set(counts) == set(range(len(WIDTHS)))
        if ranks == accumulation == 1:
            assert set(counts.values()) == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_a_step_are_those_of_its_batches_on_all_ranks(kind):
    samplers = [sampler_of_kind(kind, num_replicas=2, rank=rank, accumulation=3) for rank in range(2)]
    steps = samplers[0].steps_per_epoch
    for epoch in (0, 1):
        drawn = [epoch_of(sampler, epoch) for sampler in samplers]
        for step in range(steps):
            expected = [index for batches in drawn for index in flat(batches[3 * step : 3 * step + 3])]
            assert sorted(samplers[1].step_examples(epoch * steps + step)) == sorted(expected)


def test_examples_of_a_step_with_fewer_batches_than_a_group():
    sampler = sampler_of(7, accumulation=9)
    assert sampler.steps_per_epoch == 1
    assert sorted(sampler.step_examples(5)) == list(range(7))


# -- by length


@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_by_length_hold_neighbours_in_length(ranks):
    """Laid out by width, batches do not overlap; and hardly anything is padding."""
    samplers = [sampler_of_kind("by length", num_replicas=ranks, rank=rank) for rank in range(ranks)]
    drawn = [epoch_of(sampler, 0) for sampler in samplers]
    rounds = [sorted(WIDTHS[i] for batch in batches for i in batch) for batches in zip(*drawn, strict=True)]
    in_order = sorted(rounds)
    assert rounds != in_order  # the order of batches is shuffled
    assert all(before[-1] <= after[0] for before, after in zip(in_order, in_order[1:], strict=False))
    plain = sum(padded_tokens(epoch_of(sampler_of_kind("plain"), epoch)) for epoch in range(3)) / 3
    assert padded_tokens([batch for batches in drawn for batch in batches]) < 1.15 * sum(WIDTHS) < plain


def test_examples_of_equal_width_are_mixed_anew():
    """Every batch of 16-token examples differs between epochs, though the widths of batches do not."""
    sampler = sampler_of_kind("by length")
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert not {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}
    widths = [sorted([WIDTHS[index] for index in batch] for batch in map(sorted, epoch)) for epoch in (first, second)]
    assert sorted(sorted(batch) for batch in widths[0]) == sorted(sorted(batch) for batch in widths[1])


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_max_tokens(ranks):
    """No batch exceeds the budget, and none could take in the next longer example."""
    samplers = [sampler_of_kind("max_tokens", num_replicas=ranks, rank=rank) for rank in range(ranks)]
    for epoch in range(3):
        rounds = list(zip(*(epoch_of(sampler, epoch) for sampler in samplers), strict=True))
        widest = [max(WIDTHS[i] for batch in batches for i in batch) for batches in rounds]
        for batches in rounds:
            assert len({len(batch) for batch in batches}) == 1
            for batch in batches:
                assert padded_tokens([batch]) <= 300
        by_width = sorted(zip(widest, rounds, strict=True), key=lambda pair: (pair[0], -len(pair[1][0])))
        for (_, batches), (wider, _) in zip(by_width, by_width[1:], strict=False):
            assert (len(batches[0]) + 1) * wider > 300


def test_max_tokens_by_hand():
    """Widths 8 8 8 16 16 24, budget 32: three 8s do not bear a fourth row of 16, two 16s not one of 24."""
    sampler = EpochBatchSampler([16, 8, 24, 8, 16, 8], max_tokens=32, seed=3)
    batches = sorted(sorted(batch) for batch in epoch_of(sampler, 0))
    assert batches == [[0, 4], [1, 3, 5], [2]]


def test_ranks_get_batches_of_like_size():
    samplers = [sampler_of_kind("max_tokens", num_replicas=2, rank=rank) for rank in range(2)]
    for one, other in zip(*(epoch_of(sampler, 0) for sampler in samplers), strict=True):
        tokens = [sum(WIDTHS[index] for index in batch) for batch in (one, other)]
        assert abs(tokens[0] - tokens[1]) <= 32  # of up to 300
