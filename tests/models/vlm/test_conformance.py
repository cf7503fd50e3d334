"""What the published VLM gave, and an independent program where the rules are ours: by the numbers of the checks.

| check | what | where |
| --- | --- | --- |
| 1 | ids and decoded texts | test_tokens |
| 2 | layouts of records | test_records.py |
| 3 | logits, hidden states, losses | test_logits_and_losses, test_hidden_states |
| 4 | bypass equals PaddleNLP's GPT-2 | test_bypass_is_gpt2 |
| 5, 6 | tasks in one batch; an adapter changes its own task alone | test_tasks_in_one_batch, test_adapters_are_apart |
| 7 | cached steps equal one forward | test_steps_are_the_forward |
| 8 | gradients | test_gradients |
| 9, 10 | three updates of one task's adapter, and their learning rates | test_adapter_training |
| 11, 12 | joint training, ours and the original's | test_joint_training, test_joint_training_of_the_original |
| 13, 14 | joining; greedy outputs, also the teacher's | test_joining, test_greedy_outputs |
| 15 | nucleus sampling | test_nucleus |
| 16 | an end below min_length is forbidden, not drawn anew | test_min_length |
| 17 | numbers of weights; there and back | test_counts, test_there_and_back |
| 18 | metrics | test_metrics.py |
| 19 | perplexity | test_perplexity |
| 20 | adapters on GLM | test_glm_adapters.py |
| 21 | refusals | test_refusals.py |
"""

import json
import shutil
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from glm.checkpoint.convert import export_checkpoint, import_checkpoint
from glm.cpu.arrays import scale_in_place
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.protocol import GeometryOptions
from glm.models.vlm.configuration import VLMConfig
from glm.models.vlm.geometry import Prompt, VLMGeometry
from glm.models.vlm.tokenization import TASKS, open_tokenizer
from glm.models.vlm.weights import VLMWeights
from glm.modules.trained_rows import TrainedRows
from tools.reference_files import reference_files, reference_json, reference_paths, reference_root
from tools.vlm_tools import (
    golden_batch,
    golden_case,
    golden_folder,
    in_float64,
    load_folder,
    tensors_beside,
)

