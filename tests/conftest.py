"""What many tests share: a tiny tokenizer, tiny models with random weights, and a table that stands in for a model."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import paddle
import pytest
import sentencepiece

from glm.blank_infilling import BlankInfilling, PromptBatch
from glm.configuration import GLMConfig
from glm.modeling import GLMForConditionalGeneration
from glm.tokenization import GLMTokenizer

# Every sentence is made up. Together they hold the characters of the question-generation prompt.
PLACES = ["青石镇", "白鹿湖", "松江", "云台山", "金沙岛", "梅花村", "长乐城", "北原县", "石桥市", "红叶谷"]
PERSONS = ["李明远", "王小兰", "张思远", "陈玉书", "赵文清", "刘海波", "周静怡", "孙立人", "吴国华", "郑秋月"]
SENTENCES = [
    *(f"{place}位于河的北岸，距离省会约{number}3公里，人口大约{number}万。" for number, place in enumerate(PLACES, 1)),
    *(f"{person}出生于19{number}2年，是一位著名的作家和画家。" for number, person in enumerate(PERSONS, 1)),
    *(f"答案：{place}，上下文：{person}小时候住在{place}。" for place, person in zip(PLACES, PERSONS, strict=True)),
    *(f"在已知答案的前提下，问题：{person}是哪一年出生的？" for person in PERSONS),
    *(f"在已知答案的前提下，问题：{place}在哪里？有多少人口？" for place in PLACES),
    "春天来了，山上的花都开了，孩子们跑到田野里放风筝。",
    "这座古老的石桥建于明朝，至今已有六百多年的历史。",
    "水在零度结冰，在一百度沸腾；铁的熔点要高得多。",
    "他每天早上六点起床，先读半小时书，然后去公园跑步。",
    "图书馆里有十二万册图书，其中三分之一是外文书。",
    "什么是光合作用？植物用阳光、水和二氧化碳制造养分。",
    "火车从东站出发，经过五个小时到达终点，票价80元。",
    "Tom用Python写了一个小程序，运行只要0.5秒。",
    "医生建议多喝水、少吃盐，并且每周运动三次。",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789 []<>(){}|_+-*/=%&#@!?.,:;",
]


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """The 60 sentences that `tokenizer` was trained on."""
    return SENTENCES


@pytest.fixture(scope="session")
def sentencepiece_file(tmp_path_factory) -> Path:
    """A SentencePiece model of 340 pieces; as in cog-pretrain.model, 0 to 3 are `<unk>`, `<s>`, `</s>`, `<n>`."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(folder / "tiny"),
        vocab_size=340,
        character_coverage=1.0,
        user_defined_symbols=["<n>"],
        minloglevel=2,
    )
    return folder / "tiny.model"


