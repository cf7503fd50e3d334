"""Samples of GLM's pretraining: nothing of a text is lost, options do what they say, losses agree with NumPy's."""

import numpy as np
import paddle
import pytest

from glm.data.collator import SampleCollator
from glm.data.corpus_store import MemoryCorpus
from glm.errors import InputError
from glm.models.glm.geometry import attention_mask
from glm.models.glm.objectives import DOCUMENT, NAMES, SENTENCE, TOKEN, BlankPretraining, share_out
from glm.models.glm.spans import SentenceEnds, fits, span_lengths
from reference.forward import forward
from reference.forward import loss as slow_loss
from tools.corpus_tools import original_text

TEXTS = [
    "春天来了，山上的花都开了，孩子们跑到田野里放风筝。什么是光合作用？植物用阳光、水和二氧化碳制造养分。",
    "这座古老的石桥建于明朝，至今已有六百多年的历史。水在零度结冰，在一百度沸腾；铁的熔点要高得多。",
    "火车从东站出发，经过五个小时到达终点，票价80元。",
    "医生建议多喝水、少吃盐。",
]


@pytest.fixture(scope="module")
def corpus(tokenizer) -> MemoryCorpus:
    return MemoryCorpus([[ids] for ids in tokenizer.encode_text(TEXTS)])


def draws(objective, corpus, count=60, level=None, seed=2):
    return [objective.draw(corpus, n, np.random.default_rng([seed, n]), level) for n in range(count)]


@pytest.mark.parametrize("level", NAMES)
@pytest.mark.parametrize("length", [24, 48, 100])
def test_blanks_and_spans_make_the_text(tokenizer, corpus, level, length):
    """Part A with its blanks filled again is the documents, or windows of them, one behind the other."""
    objective = BlankPretraining(tokenizer, seq_length=length, short_seq_prob=0.0)
    known = ["".join(chr(number) for number in corpus.unit(n)[0]) for n in range(len(corpus))]
    eop, end = tokenizer.eop_token_id, tokenizer.eos_token_id
    for sample in draws(objective, corpus, level=level):
        (example,) = sample.examples
        assert len(example.labels) == len(example.target_ids) == sample.num_labels
        text = original_text(example, tokenizer.mask_token_ids, tokenizer.block_mask_id)
        text = [number for number in text if number != eop]
        assert len(text) <= length and text[0] == tokenizer.cls_token_id
        for part in "".join(map(chr, text[1:])).split(chr(tokenizer.cls_token_id)):
            assert any(part.rstrip(chr(end)) in document for document in known)


@pytest.mark.parametrize("level", NAMES)
def test_without_block_positions_all_are_one(tokenizer, corpus, level):
    """And nothing else of a sample changes; each row is as long as its ids, at the document level too."""
    own, plain = (BlankPretraining(tokenizer, seq_length=60, block_position=given) for given in (True, False))
    for sample, other in zip(draws(own, corpus, level=level), draws(plain, corpus, level=level), strict=True):
        for example, same in zip(sample.examples, other.examples, strict=True):
            assert (same.target_position_ids[1] == 1).all() and example.target_position_ids[1].max() > 1
            assert same.target_position_ids[0].tolist() == example.target_position_ids[0].tolist()
            assert same.target_position_ids.shape == (2, len(same.target_ids)) == (2, len(same.labels))
            assert same.source_ids.tolist() == example.source_ids.tolist()
            assert same.target_ids.tolist() == example.target_ids.tolist()


@pytest.mark.parametrize("options", [{}, {"short_seq_prob": 1.0}, {"bert_ratio": 0.5, "gap_sentence_ratio": 0.4}])
def test_no_sample_is_larger_than_planned(tokenizer, corpus, options):
    """Which is what batches, rows and memory are planned by; the more spans, the larger a sample is."""
    objective = BlankPretraining(tokenizer, seq_length=100, **options)
    samples = [sample for level in NAMES for sample in draws(objective, corpus, count=200, level=level)]
    most, most_labels = objective.planned
    assert max(len(sample) for sample in samples) <= most <= 230
    assert max(sample.num_labels for sample in samples) <= most_labels
    text = np.arange(100) + 1
    text[0] = tokenizer.cls_token_id
    spans = [(2 * place + 1, 2 * place + 2) for place in range(int(objective.rates.bert_ratio * 100))]
    assert len(objective.lay_out(text, spans, range(len(spans)), "[MASK]")) == 100 + 2 * len(spans) <= most


