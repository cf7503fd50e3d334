"""Examples of tasks among samples of text: their share, and how often each task, pattern and question is drawn."""

import json
from collections import Counter

import numpy as np
import pytest

from glm.data.corpora import CorpusFiles
from glm.data.corpus_store import CorpusSamples, corpus_digest, open_corpus
from glm.data.task_pool import TASKS, TaskPool
from glm.models.glm.objectives import BlankPretraining

SIZES = {"small": 10, "large": 90}
PATTERNS = 2
DRAWS = 4000


@pytest.fixture
def tasks() -> dict:
    """Rows that say which task, pattern and question they are of."""
    return {
        name: [[((name, pattern, number),) for number in range(size)] for pattern in range(PATTERNS)]
        for name, size in SIZES.items()
    }


def test_tasks_by_size_and_all_else_alike(tasks):
    pool, random = TaskPool(tasks, 0.3), np.random.default_rng(1)
    drawn = [pool.draw(random) for _ in range(DRAWS)]
    assert {sample.objective for sample in drawn} == {TASKS}
    found = Counter(sample.examples[0] for sample in drawn)
    assert len(found) == PATTERNS * sum(SIZES.values())  # every pattern of every question
    of_task = Counter(name for name, _, _ in found.elements())
    of_pattern = Counter(pattern for _, pattern, _ in found.elements())
    expected = 90**0.8 / (90**0.8 + 10**0.8)
    assert abs(of_task["large"] / DRAWS - expected) < 4 * (expected * (1 - expected) / DRAWS) ** 0.5
    assert abs(of_pattern[0] / DRAWS - 0.5) < 4 * 0.5 / DRAWS**0.5


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_the_samples(tmp_path, tokenizer, tasks, share):
    """The draw is a function of the generator; the other samples are texts as without tasks."""
    path = tmp_path / "x.jsonl"
    texts = ["春天来了，山上的花都开了。", "这座古老的石桥建于明朝。", "水在零度结冰，在一百度沸腾。"] * 40
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    files, pretraining = CorpusFiles(str(path)), BlankPretraining(tokenizer, seq_length=40)
    digest = corpus_digest(files)
    corpus, _ = open_corpus("c", files, tokenizer, pretraining, tmp_path / "cache", content=digest)
    samples = CorpusSamples("c", corpus, pretraining, TaskPool(tasks, share))

    def objectives() -> list[str]:
        return [samples.draw(n % len(samples), np.random.default_rng([4, n])).objective for n in range(1000)]

    drawn = objectives()
    assert drawn == objectives()
    assert abs(drawn.count(TASKS) / 1000 - share) <= 4 * (share * (1 - share) / 1000) ** 0.5
    assert len(set(drawn)) == {0.0: 3, 0.3: 4, 1.0: 1}[share]