pytestmark = pytest.mark.conformance
SINGLE, DOUBLE = 2e-5, 1e-9
MODELS = reference_files("vlm/tiny_?.safetensors")
models = pytest.mark.parametrize("weights", MODELS)
NUMBERS = {name: number for number, name in enumerate(TASKS)}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A factory of golden models, in float32 and float64, their tokenizer and facts."""

    @cache
    def make(weights: Path):
        model, tokenizer = load_folder(golden_folder(weights, tmp_path_factory.mktemp("vlm") / weights.stem))
        facts = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        return model, tokenizer, facts

    return make


def cases_of(facts: dict) -> dict[str, dict]:
    return {
        name: {"task_ids": [case["task_id"]] * 2, **case} if "task_id" in case else case
        for name, case in facts["cases"].items()
    }


@pytest.mark.parametrize("lines", reference_files("vlm/tokenizer_vectors.jsonl"))
def test_tokens(lines):
    tokenizer = open_tokenizer(lines.parent / "tokenizer")
    for line in map(json.loads, lines.read_text(encoding="utf-8").splitlines()):
        assert tokenizer.encode_text(line["text"]) == line["ids"], line["text"]
        assert tokenizer.raw_text(line["ids"]) == line["decoded_raw"]
    assert tokenizer.tag_ids == json.loads((lines.parent / "tokenizer" / "added_tokens.json").read_text())


@models
def test_logits_and_losses(weights, opened):
    model, tokenizer, facts = opened(weights)
    golden = tensors_beside(weights)
    for precise, tolerance in ((model, SINGLE), (in_float64(model), DOUBLE)):
        for name, case in cases_of(facts).items():
            batch = golden_case(golden, name, case["task_ids"], tokenizer.pad_token_id)
            expected = case.get("loss", case.get("loss_token_mean"))
            assert float(precise(**batch)) == pytest.approx(expected, rel=tolerance)
            if f"{name}.logits" not in golden:
                continue
            del batch["labels"]
            logits, places = precise(**batch).numpy(), golden[f"{name}.positions"].astype(int)
            found = np.take_along_axis(logits, places[:, :, None], axis=1)
            largest = np.abs(golden[f"{name}.logits"]).max()
            np.testing.assert_allclose(found, golden[f"{name}.logits"], rtol=0, atol=tolerance * largest)


def states_of_layers(model, batch) -> list[np.ndarray]:
    """[layers + 1] of [B, L, H]: inputs of the blocks, and the state behind the last LayerNorm; 0 at padding."""
    found, stack = [], model.vlm.transformer
    hooks = [layer.register_forward_pre_hook(lambda _, given: found.append(given[0])) for layer in stack.layers]
    hooks.append(stack.final_norm.register_forward_post_hook(lambda _, __, made: found.append(made)))
    packing, _ = model._states(batch["input_ids"], batch["segment_ids"], batch["lengths"], batch["tasks"])
    for hook in hooks:
        hook.remove()
    tables = []
    for states in found:
        table = np.zeros((batch["input_ids"].size, states.shape[-1]))
        table[packing.places] = states.numpy()
        tables.append(table.reshape(*batch["input_ids"].shape, -1))
    return tables


@models
def test_hidden_states(weights, opened):
    model, tokenizer, facts = opened(weights)
    golden, model = tensors_beside(weights), in_float64(model)
    for name, case in cases_of(facts).items():
        batch = golden_case(golden, name, case["task_ids"], tokenizer.pad_token_id)
        states = states_of_layers(model, batch)
        if f"{name}.hidden_states" in golden:
            places = golden[f"{name}.positions"].astype(int)[:, :, None]
            found = np.stack([np.take_along_axis(table, places, axis=1) for table in states])
            np.testing.assert_allclose(found, golden[f"{name}.hidden_states"], rtol=0, atol=DOUBLE)
        if f"{name}.last_hidden" in golden:
            last = batch["lengths"].numpy()[:, 0] - 1
            found = states[-1][np.arange(len(last)), last]
            np.testing.assert_allclose(found, golden[f"{name}.last_hidden"], rtol=0, atol=DOUBLE)


@models
def test_bypass_is_gpt2(weights, opened):
    """PaddleNLP's GPTModel on the same weights; it has no segments, so words and segments are handed over as one."""
    from paddlenlp.transformers import GPTConfig, GPTModel

    model, _, _ = opened(weights)
    config = model.config
    theirs = GPTModel(
        GPTConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=4 * config.hidden_size,
            max_position_embeddings=config.max_position_embeddings,
            hidden_act="gelu_new",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            fuse_attention_qkv=False,
        )
    )
    ours = dict(model.vlm.named_parameters())
    for name, weight in theirs.named_parameters():
        weight.set_value(ours_for(name, ours))
    theirs.eval()
    ids = paddle.to_tensor(np.random.default_rng(0).integers(0, config.vocab_size, (2, 9)))
    batch = golden_batch(ids.numpy(), np.full(ids.shape, -1), None, [-1, -1], pad=-1)
    _, states = model._states(**batch)
    expected = theirs(ids)
    expected = expected[0] if isinstance(expected, tuple) else expected
    np.testing.assert_allclose(states.numpy(), expected.flatten(0, 1).numpy(), atol=2e-5)


def ours_for(name: str, ours: dict) -> np.ndarray:
    """The numbers of a weight of PaddleNLP's GPTModel."""
    tables = {
        "embeddings.word_embeddings.weight": "word_embeddings.weight",
        "embeddings.position_embeddings.weight": "transformer.position_embeddings.weight",
        "decoder.norm.weight": "transformer.final_layernorm.weight",
        "decoder.norm.bias": "transformer.final_layernorm.bias",
    }
    if name in tables:
        return ours[tables[name]].numpy()
    layer, part = name.removeprefix("decoder.layers.").split(".", 1)
    stem, _, kind = part.rpartition(".")
    own = f"transformer.layers.{layer}."
    if stem.startswith("self_attn.") and stem[10] in "qkv":
        fused = ours[f"{own}attention.query_key_value.{kind}"].numpy()
        return np.split(fused, 3, axis=-1)["qkv".index(stem[10])]
    parts = {
        "self_attn.out_proj": "attention.dense",
        "linear1": "mlp.dense_h_to_4h",
        "linear2": "mlp.dense_4h_to_h",
        "norm1": "input_layernorm",
        "norm2": "post_attention_layernorm",
    }
    return ours[f"{own}{parts[stem]}.{kind}"].numpy()