def test_the_inputs_of_spans_are_their_labels_or_hidden(tokenizer, corpus):
    objective = BlankPretraining(tokenizer, seq_length=100, block_mask_prob=0.5, bert_prob=1.0, gap_sentence_prob=0.0)
    hidden = read = 0
    for sample in draws(objective, corpus):
        for example in sample.examples:
            inside = example.target_position_ids[1] > 1
            before = np.append(-1, example.labels[:-1])
            assert ((example.target_ids == before) | (example.target_ids == tokenizer.block_mask_id))[inside].all()
            assert (example.target_ids[~inside] == tokenizer.sop_token_id).all()
            hidden += int((example.target_ids == tokenizer.block_mask_id).sum())
            read += int(inside.sum())
    assert abs(hidden / read - 0.5) < 0.05


def test_a_continuation_has_no_eop_and_an_infilling_has_one(tokenizer, corpus):
    for infills in (0.0, 1.0):
        objective = BlankPretraining(tokenizer, seq_length=60, infill_prob=infills, sample_one_document=True)
        for sample in draws(objective, corpus, count=20, level=DOCUMENT):
            for example in sample.examples:
                assert (example.labels[-1] == tokenizer.eop_token_id) == infills
                is_last = example.source_ids[-1] == tokenizer.special_ids["[gMASK]"]
                assert is_last or infills


def test_windows_begin_and_end_with_sentences(tokenizer):
    (ids,) = tokenizer.encode_text(["".join(TEXTS[:2] * 3)])
    objective = BlankPretraining(tokenizer, seq_length=64, short_seq_prob=0.0)
    ends = objective.ends(np.array(ids))
    starts, random = 0, np.random.default_rng(1)
    for _ in range(50):
        window = objective.text(MemoryCorpus([[ids]]), random)[1:].tolist()
        places = [n for n in range(len(ids)) if ids[n : n + len(window)] == window or window[-1] not in ids]
        starts += any(place == 0 or ends[place - 1] for place in places)
        assert 31 <= len(window) <= 63
    assert starts == 50
    free = BlankPretraining(tokenizer, seq_length=64, non_sentence_start=1.0)
    texts = {tuple(free.text(MemoryCorpus([[ids]]), random)[1:4].tolist()) for _ in range(50)}
    assert len(texts) > 20


def test_a_digit_before_a_dot_ends_no_sentence(tokenizer):
    ids = np.array(tokenizer.encode_text("只要0.5秒。OK."))
    ends = [tokenizer.token_of(ids[place]) for place in np.flatnonzero(SentenceEnds(tokenizer)(ids))]
    original = np.flatnonzero(SentenceEnds(tokenizer, like_original=True)(ids))
    assert len(ends) == 2 and len(original) == 3


def test_samples_of_one_document(tokenizer, corpus):
    objective = BlankPretraining(tokenizer, seq_length=100, sample_one_document=True, short_seq_prob=0.0)
    texts = [objective.text(corpus, np.random.default_rng(n)) for n in range(40)]
    assert all((text == tokenizer.cls_token_id).sum() == 1 for text in texts)
    several = BlankPretraining(tokenizer, seq_length=100, short_seq_prob=0.0)
    assert any((several.text(corpus, np.random.default_rng(n)) == tokenizer.cls_token_id).sum() > 1 for n in range(40))


