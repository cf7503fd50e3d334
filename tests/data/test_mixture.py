"""Names of data sets, and how often each is read: values worked by hand, and properties of every epoch."""

from collections import Counter

import numpy as np
import pytest

from glm.data.mixture import Mixture, NamedFile, apportion, named_files, parse_weights, probabilities, times_read
from glm.errors import UsageError

# -- names


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [("", None)]),
        ("train.json", [("", "train.json")]),
        (["train.json"], [("", "train.json")]),
        ("en=train.json", [("en", "train.json")]),
        (["en=a/b.json", "zh-CN=c=d.json"], [("en", "a/b.json"), ("zh-CN", "c=d.json")]),
        (["x/dev.en.json", "x/dev.zh.json"], [("en", "x/dev.en.json"), ("zh", "x/dev.zh.json")]),
        (["x/de-dev.json", "x/dk-dev.json"], [("de", "x/de-dev.json"), ("dk", "x/dk-dev.json")]),
        (["en/dev.json", "zh/dev.json"], [("en", "en/dev.json"), ("zh", "zh/dev.json")]),
        ("runs/a=b/train.json", [("", "runs/a=b/train.json")]),  # no name has a slash
    ],
)
def test_names(given, expected):
    assert named_files("dev_file", given) == tuple(NamedFile(*pair) for pair in expected)


def test_a_file_whose_name_looks_like_a_named_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.json").write_text("{}", encoding="utf-8")
    assert named_files("dev_file", "a=b.json") == (NamedFile("", "a=b.json"),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["en=a.json", "en=b.json"], "dev_file en: is the name of a.json and b.json"),
        (["en=a.json", "b.json"], "dev_file b.json: has no name beside the others"),
        (["en=a.json", "en=a.json"], "stands twice"),
        (["a.json", "a.json"], "dev_file a.json: has no name"),
    ],
)
def test_names_that_cannot_be_told_apart(given, message):
    with pytest.raises(UsageError, match=message):
        named_files("dev_file", given)


# -- how often


def test_probabilities_by_hand():
    assert probabilities([900, 100], 1.0).tolist() == [0.9, 0.1]
    assert probabilities([900, 100], 0.5).tolist() == [0.75, 0.25]  # 30 and 10
    assert probabilities([900, 100], 0.0).tolist() == [0.5, 0.5]
    assert probabilities([900, 100], 1.0, limit=300).tolist() == [0.75, 0.25]


@pytest.mark.parametrize(("sizes", "temperature"), [([1, 0], 1.0), ([], 1.0), ([1, -2], 0.5), ([1], -0.1), ([1], 1.1)])
def test_probabilities_out_of_range(sizes, temperature):
    with pytest.raises(ValueError, match="sizes|temperature"):
        probabilities(sizes, temperature)


def test_times_read_by_hand():
    assert times_read([90, 10], [0.5, 0.5]).tolist() == pytest.approx([5 / 9, 5])
    assert times_read([90, 10], [0.9, 0.1], fraction=0.1).tolist() == pytest.approx([0.1, 0.1])


def test_apportioned():
    assert apportion(10, [2, 1]) == [7, 3]
    assert apportion(2, [1, 1, 1]) == [1, 1, 0]
    assert apportion(100, [0.5, 0.3, 0.2]) == [50, 30, 20]


@pytest.mark.parametrize("text", ["", "1,", "a", "1,0", "1,-1", "nan", "inf,1"])
def test_weights_that_are_none(text):
    with pytest.raises(UsageError, match="weights"):
        parse_weights(text)


# -- epochs


def test_without_shares_every_example_once():
    mixture = Mixture([3, 2])
    assert mixture.epoch(0).tolist() == mixture.epoch(7).tolist() == [0, 1, 2, 3, 4]


def test_shares_of_an_epoch():
    mixture = Mixture([90, 10], [1, 1], seed=3)
    assert len(mixture) == 100 and mixture.counts == [50, 50]
    for number in range(3):
        epoch = mixture.epoch(number)
        assert (epoch < 90).sum() == 50 and len(epoch) == 100
        assert Counter(epoch[epoch >= 90].tolist()) == dict.fromkeys(range(90, 100), 5)


def test_a_set_goes_on_where_the_epoch_before_ended():
    mixture = Mixture([90, 10], [1, 1], seed=3)
    seen = np.concatenate([mixture.epoch(number) for number in range(9)])
    assert Counter(seen[seen < 90].tolist()) == dict.fromkeys(range(90), 5)  # 450 = 5 * 90


def test_an_epoch_depends_on_seed_and_number_alone():
    first, again, other = (Mixture([40, 7, 3], [3, 2, 1], seed=seed) for seed in (1, 1, 2))
    assert first.epoch(5).tolist() == again.epoch(5).tolist() != other.epoch(5).tolist()
    assert first.epoch(5).tolist() != first.epoch(4).tolist()