@models
def test_tasks_in_one_batch(weights, opened):
    """Each example's share of the loss, whatever their order and padding."""
    model, tokenizer, facts = opened(weights)
    golden, case = tensors_beside(weights), facts["cases"]["mixed"]
    parts = [golden[f"mixed.{part}"] for part in ("input_ids", "token_type_ids", "lm_labels")]
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        wider = [
            np.pad(part[order], ((0, 0), (0, 5)), constant_values=filler)
            for part, filler in zip(parts, (tokenizer.pad_token_id, tokenizer.pad_token_id, -1), strict=True)
        ]
        tasks = [case["task_ids"][place] for place in order]
        nll = sum(case["nll_sum"])
        loss = float(model(**golden_batch(*wider, tasks, tokenizer.pad_token_id), num_items=1))
        assert loss == pytest.approx(nll, rel=1e-5)
    for place, task in enumerate(case["task_ids"]):
        row = [part[place : place + 1] for part in parts]
        loss = float(model(**golden_batch(*row, [task], tokenizer.pad_token_id), num_items=1))
        assert loss == pytest.approx(case["nll_sum"][place], rel=1e-5)


@models
def test_adapters_are_apart(weights, opened):
    model, tokenizer, facts = opened(weights)
    golden, tasks = tensors_beside(weights), facts["cases"]["mixed"]["task_ids"]
    batch = golden_case(golden, "mixed", tasks, tokenizer.pad_token_id)
    del batch["labels"]
    before, changed = model(**batch).numpy(), tasks[0]
    weight = model.vlm.transformer.layers[0].adapters[list(TASKS)[changed]].project_up.bias
    kept = weight.numpy()
    weight.set_value(kept + 1.0)
    after = model(**batch).numpy()
    weight.set_value(kept)
    for place, task in enumerate(tasks):
        assert np.array_equal(before[place], after[place]) == (task != changed)


def prompt_of(ids, segments, task: int) -> Prompt:
    return Prompt(np.asarray(ids, np.int64), np.asarray(segments, np.int64), task, 0, len(ids))


@models
def test_steps_are_the_forward(weights, opened):
    """Mixed tasks, every step against one forward; words and the task's own end."""
    model, tokenizer, facts = opened(weights)
    golden, case = tensors_beside(weights), facts["cases"]["mixed"]
    ids, segments = (golden[f"mixed.{part}"].astype(np.int64) for part in ("input_ids", "token_type_ids"))
    labels, tasks = golden["mixed.lm_labels"], case["task_ids"]
    starts = [int(np.flatnonzero(row != -1)[0]) for row in labels]
    batch = golden_batch(ids, segments, None, tasks, tokenizer.pad_token_id)
    whole, lengths = model(**batch).numpy(), batch["lengths"].numpy()[:, 0]
    prompts = [
        prompt_of(ids[n, :start], segments[n, :start], task)
        for n, (start, task) in enumerate(zip(starts, tasks, strict=True))
    ]
    logits, cache = model.prefill(prompts)
    for number in range(min(lengths - starts)):
        for place, start in enumerate(starts):
            expected = whole[place, start + number - 1]
            end = tokenizer.tag_ids[list(TASKS.values())[tasks[place]].eos]
            words = np.append(expected[: tokenizer.end_token_id], expected[[end, tokenizer.end_token_id]])
            found = np.append(logits[place, : tokenizer.end_token_id + 1], logits[place, -1])
            np.testing.assert_allclose(found, words, atol=1e-5 * np.abs(expected).max())
        tokens = np.array([[ids[place, start + number]] for place, start in enumerate(starts)])
        logits = model.step(tokens, np.full(len(starts), number), cache)[:, 0]


# -- training


def only_adapter(model, task: str, rows: list[int]) -> dict[str, paddle.Tensor]:
    """Freezes all but the adapter of a task and these rows; the weights that are trained, by name."""
    for name, weight in model.named_parameters():
        weight.stop_gradient = f".adapters.{task}." not in name
    model.head.embedding.rows = TrainedRows(model.head.embedding.weight, {"rows": rows})
    model.train()
    return {name: weight for name, weight in model.named_parameters() if not weight.stop_gradient}