def test_short_samples(tokenizer, corpus):
    objective = BlankPretraining(tokenizer, seq_length=100, short_seq_prob=1.0)
    for sample in draws(objective, corpus, count=30):
        assert 1 <= len(sample.examples) <= 3
        assert len({len(example.source_ids) for example in sample.examples}) >= 1
    assert any(len(sample.examples) > 1 for sample in draws(objective, corpus, count=30))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_tiny_documents_are_of_the_document_level(tokenizer, size):
    objective = BlankPretraining(tokenizer, seq_length=64, sample_one_document=True)
    tiny = MemoryCorpus([[list(range(4, 4 + size))]])
    for sample in draws(objective, tiny, count=10, level=TOKEN):
        assert sample.num_labels >= 1
        if size + 2 < 8:
            assert sample.objective == DOCUMENT


def test_spans_are_shared_out_without_loss():
    random = np.random.default_rng(0)
    for _ in range(200):
        sizes = random.integers(4, 60, size=random.integers(1, 12)).tolist()
        bounds = np.cumsum([0, *sizes])
        parts = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        lengths = span_lengths(int(0.15 * sum(sizes)), random)
        own = share_out(lengths, parts, 0.15)
        assert all(fits(spans, size) for spans, size in zip(own, sizes, strict=True) if spans)
        if max(lengths) <= max(sizes):
            assert sorted(length for spans in own for length in spans) == sorted(lengths)


def test_the_loss_of_packed_samples_is_that_of_the_slow_model(tiny_model, tokenizer, corpus):
    """Rows of several samples, each blind to the others, against one forward pass of each in NumPy."""
    model = tiny_model(vocab_size=384)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    objective = BlankPretraining(tokenizer, seq_length=50, short_seq_prob=0.5)
    samples = draws(objective, corpus, count=6)
    assert len({sample.objective for sample in samples}) > 1
    collator = SampleCollator(objective.geometry, pad_token_id=tokenizer.pad_token_id, row_tokens=160)
    batch = {name: paddle.to_tensor(table) for name, table in collator(samples).items()}
    total = count = 0
    for example in (example for sample in samples for example in sample.examples):
        S, T = len(example.source_ids), len(example.target_ids)
        positions = np.concatenate([objective.infilling.source_positions(S), example.target_position_ids], axis=1)
        logits = forward(
            weights,
            np.concatenate([example.source_ids, example.target_ids])[None],
            positions[None],
            attention_mask([S], S, T),
            num_layers=2,
            num_attention_heads=3,
        )
        total += T * slow_loss(logits[:, S:], example.labels[None])
        count += T
    with paddle.no_grad():
        found = float(model(**batch))
    assert found == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"bert_prob": 0.8, "gap_sentence_prob": 0.3},
            r"gap_sentence_prob 0.3: are above 1 together",
        ),
        ({"bert_prob": 1.2, "gap_sentence_prob": 0.0}, "bert_prob 1.2: use 0 to 1"),
        ({"bert_ratio": 1.0}, "bert_ratio 1.0: use a number above 0 and less than 1"),
        ({"gap_sentence_ratio": 0.0}, "gap_sentence_ratio 0.0"),
        ({"gpt_min_ratio": -0.1}, "gpt_min_ratio -0.1"),
        ({"infill_prob": 2.0}, "infill_prob 2.0: use 0 to 1"),
        ({"block_mask_prob": float("nan")}, "block_mask_prob nan"),
        ({"seq_length": 8}, "seq_length 8: use 16 or more"),
        ({"seq_length": 20}, "short_seq_prob 0.02: cuts into pieces"),
    ],
)
def test_options_out_of_range(tokenizer, options, told):
    with pytest.raises(InputError, match=told):
        BlankPretraining(tokenizer, **options)


def test_a_model_that_is_too_small(tokenizer, tiny_config):
    with pytest.raises(InputError, match="seq_length 101: the model has 100 positions"):
        BlankPretraining(tokenizer, seq_length=101).check(tiny_config(vocab_size=384))
    with pytest.raises(InputError, match=r"block_mask_prob 0.1: \[dBLOCK\] has the id 350"):
        BlankPretraining(tokenizer, seq_length=100).check(tiny_config(vocab_size=350))
    BlankPretraining(tokenizer, seq_length=100, block_mask_prob=0.0).check(tiny_config(vocab_size=350))
    assert SENTENCE in NAMES
