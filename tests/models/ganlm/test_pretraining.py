"""GanLM's span corruption through the verb's seam."""

from types import SimpleNamespace

import numpy as np
import pytest

from glm.data.corpus_store import MemoryCorpus
from glm.errors import InputError
from glm.models.ganlm.objectives import CorruptionPretraining
from glm.models.ganlm.tokenization import BOS, EOS

TOKENIZER = SimpleNamespace(sentinel_ids=range(500, 600), mask_token_id=499)


def test_sentences_are_packed_and_none_is_lost():
    pretraining = CorruptionPretraining(TOKENIZER, seq_length=20)
    assert pretraining.parts("一二。三？！\n四 五\n\n") == ["一二。", "三？！", "四 五"]
    parts = [list(range(10, 18)), list(range(20, 60)), [70, 71], []]
    units = [unit[0] for unit in pretraining.units(parts)]
    assert all(len(unit) <= 20 and unit[0] == BOS and unit[-1] == EOS for unit in units)
    assert [n for unit in units for n in unit if n not in (BOS, EOS)] == [n for part in parts for n in part]


def test_samples_hold_the_document():
    pretraining = CorruptionPretraining(TOKENIZER, seq_length=64)
    corpus = MemoryCorpus(pretraining.units([list(range(10, 100))]))
    assert pretraining.samples(corpus) == len(corpus) == 2
    sample = pretraining.draw(corpus, 0, np.random.default_rng(1))
    (example,) = sample.examples
    spans = np.append(example.target_ids, example.labels[-1])
    kept = [n for n in [*example.source_ids, *spans] if n not in TOKENIZER.sentinel_ids]
    assert sorted(kept) == sorted(corpus.unit(0)[0].tolist())
    assert (len(sample), sample.num_labels) == pretraining.planned
    with pytest.raises(InputError, match="seq_length 2100: needs 105 sentinels"):
        CorruptionPretraining(TOKENIZER, seq_length=2100)
    with pytest.raises(InputError, match="seq_length 7: use 8 or more"):
        CorruptionPretraining(TOKENIZER, seq_length=7)