def golden_name(name: str, mixed: str = "") -> str:
    """What the originals call a weight of an adapter."""
    _, _, rest = name.partition(".layers.")
    number, _, rest = rest.partition(".adapters.")
    _, part, kind = rest.split(".")
    part = "ln" if part == "layer_norm" else part
    return f"transformer.h.{number}.adapter_block.{mixed}{part}.{kind}"


def as_golden(name: str, numbers: np.ndarray) -> np.ndarray:
    return numbers.T if ".project_" in name and numbers.ndim == 2 else numbers


def micro_batches(golden: dict, tokenizer, task: int) -> list[dict]:
    found = []
    while f"micro{len(found)}.input_ids" in golden:
        rows = golden[f"micro{len(found)}.input_ids"]
        found.append(golden_case(golden, f"micro{len(found)}", [task] * len(rows), tokenizer.pad_token_id))
    return found


RUNS = reference_files("vlm/train_*.json")


@pytest.fixture
def run(request, opened):
    """A golden run of adapter training: its facts, tensors, a fresh model in float64, tokenizer, batches and task."""
    path = request.param
    facts, golden = json.loads(path.read_text(encoding="utf-8")), load_file(path.with_suffix(".safetensors"))
    model, tokenizer, _ = opened(path.parent / facts["weights"])
    batches = micro_batches(golden, tokenizer, NUMBERS[facts["task"]])
    return facts, golden, in_float64(model), tokenizer, batches


