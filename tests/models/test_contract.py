"""What every family promises (`glm.models.protocol`), held against each of them, and against one only tests know.

Training and decoding are compared with each other: the loss of an example is minus the sum of what `prefill` and
`step` say of its labels. Originals' numbers, which hold both, are in each family's own tests.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import sentencepiece
from safetensors.numpy import load_file, save_file

from glm.checkpoint.convert import WRITERS, export_checkpoint, import_checkpoint
from glm.checkpoint.loading import find_family, load_config, load_model
from glm.errors import InputError, UsageError
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models import registry
from glm.models.protocol import ABILITIES, Family, GeometryOptions
from glm.modules.layers import Linear, TiedEmbedding
from tools.unilm_tools import write_vocabulary
from tools.vlm_tools import write_tokenizer

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "data" / "tokenizer"
WORDS = "的一是不了人我在有他这中"
TGT = 8
SOURCES, SPANS = ("我在这中", "他", "有人在的一是不了"), ("是他", "我在不了人", "")

# Small models of each family; what is random in training is left out of them.
CASES: dict[str, dict[str, Any]] = {
    "glm": {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "max_sequence_length": 64},
    "mglm": {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "max_sequence_length": 64},
    "unilm": {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48},
        **{"max_position_embeddings": 64, "type_vocab_size": 6},
    },
    "ganlm": {
        **{"hidden_size": 32, "mlp_size": 48, "num_attention_heads": 2, "encoder_layers": 2, "generator_layers": 2},
        **{"discriminator_layers": 1, "max_source_positions": 64, "max_target_positions": 32, "relative_buckets": 32},
    },
    "mt5": {
        **{"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2},
        **{"feed_forward_proj": "gated-gelu", "dropout_rate": 0.0},
    },
    "vlm": {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 64},
    "gru": {"hidden_size": 16},
}
OF_OWN_SEARCH = {"mt5"}  # they bring a search in place of steps
EACH_TOKEN = {"unilm": {"objective": "pseudo_masked"}}  # an objective that predicts each token behind those before it


@dataclass
class Case:
    """A family with a model of random weights in float32, wide enough that no two logits are alike."""

    family: Family
    folder: Path
    model: Any
    tokenizer: Any
    geometry: Any

    def ids(self) -> Iterator[tuple[list[int], list[int]]]:
        """The ids of sources and their targets."""
        for source, span in zip(SOURCES, SPANS, strict=True):
            yield self.geometry.lay_out(self.tokenizer.encode_text(source), []), self.tokenizer.encode_text(span)

    def examples(self) -> list:
        return [self.geometry.example(source, span, tgt_length=TGT) for source, span in self.ids()]

    def prompts(self) -> list:
        return [self.geometry.prompt(source) for source, _ in self.ids()]

    def batch(self, examples: list, *, wider: int = 0) -> dict[str, paddle.Tensor]:
        width = max(map(len, examples)) + wider
        arrays = self.geometry.collate([[example] for example in examples], width, self.tokenizer.pad_token_id)
        return {name: paddle.to_tensor(array) for name, array in arrays.items()}

    @paddle.no_grad()
    def loss(self, examples: list, *, wider: int = 0) -> float:
        return float(self.model(**self.batch(examples, wider=wider)))

    def log_prob(self, prompt: Any, tokens: list[int]) -> float:
        """Of tokens one after the other, each behind those before it."""
        logits, state = self.model.prefill([prompt])
        total = 0.0
        for number, token in enumerate(tokens):
            total += log_softmax(logits.reshape(-1))[token]
            logits = self.model.step(np.array([[token]]), np.array([number]), state)
        return total


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64) - logits.max()
    return logits - np.log(np.exp(logits).sum())


@pytest.fixture(scope="module", autouse=True)
def stranger_is_known():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.FAMILIES, "gru", "stranger.family")
        yield


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """A factory of cases: `cases(name)`."""

    @cache
    def make(name: str) -> Case:
        family, folder = registry.find(name), tmp_path_factory.mktemp(name)
        tokenizer = family.open_tokenizer(tokenizer_of(family, folder))
        path = folder / "model.json"
        path.write_text(json.dumps({"model_type": name, **CASES[name]}), encoding="utf-8")
        paddle.seed(11)
        model = load_model(family, str(path), load_config(family, str(path), tokenizer))
        numbers = np.random.default_rng(5)
        for parameter in model.parameters():
            drawn = numbers.normal(0.0, 0.25, parameter.shape).astype("float32")
            parameter.set_value(parameter.numpy() + drawn)
        model.eval()
        saved = folder / "model"
        model.save_pretrained(str(saved), safe_serialization=True)
        family.save_tokenizer(tokenizer, saved)
        options = GeometryOptions(blank="[gMASK]", **EACH_TOKEN.get(name, {}))
        return Case(family, saved, model, tokenizer, family.geometry(tokenizer, options))

    return make


def tokenizer_of(family: Family, folder: Path) -> Path:
    if family.name == "unilm":
        return write_vocabulary(folder / "vocab.txt", WORDS)
    if family.name == "mt5":
        return write_pieces(folder / "spiece")
    if family.name == "vlm":
        return write_tokenizer(folder, [*SOURCES, *SPANS])
    if family.name == "gru":
        (folder / "characters.txt").write_text(WORDS, encoding="utf-8")
        return folder / "characters.txt"
    return BUNDLED if family.name == "ganlm" else BUNDLED / "spm.model"


def write_pieces(prefix: Path) -> Path:
    """A SentencePiece model with a piece for each letter, numbered as mT5's."""
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS]), model_prefix=str(prefix), model_type="char", minloglevel=2, **ids
    )
    return prefix.with_suffix(".model")


