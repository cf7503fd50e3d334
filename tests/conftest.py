"""Fixtures for many tests: a tiny tokenizer, tiny models with random weights, and a table in place of a model."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import BlankInfilling, Prompt
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer
from tools.browser_tools import ARGUMENTS

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


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory) -> Path:
    """Replaces ~/.cache for tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


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


@pytest.fixture(scope="module")  # of a session, its event loop would be in the way of `asyncio.run`
def browser():
    """Debian's chromium, driven by Playwright. Opt-in: tests that ask for it are skipped where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds data/ and tokenizers/ (opt-in)."""
    folder = os.environ.get("GLM_REAL_DATA")
    if not folder:
        pytest.skip("set GLM_REAL_DATA to the folder that holds data/ and tokenizers/")
    return Path(folder)


TABLE_MASK, TABLE_SOP = 1000, 1001


class TableCache:
    """The cache of `TableModel`: the prompt of each example, the tokens of each live row ([B][R] tuples), and which
    are done."""

    def __init__(self, prompts: Sequence[Prompt]):
        self.prompts = list(prompts)
        self.rows = [[()] for _ in prompts]
        self.last_blocks = [None] * len(prompts)  # the block position of the last step
        self.done = [False] * len(prompts)
        self.longest = max(map(len, prompts))

    def reorder(self, beam_idx: np.ndarray) -> None:
        self.rows = [[rows[row] for row in order] for rows, order in zip(self.rows, beam_idx, strict=True)]

    def keep(self, examples: np.ndarray) -> None:
        for name in ("prompts", "rows", "last_blocks", "done"):
            setattr(self, name, [getattr(self, name)[example] for example in examples])

    def replace(self, places: np.ndarray, other: "TableCache") -> None:
        assert other.longest <= self.longest and len(set(places.tolist())) == len(places) == len(other.rows)
        for index, place in enumerate(places):
            assert len(other.rows[index]) == len(self.rows[place])
            for name in ("prompts", "rows", "last_blocks", "done"):
                getattr(self, name)[place] = getattr(other, name)[index]

    def append(self, other: "TableCache") -> None:
        for name in ("prompts", "rows", "last_blocks", "done"):
            getattr(self, name).extend(getattr(other, name))
        self.longest = max(self.longest, other.longest)


class TableModel:
    """A decodable model whose logits come from a function; it checks the numbers of tokens that it is given.

    The first id of an example's source is its key; `next_logits(key)(tokens)` gives the logits [V] of the next token.
    An example whose position no longer moves is done; whatever it is asked, its logits are equal. `prefilled` are the
    prompts of each prefill, `steps` the number of steps, `sizes` how many examples each had.
    """

    def __init__(self, next_logits: Callable[[int], Callable[[tuple[int, ...]], np.ndarray]]):
        self.next_logits = next_logits
        self.known: dict[tuple, np.ndarray] = {}
        self.prefilled: list[list[Prompt]] = []
        self.steps = 0
        self.sizes: list[int] = []

    def logits(self, cache: TableCache) -> np.ndarray:
        def known(prompt, tokens, done):
            key = int(prompt.source_ids[0])
            if done:
                return np.zeros_like(next(iter(self.known.values())))
            if (key, tokens) not in self.known:
                self.known[key, tokens] = np.asarray(self.next_logits(key)(tokens), dtype=np.float32)
            return self.known[key, tokens]

        examples = zip(cache.prompts, cache.rows, cache.done, strict=True)
        return np.array([[known(prompt, row, done) for row in rows] for prompt, rows, done in examples])  # [B, R, V]

    def prefill(self, prompts):
        self.prefilled.append(list(prompts))
        for prompt in prompts:
            source, P = prompt.source_ids.tolist(), len(prompt.opening_ids)
            places = [*range(len(source)), *[source.index(TABLE_MASK)] * P]
            assert prompt.position_ids.tolist() == [places, [0] * len(source) + list(range(1, P + 1))]
            assert prompt.opening_ids[0] == TABLE_SOP
        cache = TableCache(prompts)
        return self.logits(cache)[:, 0], cache

    def step(self, tokens, numbers, cache):
        B, R = tokens.shape
        assert numbers.shape == (B,) and len(cache.rows) == B
        self.steps += 1
        for example, prompt in enumerate(cache.prompts):
            assert len(cache.rows[example]) == R
            cache.rows[example] = [
                row + (int(token),) for row, token in zip(cache.rows[example], tokens[example], strict=True)
            ]
            place, block = prompt.step_position_ids(numbers[example])[:, 0].tolist()
            cache.done[example] |= block == cache.last_blocks[example]
            cache.last_blocks[example] = block
            assert place == prompt.source_ids.tolist().index(TABLE_MASK)
            if not cache.done[example]:
                assert numbers[example] == len(cache.rows[example][0]) - 1
                assert block == len(prompt.opening_ids) + len(cache.rows[example][0])
        self.sizes.append(B)
        return self.logits(cache)


@pytest.fixture(scope="session")
def table_model() -> type[TableModel]:
    """A stand-in for a neural network: `table_model(next_logits)`, see `TableModel`."""
    return TableModel


@pytest.fixture(scope="session")
def table_prompts() -> Callable[..., list[Prompt]]:
    """A factory of prompts for a `table_model`: `table_prompts(keys, opening=1, source=2)`.

    `opening` and `source` are numbers of ids (`sop` is one of the opening's), for all prompts or one for each.
    """
    geometry = BlankInfilling(mask_token_ids=(TABLE_MASK,), sop_token_id=TABLE_SOP, eop_token_id=1002)

    def make(
        keys: Sequence[int], *, opening: int | Sequence[int] = 1, source: int | Sequence[int] = 2
    ) -> list[Prompt]:
        openings, sources = (
            [number] * len(keys) if isinstance(number, int) else number for number in (opening, source)
        )
        return [
            geometry.prompt([int(key), *[0] * (S - 2), TABLE_MASK], opening=[0] * (P - 1))
            for key, P, S in zip(keys, openings, sources, strict=True)
        ]

    return make


@pytest.fixture(scope="session")
def in_order() -> Callable[..., list]:
    """`in_order(generate(...))`: results of generation, in the order of the prompts."""

    def sort(found) -> list:
        found = list(found)
        places = [place for place, _ in found]
        assert sorted(places) == list(range(len(found)))
        return [hypotheses for _, hypotheses in sorted(found, key=lambda pair: pair[0])]

    return sort


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


@pytest.fixture(scope="session")
def torch_python() -> Callable[..., str]:
    """`torch_python(code, *arguments)` runs code where torch can be imported and returns what it printed."""
    executable = os.environ.get("GLM_TORCH_PYTHON", sys.executable)
    if subprocess.run([executable, "-c", "import torch"], capture_output=True).returncode:
        pytest.skip("set GLM_TORCH_PYTHON to a Python that has torch")

    def run(code: str, *arguments: object) -> str:
        command = [executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