@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_gradients(run):
    facts, golden, model, tokenizer, batches = run
    trained = only_adapter(model, facts["task"], list(range(tokenizer.words, tokenizer.vocab_size)))
    for batch in batches[: facts["accumulation"]]:
        (model(**batch) / facts["accumulation"]).backward()
    for name, weight in trained.items():
        expected = golden["grad_update1." + ("rows" if ".rows." in name else golden_name(name))]
        found = weight.grad.numpy() if ".rows." in name else as_golden(name, weight.grad.numpy())
        if found.shape != expected.shape:
            found = found[[row - tokenizer.words for row in tokenizer.rows_of(facts["task"])]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
    assert all(weight.grad is None for weight in model.parameters() if weight.stop_gradient)


def train(
    model, weights, batches, *, accumulation: int, rates: list[float], eps: float, max_norm: float, original_eps: bool
):
    """Some updates of Paddle's AdamW; the norms before clipping."""
    optimizer = paddle.optimizer.AdamW(rates[0], epsilon=eps, weight_decay=0.0, parameters=list(weights))
    norms = []
    for number, rate in enumerate(rates):
        for batch in batches[number * accumulation : (number + 1) * accumulation]:
            (model(**batch) / accumulation).backward()
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norms.append(float(sum((grad**2).sum() for grad in gradients) ** 0.5))
        factor = min(1.0, max_norm / (norms[-1] + 1e-6))
        for grad in gradients:
            scale_in_place(grad, factor)
        if original_eps:  # beside the uncorrected root
            optimizer._epsilon = eps / (1 - 0.999 ** (number + 1)) ** 0.5
        optimizer.set_lr(rate)
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
    return norms


@pytest.mark.parametrize(
    "variant", ["ours_clip1_own_paddle_adamw", "ours_clip1_own", "ours_clip025_own", "ours_clip1_added"]
)
@pytest.mark.parametrize("run", RUNS, indirect=True)
def test_adapter_training(run, variant):
    facts, golden, model, tokenizer, batches = run
    if f"{variant}.after3.rows" not in golden:
        pytest.skip(f"no {variant}")
    before = {name: weight.numpy() for name, weight in model.named_parameters()}
    own = tokenizer.rows_of(facts["task"])
    rows = own if "_own" in variant else list(range(tokenizer.words, tokenizer.vocab_size))
    trained = only_adapter(model, facts["task"], rows)
    recorded, A, M = facts["variants"][variant], facts["accumulation"], facts["micro_batches_in_run"]
    rates = [facts["lr"] * (1 - ((k + 1) * A - 1) / M) for k in range(M // A)]  # by micro-batches
    np.testing.assert_allclose(rates, recorded["lr"], rtol=1e-9)
    norms = train(
        model,
        trained.values(),
        batches,
        accumulation=A,
        rates=rates,
        eps=facts["adam"]["eps"],
        max_norm=0.25 if "clip025" in variant else 1.0,
        original_eps="paddle" not in variant,
    )
    if "norm_before_clip" in recorded:
        np.testing.assert_allclose(norms, recorded["norm_before_clip"], rtol=1e-9)
    model.head.embedding.rows.write(model.head.embedding.weight)
    table = model.head.embedding.weight.numpy()
    np.testing.assert_allclose(table[tokenizer.words :], golden[f"{variant}.after3.rows"], rtol=0, atol=DOUBLE)
    for name, weight in model.named_parameters():
        if f".adapters.{facts['task']}." in name:
            expected = golden[f"{variant}.after3.{golden_name(name)}"]
            np.testing.assert_allclose(as_golden(name, weight.numpy()), expected, rtol=0, atol=DOUBLE)
        elif ".rows." not in name and not name.endswith("word_embeddings.weight"):
            assert np.array_equal(weight.numpy(), before[name]), name
    frozen = np.setdiff1d(np.arange(len(table)), rows)
    assert np.array_equal(table[frozen], before["vlm.word_embeddings.weight"][frozen])


@pytest.fixture
def joint(opened):
    path = reference_paths("vlm", "joint_?.json")[0]
    facts, golden = json.loads(path.read_text(encoding="utf-8")), load_file(path.with_suffix(".safetensors"))
    model, tokenizer, _ = opened(path.parent / facts["weights"])
    return facts, golden, in_float64(model), tokenizer


def some_rows(golden: dict, places: list[int], pad: int) -> dict:
    parts = (golden[part][places] for part in ("input_ids", "token_type_ids", "lm_labels"))
    return golden_batch(*parts, golden["task_ids"][places].tolist(), pad)


def test_joint_training(joint):
    facts, golden, model, tokenizer = joint
    for name, weight in model.named_parameters():
        weight.stop_gradient = ".adapters." not in name
    table = model.head.embedding
    table.rows = TrainedRows(table.weight, {"added": list(range(tokenizer.words, tokenizer.vocab_size))})
    model.train()
    weights = [weight for weight in model.parameters() if not weight.stop_gradient]
    optimizer = paddle.optimizer.AdamW(1.0, epsilon=1e-6, weight_decay=0.0, parameters=weights)
    for update in facts["ours"]["updates"]:
        before = {name: weight.numpy() for name, weight in model.named_parameters()}
        batch = some_rows(golden, update["examples"], tokenizer.pad_token_id)
        loss = model(**batch)
        loss.backward()
        assert float(loss) == pytest.approx(update["loss"], rel=DOUBLE)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm = float(sum((grad**2).sum() for grad in gradients) ** 0.5)
        assert norm == pytest.approx(update["norm"], rel=DOUBLE)
        for grad in gradients:
            scale_in_place(grad, min(1.0, facts["ours"]["max_norm"] / (norm + 1e-6)))
        optimizer.set_lr(update["lr"])
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        for name, weight in model.named_parameters():
            if ".adapters." in name and name.split(".adapters.")[1].split(".")[0] not in update["tasks"]:
                assert np.array_equal(weight.numpy(), before[name]), name
    compare_joint(model, golden, "ours.after3.")
    np.testing.assert_allclose(table.rows.joined().numpy(), golden["ours.after3.rows"], rtol=0, atol=DOUBLE)


def compare_joint(model, golden: dict, prefix: str) -> None:
    for name, weight in model.named_parameters():
        if ".adapters." in name:
            number = NUMBERS[name.split(".adapters.")[1].split(".")[0]]
            expected = golden[prefix + golden_name(name, f"mixadapter.{number}.")]
            np.testing.assert_allclose(as_golden(name, weight.numpy()), expected, rtol=0, atol=DOUBLE)


class OriginalAdam:
    """AdamW without decay, with eps beside the uncorrected root; a weight without gradient keeps all it has."""

    def __init__(self, weights):
        self.weights = weights
        self.state = {id(weight): (0, 0.0, 0.0) for weight in weights}

    def step(self, rate: float) -> None:
        for weight in self.weights:
            if weight.grad is None:
                continue
            count, m, v = self.state[id(weight)]
            grad, count = weight.grad.numpy(), count + 1
            m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
            self.state[id(weight)] = count, m, v
            share = rate * (1 - 0.999**count) ** 0.5 / (1 - 0.9**count)
            weight.set_value(paddle.to_tensor(weight.numpy() - share * m / (v**0.5 + 1e-6), dtype="float64"))
            weight.clear_gradient(False)  # it does not read the argument by its name


def test_joint_training_of_the_original(joint):
    """All parameters, one example a batch, clipped behind each, eps beside the uncorrected root."""
    facts, golden, model, tokenizer = joint
    how = facts["original"]
    model.train()
    model.head.embedding.learns_as_head = False  # a whole gradient, which is clipped
    weights, norms = list(model.parameters()), []
    optimizer = OriginalAdam(weights)
    for number, rate in enumerate(how["lr"]):
        for place in range(how["accumulation"]):
            batch = some_rows(golden, [number * how["accumulation"] + place], tokenizer.pad_token_id)
            (model(**batch) / how["accumulation"]).backward()
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            norms.append(float(sum((grad**2).sum() for grad in gradients) ** 0.5))
            for grad in gradients:
                scale_in_place(grad, min(1.0, how["max_norm"] / (norms[-1] + 1e-6)))
        optimizer.step(rate)
    np.testing.assert_allclose(norms, how["norm_each_micro_batch"], rtol=1e-8)
    compare_joint(model, golden, "original.after3.")
    foreign = {
        VLMWeights().made_of(name, "huggingface")[0]: weight.numpy() for name, weight in model.named_parameters()
    }
    for name, numbers in foreign.items():
        if f"original.after3.{name}" in golden and ".adapter_block." not in name:
            np.testing.assert_allclose(numbers, golden[f"original.after3.{name}"], rtol=0, atol=DOUBLE)
        if f"original.after3.sum.{name}" in golden:
            found = [numbers.sum(), (numbers**2).sum()]
            np.testing.assert_allclose(found, golden[f"original.after3.sum.{name}"], rtol=1e-8, atol=1e-8)


# -- joining and decoding


@pytest.fixture(scope="module")
def combined(opened):
    path = reference_paths("vlm", "combine_decode_?.json")[0]
    facts, rows = json.loads(path.read_text(encoding="utf-8")), load_file(path.with_suffix(".safetensors"))
    model, tokenizer, _ = opened(path.parent / facts["weights"])
    return facts, rows, model, tokenizer


def with_rows(model, tokenizer, rows: np.ndarray):
    table = model.head.embedding.weight.numpy()
    table[tokenizer.words :] = rows
    model.head.embedding.weight.set_value(table)


def test_joining(combined):
    """Of each task its own rows: logits of words and of these rows are equal to the bit before and after."""
    facts, rows, model, tokenizer = combined
    found = np.array(rows["combined.rows"])
    for task in facts["tasks"]:
        own = [row - tokenizer.words for row in tokenizer.rows_of(task)]
        np.testing.assert_array_equal(found[own], rows[f"single.{task}.rows"][own])
    kept = model.head.embedding.weight.numpy()
    for task, of_task in facts["tasks"].items():
        prompt = of_task["greedy"][0]
        ids, segments = (np.array([prompt[f"prompt_{name}"]]) for name in ("input_ids", "token_type_ids"))
        batch = golden_batch(ids, segments, None, [NUMBERS[task]], tokenizer.pad_token_id)
        logits = []
        for which in (f"single.{task}.rows", "combined.rows"):
            with_rows(model, tokenizer, rows[which])
            logits.append(model(**batch).numpy()[0])
        own = [*range(tokenizer.words), *tokenizer.rows_of(task)]
        assert np.array_equal(logits[0][:, own], logits[1][:, own])
    model.head.embedding.weight.set_value(kept)


def greedy(model, tokenizer, prompts: list[Prompt], most: int) -> list[list[int]]:
    config = GenerationConfig(tgt_length=most + 1, num_beams=1, no_repeat_ngram_size=0, min_tgt_length=1)
    banned = sorted(tokenizer.ids_without_text(tokenizer.vocab_size) - {tokenizer.end_token_id})
    found = dict(generate(model, prompts, config, end_token_id=tokenizer.end_token_id, banned_token_ids=banned))
    texts = [found[place][0].tokens[:most] for place in range(len(prompts))]
    return [[tokenizer.end_token_id if token == tokenizer.vocab_size else token for token in text] for text in texts]


@pytest.mark.parametrize("joined", [False, True])
def test_greedy_outputs(combined, joined):
    """Of all tasks in one batch, from the joined model and from each single one."""
    facts, rows, model, tokenizer = combined
    kept = model.head.embedding.weight.numpy()
    prompts, expected, tasks = [], [], []
    for task, of_task in facts["tasks"].items():
        for one in of_task["greedy"]:
            prompts.append(prompt_of(one["prompt_input_ids"], one["prompt_token_type_ids"], NUMBERS[task]))
            expected.append(one["combined_greedy_masked"])
            tasks.append(task)
    if joined:
        with_rows(model, tokenizer, rows["combined.rows"])
        assert greedy(model, tokenizer, prompts, facts["max_length"]) == expected
    for task in [] if joined else facts["tasks"]:
        with_rows(model, tokenizer, rows[f"single.{task}.rows"])
        own = [place for place, name in enumerate(tasks) if name == task]
        found = greedy(model, tokenizer, [prompts[place] for place in own], facts["max_length"])
        assert found == [expected[place] for place in own]
    model.head.embedding.weight.set_value(kept)


@pytest.mark.parametrize("path", reference_files("vlm/nucleus.json"))
def test_nucleus(path):
    from glm.generation.sampling import keep_likely, log_softmax

    cases = json.loads(path.read_text(encoding="utf-8"))
    edge = np.log([0.5, 0.25, 0.125, 0.125])
    cases += [
        {"logits": edge, "temperature": 1.0, "top_k": 0, "top_p": p, "kept": list(range(n))}
        for p, n in ((0.5, 2), (0.49, 1), (0.75, 3))
    ]
    for case in cases:
        logits = case["logits"] if "logits" in case else np.log(case["logits_are_log_of"])
        scores = log_softmax(np.array([logits]) / case["temperature"])
        likely = keep_likely(scores, top_k=case["top_k"], top_p=case["top_p"], keeps_edge=True)[0]
        kept = np.flatnonzero(np.isfinite(likely))
        assert kept.tolist() == case["kept"]
        if "probabilities" in case:
            shares = np.exp(likely[kept])
            np.testing.assert_allclose(shares / shares.sum(), case["probabilities"], atol=1e-9)


@models
def test_min_length(weights, opened):
    """Where the end is the best first token the best other one comes, at every time the same."""
    model, tokenizer, facts = opened(weights)
    golden, found = tensors_beside(weights), 0
    for task, number in NUMBERS.items():
        ids, segments = (golden[f"{task}.{part}"][0].astype(np.int64) for part in ("input_ids", "token_type_ids"))
        start = int(np.flatnonzero(golden[f"{task}.lm_labels"][0] != -1)[0])
        prompt = prompt_of(ids[:start], segments[:start], number)
        logits = model.prefill([prompt])[0][0]
        logits[tokenizer.end_token_id] = -np.inf
        first = int(logits.argmax())
        texts = [greedy(model, tokenizer, [prompt], 3)[0] for _ in range(2)]
        assert texts[0] == texts[1] and texts[0][0] == (
            tokenizer.end_token_id if first == tokenizer.vocab_size else first
        )
        found += 1
    assert found == len(TASKS)


# -- sizes and files


def test_counts():
    """Of GPT-2 small with the published adapters: section 1 of the specification, by its formula and as counted."""
    widths = {"mt": 300, "summarization": 100, "dialogue": 100, "qa": 300, "nlg": 10}
    shapes = VLMWeights().shapes(VLMConfig(bottlenecks=list(widths.values())).to_dict())
    count = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    L, H = 12, 768
    for task, b in widths.items():
        assert sum(size for name, size in count.items() if f".adapters.{task}." in name) == L * (2 * H * b + b + 3 * H)
    assert sum(count.values()) == 124_439_808 + 15_077_880 + 30 * H


@models
@pytest.mark.parametrize("format", ["huggingface", "huggingface-bin"])
def test_there_and_back(weights, tmp_path, format):
    """Of five tasks, and of one whose file does not say which; `attn.bias` and the unused head are left out."""
    five = golden_folder(weights, tmp_path / "five")
    tensors = load_file(five / "model.safetensors")
    tensors["transformer.h.0.attn.bias"] = np.tri(4, dtype=np.float32)[None, None]
    one = tmp_path / "one"
    shutil.copytree(five, one)
    single = {
        name.replace("mixadapter.0.", ""): part
        for name, part in tensors.items()
        if "mixadapter" not in name or "mixadapter.0." in name
    }
    from safetensors.numpy import save_file

    save_file(tensors, str(five / "model.safetensors"))
    save_file(single, str(one / "model.safetensors"))
    for folder in (five, one):
        import_checkpoint(folder, tmp_path / f"{folder.name}-ours")
        export_checkpoint(tmp_path / f"{folder.name}-ours", tmp_path / f"{folder.name}-theirs", to=format)
        import_checkpoint(tmp_path / f"{folder.name}-theirs", tmp_path / f"{folder.name}-back")
        ours, back = (load_file(tmp_path / f"{folder.name}-{end}" / "model.safetensors") for end in ("ours", "back"))
        assert ours.keys() == back.keys() and all(np.array_equal(ours[name], back[name]) for name in ours)
        given = load_file(folder / "model.safetensors")
        known = {name for name in given if not name.startswith("p_gen") and not name.endswith(".attn.bias")}
        assert len(ours) == len(known)
    adapters = {name.split(".adapters.")[1].split(".")[0] for name in ours if ".adapters." in name}
    assert adapters == {"single"}


# -- perplexity


@pytest.mark.parametrize("path", reference_files("vlm/perplexity.json"))
def test_perplexity(path, opened):
    facts = json.loads(path.read_text(encoding="utf-8"))
    model, tokenizer, _ = opened(path.parent / facts["weights"])
    lines = [json.loads(line) for line in (path.parent / "layouts.jsonl").read_text(encoding="utf-8").splitlines()]
    for task, expected in facts["tasks"].items():
        rows = [line for line in lines if line["task"] == task and line["limits"] == facts["limits"]]
        geometry = VLMGeometry(tokenizer, GeometryOptions("[gMASK]", task=NUMBERS[task]))
        examples = [example_of(geometry, row) for row in rows[: expected["examples"]]]
        totals = []
        for size in (1, 4, 5):
            nll = 0.0
            for start, stop in pairwise([*range(0, len(examples), size), len(examples)]):
                part = [[example] for example in examples[start:stop]]
                batch = geometry.collate(part, max(len(row[0]) for row in part), tokenizer.pad_token_id)
                nll += float(model(**{name: paddle.to_tensor(table) for name, table in batch.items()}, num_items=1))
            totals.append(float(np.exp(nll / sum(example.num_labels for example in examples))))
        np.testing.assert_allclose(totals, expected["perplexity_by_token"], rtol=2e-5)


def example_of(geometry: VLMGeometry, line: dict):
    """The example of a golden layout: its source and target through the geometry."""
    first = next(place for place, label in enumerate(line["lm_labels"]) if label != -1)
    source, span = line["input_ids"][:first], line["input_ids"][first:-1]
    return geometry.example(source, span, tgt_length=len(span) + 1)


@pytest.mark.parametrize("path", reference_files("vlm/layouts.jsonl"))
def test_segments_follow_from_ids(path):
    """All golden layouts: segments and labels from the ids alone."""
    tokenizer = open_tokenizer(path.parent / "tokenizer")
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        geometry = VLMGeometry(tokenizer, GeometryOptions("[gMASK]", task=NUMBERS[line["task"]]))
        example = example_of(geometry, line)
        assert [*example.input_ids, line["input_ids"][-1]] == line["input_ids"]
        assert [*example.segment_ids, line["token_type_ids"][-1]] == line["token_type_ids"]
        assert [-1 if label == -100 else label for label in example.labels] == line["lm_labels"][1:]
        assert reference_root() is not None and reference_json("vlm", "records.json")