@pytest.fixture(params=list(CASES))
def case(request, cases) -> Case:
    return cases(request.param)


@pytest.fixture(params=[name for name in CASES if name not in OF_OWN_SEARCH])
def stepping(request, cases) -> Case:
    """A case of a family that is decoded step by step."""
    return cases(request.param)


@pytest.fixture(params=sorted(OF_OWN_SEARCH))
def searching(request, cases) -> Case:
    """A case of a family that brings its own search."""
    return cases(request.param)


def test_no_family_is_forgotten():
    assert {family.name for family in registry.families()} == set(CASES)
    assert {family.name for family in registry.families() if family.own_search} == OF_OWN_SEARCH


@pytest.mark.parametrize("beams", [1, 3])
def test_a_search_says_what_the_loss_does(searching, beams):
    config = GenerationConfig(tgt_length=TGT, num_beams=beams, length_penalty=0.0, no_repeat_ngram_size=0)
    end = searching.tokenizer.end_token_id
    together = searching.model.search(searching.prompts(), config)
    compared = 0
    for (source, _), texts in zip(searching.ids(), together, strict=True):
        ((tokens, score),) = texts
        ((alone, its_score),) = searching.model.search([searching.geometry.prompt(source)], config)[0]
        assert alone == tokens and len(tokens) <= TGT and end not in tokens
        np.testing.assert_allclose(its_score, score, rtol=2e-4)
        if len(tokens) == TGT:  # a shorter one may have had padding in it, which is no token of the text
            example = searching.geometry.example(source, tokens, tgt_length=TGT)
            np.testing.assert_allclose(-searching.loss([example]) * TGT, score, rtol=2e-4)
            compared += 1
    assert compared


def test_the_loss_is_what_decoding_says(stepping):
    case = stepping
    for example, prompt in zip(case.examples(), case.prompts(), strict=True):
        labels = case.batch([example])["labels"].numpy()
        tokens = labels[labels != -100].tolist()
        assert len(tokens) == example.num_labels
        assert tokens[-1] == case.tokenizer.end_token_id or len(tokens) == TGT
        total = -case.log_prob(prompt, tokens)
        assert total > 1.0  # random weights know nothing
        np.testing.assert_allclose(case.loss([example]) * len(tokens), total, rtol=2e-4)


def test_padding_and_company_change_nothing(case):
    examples = case.examples()
    labels = [example.num_labels for example in examples]
    alone = sum(case.loss([example]) * count for example, count in zip(examples, labels, strict=True)) / sum(labels)
    np.testing.assert_allclose([case.loss(examples), case.loss(examples, wider=7)], alone, rtol=1e-4)


def test_prefill_reads_each_prompt_alone(stepping):
    case = stepping
    together, _ = case.model.prefill(case.prompts())
    for row, prompt in zip(together, case.prompts(), strict=True):
        np.testing.assert_allclose(row, case.model.prefill([prompt])[0][0], atol=2e-4)


def test_the_cache_follows_the_search(stepping):
    """After each of its operations a step gives what the same tokens give one after the other, alone."""
    case = stepping
    prompts, model = case.prompts(), case.model
    ids = [case.tokenizer.encode_text(word)[-1] for word in WORDS]
    paths: list[tuple[Any, list[list[int]]]] = []  # of each example its prompt, and the tokens of each row

    def step(tokens: np.ndarray, state: Any) -> None:
        numbers = np.array([len(rows[0]) for _, rows in paths])
        logits = model.step(tokens, numbers, state)
        for place, (prompt, rows) in enumerate(paths):
            paths[place] = prompt, [[*row, int(token)] for row, token in zip(rows, tokens[place], strict=True)]
            for row, tokens_of_row in enumerate(paths[place][1]):
                np.testing.assert_allclose(logits[place, row], alone(prompt, tokens_of_row), atol=5e-4)

    def alone(prompt: Any, tokens: list[int]) -> np.ndarray:
        logits, state = model.prefill([prompt])
        for number, token in enumerate(tokens):
            logits = model.step(np.array([[token]]), np.array([number]), state)
        return logits.reshape(-1)

    _, state = model.prefill(prompts[1:])
    state.reorder(np.zeros((2, 2), dtype=np.int64))  # the one row that prefill leaves becomes two beams
    paths += [(prompt, [[], []]) for prompt in prompts[1:]]
    step(np.array([[ids[0], ids[1]], [ids[2], ids[3]]]), state)
    state.reorder(np.array([[1, 1], [1, 0]]))
    paths[:] = [(paths[0][0], [paths[0][1][1]] * 2), (paths[1][0], paths[1][1][::-1])]
    step(np.array([[ids[4], ids[5]], [ids[6], ids[7]]]), state)
    state.keep(np.array([1]))
    del paths[0]
    step(np.array([[ids[8], ids[8]]]), state)
    for operation in ("append", "replace"):
        _, fresh = model.prefill(prompts[:1])
        fresh.reorder(np.zeros((1, 2), dtype=np.int64))
        if operation == "append":
            state.append(fresh)
            paths.append((prompts[0], [[], []]))
        else:
            state.replace(np.array([0]), fresh)
            paths[0] = prompts[0], [[], []]
        step(np.array([[ids[1], ids[2]], [ids[9], ids[10]]]), state)