@pytest.fixture(scope="session")
def tokenizer(sentencepiece_file) -> GLMTokenizer:
    """A GLM tokenizer over `sentencepiece_file`: 340 pieces and ten rows for command tokens."""
    return GLMTokenizer(str(sentencepiece_file))


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., GLMConfig]:
    """A factory: `tiny_config(option=value, ...)`, without dropout where not asked for."""

    def make(**options) -> GLMConfig:
        defaults = {
            "num_layers": 2,
            "vocab_size": 40,
            "hidden_size": 24,
            "num_attention_heads": 3,
            "max_sequence_length": 100,
            "embedding_dropout_prob": 0.0,
            "attention_dropout_prob": 0.0,
            "output_dropout_prob": 0.0,
        }
        return GLMConfig(**{**defaults, **options})

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_config) -> Callable[..., GLMForConditionalGeneration]:
    """A factory: `tiny_model(seed=0, option=value, ...)`, in evaluation mode.

    All weights are drawn from N(0, 0.2), biases too (LayerNorm weights from N(1, 0.2)): no part of the formula is
    hidden behind a zero or a one.
    """

    def make(*, seed: int = 0, **options) -> GLMForConditionalGeneration:
        model = GLMForConditionalGeneration(tiny_config(**options))
        generator = np.random.default_rng(seed)
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith("layernorm.weight") else 0.0
            parameter.set_value(generator.normal(centre, 0.2, parameter.shape).astype("float32"))
        model.eval()
        return model

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds data/ and tokenizers/ (opt-in)."""
    folder = os.environ.get("GLM_REAL_DATA")
    if not folder:
        pytest.skip("set GLM_REAL_DATA to the folder that holds data/ and tokenizers/")
    return Path(folder)


class TableCache:
    """The tokens of each live row, [B][R] tuples."""

    def __init__(self, keys: Sequence[int]):
        self.keys = keys
        self.rows = [[()] for _ in keys]

    def reorder(self, beam_idx: np.ndarray) -> None:
        self.rows = [[rows[row] for row in order] for rows, order in zip(self.rows, beam_idx, strict=True)]

    def keep(self, examples: np.ndarray) -> None:
        self.keys = [self.keys[example] for example in examples]
        self.rows = [self.rows[example] for example in examples]


class TableModel:
    """What decoding asks of a model, answered from a function; it checks the positions it is given.

    The first id of an example's source is its key; `next_logits(key)(tokens)` gives the logits [V] of the next token.
    """

    def __init__(self, next_logits: Callable[[int], Callable[[tuple[int, ...]], np.ndarray]], *, place: int = 1):
        self.next_logits = next_logits
        self.place = place
        self.known: dict[tuple, np.ndarray] = {}
        self.steps = 0

    def logits(self, cache: TableCache):
        def known(key, tokens):
            if (key, tokens) not in self.known:
                self.known[key, tokens] = np.asarray(self.next_logits(key)(tokens), dtype=np.float32)
            return self.known[key, tokens]

        return paddle.to_tensor(
            np.array([[known(key, row) for row in rows] for key, rows in zip(cache.keys, cache.rows, strict=True)])
        )  # [B, R, V]

    def prefill(self, source_ids, source_position_ids, source_lengths, opening_ids, opening_position_ids):
        B, P = opening_ids.shape
        self.opening = P
        assert source_position_ids.shape == (B, 2, source_ids.shape[1]) and source_lengths.shape == (B,)
        assert (opening_position_ids[:, 0] == self.place).all()
        assert (opening_position_ids[:, 1] == np.arange(1, P + 1)).all()
        cache = TableCache([int(key) for key in source_ids[:, 0]])
        return self.logits(cache)[:, 0], cache

    def step(self, tokens, position_ids, cache):
        self.steps += 1
        assert (position_ids[:, 0] == self.place).all()
        cache.rows = [
            [row + (int(token),) for row, token in zip(rows, new, strict=True)]
            for rows, new in zip(cache.rows, tokens, strict=True)
        ]
        assert (position_ids[:, 1] == self.opening + len(cache.rows[0][0])).all()
        return self.logits(cache)


@pytest.fixture(scope="session")
def table_model() -> type[TableModel]:
    """A stand-in for a neural network: `table_model(next_logits)`, see `TableModel`."""
    return TableModel


@pytest.fixture(scope="session")
def table_prompts() -> Callable[..., PromptBatch]:
    """A factory of prompts for a `table_model`: `table_prompts(keys, opening=1)`."""

    def make(keys: Sequence[int], *, opening: int = 1) -> PromptBatch:
        return PromptBatch(
            geometry=BlankInfilling(mask_token_ids=(1000,), sop_token_id=1001, eop_token_id=1002),
            source_ids=np.array([[key, 1000] for key in keys]),
            source_lengths=np.full(len(keys), 2),
            places=np.ones(len(keys), dtype=np.int64),
            opening_ids=np.array([1001] + [0] * (opening - 1)),
        )

    return make


@pytest.fixture(scope="session")
def random_table() -> Callable[..., Callable]:
    """A factory: `random_table(vocab_size)(key)(tokens)`, logits [V] that depend on all tokens so far."""

    def make(vocab_size: int, *, scale: float = 1.5):
        def of_key(key: int):
            def next_logits(tokens: tuple[int, ...]) -> np.ndarray:
                return np.random.default_rng([key, len(tokens), *tokens]).normal(scale=scale, size=vocab_size)

            return next_logits

        return of_key

    return make
