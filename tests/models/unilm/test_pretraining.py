"""UniLM's mixture through the verb's seam: passages in a corpus, each objective by name, rows that fit."""

import numpy as np
import pytest

from glm.data.corpus_store import MemoryCorpus
from glm.errors import InputError, UsageError
from glm.models.unilm import FAMILY
from glm.models.unilm.geometry import BIDIRECTIONAL, SEQ2SEQ
from glm.models.unilm.tokenization import WordPieceTokenizer
from glm.options.corpora import PretrainObjectiveArguments
from tools.unilm_tools import write_vocabulary

TEXT = "的一是不了，人我在有他。这中大来上！国和说们为，的一是。不了人我在？有他这中。"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> WordPieceTokenizer:
    words = "的一是不了人我在有他这中大来上国和说们为。？！，"
    return WordPieceTokenizer(write_vocabulary(tmp_path_factory.mktemp("unilm") / "vocab.txt", words))


def corpus_of(pretraining) -> MemoryCorpus:
    parts = pretraining.parts(TEXT)
    return MemoryCorpus(pretraining.units(pretraining.tokenizer.encode_text(parts)))


def test_samples_are_rows_of_passages(tokenizer):
    pretraining = FAMILY.pretraining.build(tokenizer, seq_length=20)
    corpus = corpus_of(pretraining)
    assert pretraining.samples(corpus) == len(corpus) == len(list(pretraining.passages(TEXT)))
    for number in range(len(corpus)):
        for objective in FAMILY.pretraining.names:
            sample = pretraining.draw(corpus, number, np.random.default_rng(number), objective)
            assert sample.objective == objective and len(sample) <= 20
            (example,) = sample.examples
            assert (example.order != -100) == (example.task == BIDIRECTIONAL)
            assert sample.num_labels <= pretraining.planned[1]
    drawn = pretraining.draw(corpus, 0, np.random.default_rng(3))
    again = pretraining.draw(corpus, 0, np.random.default_rng(3))
    assert drawn.objective == again.objective
    assert (drawn.examples[0].input_ids == again.examples[0].input_ids).all()
    assert SEQ2SEQ == FAMILY.pretraining.names.index("seq2seq")


def test_options_of_other_families_are_refused(tokenizer):
    given = PretrainObjectiveArguments(seq_length=20, mask_prob=0.3)
    assert given.of_family(FAMILY) == {"seq_length": 20, "mask_prob": 0.3}
    with pytest.raises(UsageError, match="bert_prob 0.5: means nothing for UniLM's objectives"):
        PretrainObjectiveArguments(bert_prob=0.5).of_family(FAMILY)
    pretraining = FAMILY.pretraining.build(tokenizer, seq_length=20)
    config = type("Config", (), {"max_position_embeddings": 16})
    with pytest.raises(InputError, match="seq_length 20: the model has 16 positions"):
        pretraining.check(config)