def test_beams_are_worth_what_their_tokens_are(stepping):
    case = stepping
    config = GenerationConfig(tgt_length=5, num_beams=3, num_return_sequences=3, length_penalty=0.0)
    banned = sorted(case.tokenizer.ids_without_text(len(case.model.prefill(case.prompts()[:1])[0][0])))
    end = case.tokenizer.end_token_id
    banned.remove(end)
    found = dict(generate(case.model, case.prompts(), config, end_token_id=end, banned_token_ids=banned))
    for place, prompt in enumerate(case.prompts()):
        alone = dict(generate(case.model, [prompt], config, end_token_id=end, banned_token_ids=banned))[0]
        assert [each.tokens for each in found[place]] == [each.tokens for each in alone]
        assert len(found[place]) == 3
        for hypothesis, other in zip(found[place], alone, strict=True):
            tokens = [*hypothesis.tokens, *([end] if hypothesis.tokens[-1:] != [end] else [])][:5]
            total = case.log_prob(prompt, tokens)
            np.testing.assert_allclose([hypothesis.score, other.score], total, atol=2e-3)


def test_sizes_are_those_laid_out(case):
    lengths = [(len(source), len(span)) for source, span in case.ids()]
    tokens, labels = case.geometry.sizes(*map(np.array, zip(*lengths, strict=True)), tgt_length=TGT)
    examples = case.examples()
    assert tokens.tolist() == [len(example) for example in examples]
    assert labels.tolist() == [example.num_labels for example in examples]


def test_generation_starts_where_training_did(case):
    for example, prompt in zip(case.examples(), case.prompts(), strict=True):
        table = case.geometry.token_table(example, prompt)
        assert table.training.shape[1] == len(example) and table.sees.shape == (len(example),) * 2


def test_a_saved_model_is_found_with_all_its_bits(case):
    family = find_family(str(case.folder))
    assert family is case.family
    tokenizer = family.open_tokenizer(case.folder)
    assert tokenizer.digest == case.tokenizer.digest
    model = load_model(family, str(case.folder), load_config(family, str(case.folder), tokenizer))
    loaded, saved = model.state_dict(), case.model.state_dict()
    assert loaded.keys() == saved.keys()
    for name, weight in saved.items():
        assert np.array_equal(loaded[name].numpy(), weight.numpy()), name


@pytest.mark.parametrize("format", list(WRITERS))
def test_to_each_format_and_back(case, format, tmp_path):
    if format in case.family.weights.foreign_to:
        with pytest.raises(UsageError, match=f"format {format}: "):
            export_checkpoint(case.folder, tmp_path / "there", to=format)
        return
    export_checkpoint(case.folder, tmp_path / "there", to=format)
    import_checkpoint(tmp_path / "there", tmp_path / "back")
    before, after = (load_file(folder / "model.safetensors") for folder in (case.folder, tmp_path / "back"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert np.array_equal(after[name], weight), name


def test_a_weight_of_no_name_is_an_error(case, tmp_path):
    weights = load_file(case.folder / "model.safetensors")
    for path in case.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_file({**weights, "nobody.knows.me": np.ones(3, "float32")}, str(tmp_path / "model.safetensors"))
    with pytest.raises(InputError, match="nobody.knows.me"):
        import_checkpoint(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("ability", list(ABILITIES))
def test_what_it_cannot_do_is_an_error_with_its_option(case, ability):
    for name, off in ABILITIES[ability].items():
        case.family.check_options({name: off})
        asked = True if off in (False, None) else "bfloat16" if off == "float32" else 2
        if ability in case.family.abilities:
            case.family.check_options({name: asked})
        else:
            with pytest.raises(UsageError, match=f"{name} {asked}: {case.family.title} cannot do this"):
                case.family.check_options({name: asked})


def test_linears_of_blocks_can_train_in_bfloat16(case):
    """Else `--bf16` on a CPU would leave some of them as they are."""
    if "half_precision" not in case.family.abilities:
        pytest.skip("the family refuses --bf16")
    layers = [layer for stack in case.model.stacks for layer in stack.sublayers()]
    linears = [layer for layer in layers if isinstance(layer, paddle.nn.Linear)]
    assert linears and all(isinstance(layer, Linear) for layer in linears)
    assert isinstance(case.model.head.embedding, TiedEmbedding)
