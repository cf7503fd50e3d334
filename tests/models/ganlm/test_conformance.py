"""GanLM against the golden numbers of its original; the checks' numbers are those of section 10 of its fact sheet."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import paddle
import pytest

from glm.checkpoint.safetensors_files import read_safetensors
from glm.evaluation.data_sets import named
from glm.evaluation.protocols import PROTOCOLS
from glm.evaluation.statistics import Pair
from glm.generation.config import GenerationConfig
from glm.generation.search import Decoding, build_decoder
from glm.models.ganlm import FAMILY
from glm.models.ganlm.configuration import ramp
from glm.models.ganlm.geometry import XNLI_CLASSES, GanLMGeometry, Prompt
from glm.models.ganlm.losses import Batch, fairseq_smoothing
from glm.models.ganlm.objectives import corrupted, draw_places, noise_tokens, span_count
from glm.models.ganlm.relative import bucket_of
from glm.models.ganlm.tokenization import EOS, UNK, open_tokenizer
from glm.models.ganlm.weights import GanLMWeights
from glm.models.protocol import IGNORE_INDEX, GeometryOptions
from glm.modules.loss import smoothed_cross_entropy
from glm.training.sampler import EpochBatchSampler, batch_ends
from glm.training.schedule import decay_factor
from models.ganlm.golden import ENDING, PAD, Golden, batch_of, golden_folder, golden_json, goldens

pytestmark = pytest.mark.conformance
GRADIENTS = "ft_grad_norms_"
EXACT, STORED = 1e-9, 1e-6  # of float64, and of what the files keep as float32


def encoded(golden: Golden, model, case: str = "ft"):
    batch = Batch.of(golden.batch(case)["input_ids"], golden.batch(case)["segments"])
    return batch, model.encode(batch)


def foreign_gradients(model) -> dict[str, np.ndarray]:
    """The gradients by the original's names, PyTorch's way round."""
    names, found = GanLMWeights(), {}
    for name, weight in model.named_parameters():
        gradient = weight.grad.numpy()
        gradient = gradient.T if name.endswith(names.linears) else gradient
        foreign = names.made_of(name, "fairseq")
        found |= dict(zip(foreign, np.split(gradient, len(foreign)), strict=True))
    return found


@paddle.no_grad()
def test_check_01_the_encoder_and_on_which_side_padding_stands():
    for golden in goldens():
        model, cases = golden.model(), golden.cases
        sources = cases["ft/src_tokens"]
        _, memory = encoded(golden, model)
        assert np.abs(memory.numpy() - cases["ft/encoder_out"][sources != PAD]).max() < STORED
        right = np.full_like(sources, PAD)  # the original pads sources on the left
        for row, line in zip(right, sources, strict=True):
            row[: (line != PAD).sum()] = line[line != PAD]
        moved = batch_of(right, cases["ft/prev_output_tokens"], cases["ft/target"])
        batch = Batch.of(moved["input_ids"], moved["segments"])
        assert np.array_equal(model.encode(batch).numpy(), memory.numpy())


@paddle.no_grad()
@pytest.mark.parametrize("dtype, close", [("float64", EXACT), ("float32", 5e-5)])
def test_check_02_logits_of_generator_and_discriminator(dtype, close):
    for golden in goldens():
        model, cases = golden.model(dtype), golden.cases
        for case in ("ft", "pre"):
            if f"{case}/generator_logits" not in cases:
                continue
            real = cases[f"{case}/target"] != PAD
            batch, memory = encoded(golden, model, case)
            tables = golden.batch(case)
            logits = model(tables["input_ids"], tables["segments"]).numpy()
            assert np.abs(logits - cases[f"{case}/generator_logits"])[real].max() < close
            x, _ = golden.drawn(case)
            judged = model.judge(paddle.to_tensor(x), batch, memory).numpy()
            assert np.abs(judged - cases[f"{case}/discriminator_logits"][real]).max() < close
        real = cases["ft/target"] != PAD
        batch, memory = encoded(golden, model)
        again = model.generate_from(paddle.to_tensor(cases["ft/p2"][real].astype(np.int64)), batch, memory)
        assert np.abs(model.head.logits(again).numpy() - cases["ft/generator_logits_p2"][real]).max() < close


def record_reading(model, monkeypatch) -> list[np.ndarray]:
    """What the generator will read, each time it does."""
    read, own = [], model.generate_from
    monkeypatch.setattr(model, "generate_from", lambda ids, *rest: read.append(ids.numpy()) or own(ids, *rest))
    return read


@pytest.mark.parametrize("case", ["ft", "pre"])
def test_checks_02_and_05_what_the_generator_reads_the_second_time(case, monkeypatch):
    for golden in goldens():
        model, cases = golden.model(), golden.cases
        if f"{case}/p2" not in cases:
            continue
        read = record_reading(model, monkeypatch)
        model.train()
        model.weights = (1.0, 1.0)
        model(**golden.batch(case), drawn=golden.drawn(case))
        assert np.array_equal(read[1], cases[f"{case}/p2"][cases[f"{case}/target"] != PAD])


def smoothing_in(name: str) -> float:
    """The label smoothing that a case of the fixtures is named after: 0.1 of `ls0.1_w5`."""
    found = re.match(r"ls([0-9.]+)", name)
    return float(found[1]) if found else 0.0


def losses_of(golden: Golden) -> list[tuple[str, dict, float]]:
    """Of each case what the original counted, and its label smoothing."""
    facts = golden.facts
    found = [("ft", losses, smoothing_in(name)) for name, losses in facts["ft_losses"].items()]
    return found + ([("pre", {"w_d": 10.0, "w_i": 1.0, **facts["pre_loss"]}, 0.0)] if "pre_loss" in facts else [])


@pytest.mark.parametrize("dtype, close", [("float64", EXACT), ("float32", 1e-5)])
def test_checks_03_04_05_losses_and_counts(dtype, close):
    for golden in goldens():
        model = golden.model(dtype)
        assert (model.discriminator is None) == bool(golden.options["share_generator_discriminator"])
        for case, want, smoothing in losses_of(golden):
            model.train()
            model.weights = want["w_d"], want["w_i"]
            options = {"label_smoothing": smoothing, "num_items": 1, "drawn": golden.drawn(case)}
            loss = float(model(**golden.batch(case), **options))
            assert loss == pytest.approx(want["total"], rel=close, abs=0)
            terms = model.terms
            for name, own in {"G": "generator", "D": "discriminator", "I": "inconsistency", "n_T": "items"}.items():
                assert terms.get(own, 0) == pytest.approx(want[name], rel=close, abs=0), (golden.name, case, name)
            for name in ("tp", "fp", "tn", "fn", "wrong_judged_original", "right_judged_replaced"):
                assert terms.get(name, 0) == want[name], (golden.name, case, name)
            wanted_n_w = want.get("n_W", golden.facts["ft_n_W"])
            assert terms.get("judged", 0) == (wanted_n_w if any(model.weights) else 0)


def with_facts(beginning: str) -> list[Golden]:
    """The models whose files have a fact of this name; the test is skipped where none has."""
    if not (found := [golden for golden in goldens() if any(name.startswith(beginning) for name in golden.facts)]):
        pytest.skip(f"no model of {golden_folder()} has {beginning}")
    return found


def test_check_06_gradients():
    for golden in with_facts(GRADIENTS):
        facts, model = golden.facts, golden.model()
        key = next(name for name in facts if name.startswith(GRADIENTS))
        case = key.removeprefix(GRADIENTS)
        want = facts["ft_losses"][case]
        model.train()
        model.weights = want["w_d"], want["w_i"]
        model(**golden.batch("ft"), label_smoothing=smoothing_in(case), drawn=golden.drawn("ft")).backward()
        found = foreign_gradients(model)
        norms = facts[key]
        assert set(found) == set(norms)
        for name, norm in norms.items():
            own = float(np.linalg.norm(found[name]))
            if name.endswith("k_proj.bias"):
                assert own < 1e-9, name  # in exact arithmetic it is 0
            else:
                assert own == pytest.approx(norm, rel=1e-6), name
        total = np.sqrt(sum(np.square(gradient).sum() for gradient in found.values()))
        assert total == pytest.approx(facts["ft_grad_norm_all"], rel=1e-6)
        words = found["encoder.discriminator.embed_tokens.weight"]
        for row, norm in facts["ft_grad_embed_rows"].items():
            assert np.linalg.norm(words[int(row)]) == pytest.approx(norm, rel=1e-6), row


def test_check_07_updates_of_two_micro_batches():
    for golden in with_facts("updates"):
        model, plan = golden.model(), golden.facts["updates"]
        model.train()
        model.weights = plan["w_d"], plan["w_i"]
        optimizer = paddle.optimizer.AdamW(
            learning_rate=0.0,
            beta1=plan["betas"][0],
            beta2=plan["betas"][1],
            epsilon=plan["eps"],
            weight_decay=plan["weight_decay"],
            parameters=model.parameters(),
        )
        batches = []
        for number in range(plan["update_freq"]):
            tables = golden.batch(f"update/{number}")
            batches.append((tables, golden.drawn(f"update/{number}")))
        items = sum(int((tables["labels"] >= 0).sum()) for tables, _ in batches)
        names = GanLMWeights()
        for step in plan["steps"]:
            share = decay_factor(
                step["num_updates_before"],
                warmup_steps=plan["warmup_updates"],
                total_steps=0,
                shape="inverse_sqrt",
                decay_ratio=0.0,
            )
            assert share * plan["peak_lr"] == pytest.approx(step["lr"], rel=1e-9, abs=0)
            optimizer.set_lr(step["lr"])
            loss = 0.0
            for tables, drawn in batches:
                part = model(**tables, label_smoothing=plan["label_smoothing"], num_items=items, drawn=drawn)
                part.backward()
                loss += float(part)
            assert items == step["n_T"]
            assert loss == pytest.approx(step["loss"], rel=1e-6)
            norm = np.sqrt(sum(np.square(gradient).sum() for gradient in foreign_gradients(model).values()))
            assert norm == pytest.approx(step["grad_norm"], rel=1e-5)
            optimizer.step()
            optimizer.clear_grad()
            after = {}
            for name, weight in model.named_parameters():
                table = weight.numpy().T if name.endswith(names.linears) else weight.numpy()
                foreign = names.made_of(name, "fairseq")
                after |= dict(zip(foreign, np.split(table, len(foreign)), strict=True))
            for name, want in step["after"].items():
                if not name.endswith("k_proj.bias"):
                    assert np.linalg.norm(after[name]) == pytest.approx(want["norm"], rel=1e-6), name
                    assert after[name].reshape(-1)[:4] == pytest.approx(want["first"], rel=1e-5, abs=1e-6), name


def test_check_08_buckets():
    tables = golden_json("buckets.json")
    distances = np.arange(tables["first"], tables["last"] + 1)
    lists = {name: table for name, table in tables.items() if isinstance(table, list) and len(table) == len(distances)}
    assert lists
    for name, table in lists.items():
        kind, buckets, _ = name.split("_")
        assert bucket_of(distances, int(buckets), both_ways=kind == "bidirectional").tolist() == table, name
    for distance, bucket in tables.get("saturates", {}).items():
        assert bucket_of(np.array([int(distance)]), 32).tolist() == [bucket]


def test_check_09_learning_rate_and_ramps():
    tables = golden_json("schedule.json")
    for row in tables["inverse_sqrt"]:
        if row.get("warmup_init_lr", -1) > 0:
            continue  # the toolkit's warmup starts at 0, fairseq's default
        for done, value in zip(row["num_updates"], row["value"], strict=True):
            options = {"warmup_steps": row["warmup_updates"], "total_steps": 0, "decay_ratio": 0.0}
            rate = row["lr"] * decay_factor(done, shape="inverse_sqrt", **options)
            assert rate == pytest.approx(value, rel=1e-9, abs=0)
    for row in tables["loss_weight_ramp"]:
        options = {"weight": row["weight"], "warmup": row["warmup_steps"], "start": row["start_warmup_steps"]}
        assert [ramp(step, **options) for step in row["update_num"]] == pytest.approx(row["value"], abs=1e-12)


def test_check_12_label_smoothing_in_fairseqs_form():
    random, e = np.random.default_rng(1), 0.1
    states, head = random.normal(0, 1, (7, 5)), random.normal(0, 1, (19, 5))
    labels = random.integers(0, 19, 7)
    logits = states @ head.T
    costs = np.log(np.exp(logits).sum(1, keepdims=True)) - logits
    wanted = (1 - e - e / 18) * costs[np.arange(7), labels].sum() + e / 18 * costs.sum()
    own = smoothed_cross_entropy(
        paddle.to_tensor(states),
        paddle.to_tensor(head),
        paddle.to_tensor(labels),
        label_smoothing=fairseq_smoothing(e, 19),
        num_items=1,
    )
    assert float(own) == pytest.approx(wanted, abs=1e-12)


def test_check_15_tokenizer():
    folder = golden_folder()
    tokenizer, facts = open_tokenizer(folder), golden_json("tokenizer.json")
    assert tokenizer.mask_token_id == facts["mask"]
    assert (tokenizer.sentinel_ids[0], tokenizer.sentinel_ids[-1]) == (facts["mask_0"], facts["mask_99"])
    assert tokenizer.vocab_size == facts["before_padding"]
    for path in sorted(folder.glob("*.vectors.jsonl")):
        vectors = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert tokenizer.encode_text([vector["text"] for vector in vectors]) == [vector["ids"] for vector in vectors]
        for vector in vectors:
            assert tokenizer.encode_text(vector["text"]) == vector["ids"]
            if tokenizer.unknown_token_id not in vector["ids"]:
                assert tokenizer.decode_ids(vector["ids"]) == vector["decoded"]
                assert [tokenizer.token_of(number) for number in vector["ids"]] == vector["pieces"]


def test_check_16_layouts_of_pairs():
    tokenizer, layouts = open_tokenizer(golden_folder()), golden_json("layouts.json")
    geometry = GanLMGeometry(tokenizer, GeometryOptions("[gMASK]"))
    worked = layouts["worked"]
    cases = [
        (
            worked["source"],
            worked["target"],
            None,
            *(worked[name] for name in ("src_tokens", "prev_output_tokens", "target_ids")),
        )
    ]
    for group in layouts["pair"]:
        for row, number in enumerate(group["order"]):
            arrays = [group[name][row] for name in ("src_tokens", "prev_output_tokens", "target")]
            ids = [[token for token in array if token != PAD] for array in arrays]
            cases.append(
                (group["source_texts"][number], group["target_texts"][number], group["max_source_positions"], *ids)
            )
    for source, target, most, source_ids, inputs, labels in cases:
        before = tokenizer.encode_text(source)[: most - 1 if most else None]
        example = geometry.example(geometry.lay_out(before, []), tokenizer.encode_text(target), tgt_length=512)
        assert example.source_ids.tolist() == source_ids
        assert example.target_ids.tolist() == inputs
        assert example.labels.tolist() == labels


def test_check_10_batches():
    for case in golden_json("batching.json"):
        sources, targets = np.array(case["source_lengths"]), np.array(case["target_lengths"])
        widths = FAMILY.row_width(sources, targets)
        order = np.lexsort([targets, sources])
        options = {"max_tokens": case["max_tokens"], "most": case["max_sentences"], "multiple": case["multiple"]}
        ends = batch_ends(widths[order], **options)
        assert [part.tolist() for part in np.split(order, ends[:-1])] == case["batches"]
        if case["multiple"] > 1:  # the sampler itself: batches in another order, ties in any
            sampler = EpochBatchSampler(
                widths,
                max_tokens=case["max_tokens"],
                batch_size=case["max_sentences"],
                multiple=case["multiple"],
                order_by=(sources, targets),
            )
            found = [batch for (batch,) in sampler.rounds(0)]
            assert sorted(index for batch in found for index in batch) == list(range(len(sources)))
            assert sorted(map(len, found)) == sorted(map(len, case["batches"]))
        elif case["max_tokens"]:  # the toolkit's own grouping: within max_tokens, each record once
            found = [batch for (batch,) in EpochBatchSampler(widths, max_tokens=case["max_tokens"]).rounds(0)]
            assert sorted(index for batch in found for index in batch) == list(range(len(sources)))
            assert all(len(batch) * widths[batch].max() <= case["max_tokens"] for batch in found)


class UnknownPenalty:
    """fairseq's unk_penalty, which the toolkit has no option for: it never generates `<unk>`."""

    def __init__(self, penalty: float):
        self.penalty = penalty

    def __call__(self, generated, scores):
        scores[:, UNK] -= self.penalty


@paddle.no_grad()
@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_check_11_beam_search(batch_size):
    """fairseq has no cache; the tree of slots gives the same numbers, in batches of any size."""
    facts = golden_json("beam.json")
    name = facts["model"].split(ENDING)[0]
    (golden,) = [golden for golden in goldens() if golden.name == name]
    model, names = golden.model(), GanLMWeights()
    parameters = dict(model.named_parameters())
    for foreign, numbers in facts.get("override", {}).items():
        parameters[names.ours(foreign)[0]].set_value(np.array(numbers))
    for result in facts["results"]:
        settings, most = result["settings"], result["max_decoder_positions"]
        decoder = fairseq_decoder(model, settings, most)
        prompts = [Prompt(np.array(source), np.array([EOS])) for source in facts["sources"]]
        wanted = dict(enumerate(result["hypotheses"]))
        alone = result.get("alone_differs") or {}
        wanted |= {int(number): lists for number, lists in dict(alone).items()}
        searches = [
            decoder.search(prompt, number=number, record_id=number, config=decoder_config(settings, prompt, most))
            for number, prompt in enumerate(prompts)
        ]
        decoding = Decoding(decoder)
        for start in range(0, len(searches), batch_size):
            decoding.join(searches[start : start + batch_size])
            while decoding.unfinished:
                decoding.step()
        for search in searches:
            assert_hypotheses(search.found, wanted[search.number])


def decoder_config(settings: dict, prompt: Prompt, positions: int) -> GenerationConfig:
    """fairseq's settings as ours; its length is that of the source itself, not of the padded batch, and leaves one of
    the decoder's positions free."""
    beams = settings["beam_size"]
    most = int(settings.get("max_len_a", 0) * len(prompt.source_ids) + settings.get("max_len_b", 200))
    most = min(most, positions - 1)
    return GenerationConfig(
        search_rules="fairseq",
        tgt_length=most + 1,
        min_tgt_length=settings.get("min_len", 1),
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=settings.get("len_penalty", 1.0) if settings.get("normalize_scores", True) else 0.0,
        no_repeat_ngram_size=settings.get("no_repeat_ngram_size", 0),
        temperature=settings.get("temperature", 1.0),
    )


def fairseq_decoder(model, settings: dict, positions: int):
    config = decoder_config(settings, Prompt(np.zeros(1, np.int64), np.array([EOS])), positions)
    decoder = build_decoder(model, config, end_token_id=EOS, banned_token_ids=[PAD])
    if penalty := settings.get("unk_penalty"):
        decoder.processors.insert(0, UnknownPenalty(penalty))
    return decoder


def assert_hypotheses(found, wanted) -> None:
    """Tokens equal, scores to 1e-9; of equal scores the order is not told."""
    assert len(found) == len(wanted)
    for own, other in zip(found, wanted, strict=True):
        assert [*own.tokens, EOS] == other["tokens"]
        assert own.score == pytest.approx(other["score"], abs=EXACT)
        assert list(own.token_scores) == pytest.approx(other["positional_scores"], abs=EXACT)


@paddle.no_grad()
def test_check_19_validation_is_the_generators_loss_alone():
    for golden in goldens():
        model = golden.model()
        for case, want in golden.facts["ft_losses"].items():
            for weights in ((0.0, 0.0), (10.0, 1.0)):
                model.weights = weights
                loss = float(model(**golden.batch("ft"), label_smoothing=smoothing_in(case)))
                assert loss == pytest.approx(want["G"] / want["n_T"], abs=EXACT)


def test_check_17_span_corruption_for_given_places():
    facts = golden_json("corruption.json")
    sentinels = open_tokenizer(golden_folder()).sentinel_ids
    for case in facts["cases"]:
        document = case["doc"]
        assert noise_tokens(len(document)) == case["noise_tokens"]
        assert span_count(case["noise_tokens"]) == case["spans"]
        source, spans = corrupted(document, case["cuts"], sorted(case["inserts"]), sentinels)
        assert source == case["source"]
        assert spans == case["target"]
        assert (spans[:-1], spans[1:]) == (case["prev_output_tokens"], case["labels"])


def test_check_17_span_corruption_of_10000_draws():
    facts, random = golden_json("corruption.json"), np.random.default_rng(5)
    for wanted in facts["statistics"]:
        L, draws = wanted["length"], wanted["draws"]
        masked, lengths, spans = np.zeros(L), Counter(), 0
        for _ in range(draws):
            cuts, inserts = draw_places(L, random)
            sizes = np.diff([0, *cuts, noise_tokens(L)])
            lengths.update(sizes.tolist())
            spans += len(inserts)
            before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            for start, size in zip(inserts + before, sizes, strict=True):
                masked[start : start + size] += 1
        assert masked.sum() / draws == wanted["masked_per_draw"]
        assert spans / draws == wanted["spans_per_draw"]
        shares = masked / draws
        assert shares[-1] == 0.0
        for place, name in ((0, "first_token_masked"), (L // 2, "middle_token_masked")):
            share = wanted[name]
            error = np.sqrt(2 * share * (1 - share) / draws)  # both shares are of so many draws
            assert shares[place] == pytest.approx(share, abs=4 * error), (L, name)
        for size, count in wanted["span_length_counts"].items():
            assert abs(lengths[int(size)] - count) <= 4 * np.sqrt(lengths[int(size)] + count), (L, size)


def started(golden: Golden, start: str, **options):
    """The model that starts from parts of the golden one."""
    names = GanLMWeights()
    config = names.started(golden.options, start)
    return golden.model(rename=lambda name: names.at_start(name, golden.options, start), **{**config, **options})


def first_labelled(sources: np.ndarray, inputs: np.ndarray) -> dict[str, paddle.Tensor]:
    """A batch in which the decoder's first position has a label."""
    tables = batch_of(sources, inputs, inputs)
    labels = np.full(tables["labels"].shape, IGNORE_INDEX)
    labels[np.arange(len(labels)), tables["segments"].numpy()[:, 0, 0]] = 0
    return tables | {"labels": paddle.to_tensor(labels)}


@paddle.no_grad()
@pytest.mark.parametrize("start", ["discriminator", "generator", "both"])
def test_check_13_classes_of_pairs(start):
    for golden in goldens():
        cases = golden.cases
        if f"xnli/{start}/logits" not in cases:
            continue
        classes = cases[f"xnli/{start}/logits"].shape[1]
        head = {name.removeprefix("xnli/head/"): table for name, table in cases.items() if "xnli/head/" in name}
        model = started(golden, start, classes=classes, extra=head)
        sources, inputs = cases["xnli/src_tokens"], cases["xnli/prev_output_tokens"]
        logits = model.classify(**first_labelled(sources, inputs)).numpy()
        assert np.abs(logits - cases[f"xnli/{start}/logits"]).max() < EXACT
        facts, labels = golden.facts[f"xnli_{start}"], cases["xnli/labels"]
        costs = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
        assert costs.sum() == pytest.approx(facts["loss_sum"], rel=1e-9)
        assert (logits.argmax(1) == labels).sum() == facts["ncorrect"]
        changed = inputs.copy()
        lasts = (inputs != PAD).sum(1) - 1
        changed[np.arange(len(changed)), lasts] = 5 + changed[np.arange(len(changed)), lasts] % 7
        moved = np.abs(model.classify(**first_labelled(sources, changed)).numpy() - logits).max(1)
        assert (moved > 1e-6).all() if start == "discriminator" else (moved == 0).all()


@paddle.no_grad()
def test_check_14_what_each_start_loads():
    facts, names = golden_json("starts.json"), GanLMWeights()
    golden = next((golden for golden in goldens() if not golden.options["share_generator_discriminator"]), None)
    if golden is None:
        pytest.skip(f"in all models of {golden_folder()} generator and discriminator share layers")
    tensors = read_safetensors(golden.weights)
    checked = 0
    for case, said in facts.items():
        task, _, start = case.partition("/")
        if task not in ("seq2seq_generation", "xnli") or not start:
            continue
        dropped = tuple(f"{prefix}." for prefix in said["dropped_prefixes"])
        kept = {name for name in tensors if names.at_start(names.ours(name)[0], golden.options, start)}
        # The original drops the discriminator's names and lets its layers in by another door: see the start's logits.
        wanted = {name for name in tensors if not name.startswith(dropped)}
        if start == "discriminator":
            layers = {
                name for name in tensors if name.startswith("decoder.discriminator.") and "output_pro" not in name
            }
            wanted = {name for name in tensors if not name.startswith("decoder.")} | layers
        assert kept == wanted, case
        for name in said["cut"]:
            assert names.ours(name)[0].endswith(names.resizable)
        checked += 1
    assert checked
    for golden in goldens():
        cases = golden.cases
        if "start/discriminator/logits" in cases:
            model, tables = started(golden, "discriminator"), golden.batch("ft")
            logits = model(tables["input_ids"], tables["segments"]).numpy()
            real = cases["ft/target"] != PAD
            assert np.abs(logits - cases["start/discriminator/logits"])[real].max() < STORED * 100
            assert np.abs(logits - cases["start/discriminator/logits"])[real].mean() < STORED
        logits = started(golden, "generator")(
            *(golden.batch("ft")[name] for name in ("input_ids", "segments"))
        ).numpy()
        real = cases["ft/target"] != PAD
        assert np.abs(logits - cases["ft/generator_logits"])[real].max() < EXACT


def test_check_16_layouts_of_xnli():
    tokenizer, layouts = open_tokenizer(golden_folder()), golden_json("layouts.json")
    worked = layouts["worked"]["xnli"]
    cases = [(worked["premise"], worked["hypothesis"], worked["src_tokens"], worked["prev_output_tokens"], None)]
    found = layouts["xnli"]
    for group in found if isinstance(found, list) else [found]:
        for number, row in enumerate(group["rows"]):
            arrays = [
                [token for token in group[name][number] if token != PAD]
                for name in ("src_tokens", "prev_output_tokens")
            ]
            cases.append((row["premise"], row["hypothesis"], *arrays, (row["label"], group["labels"][number])))
    geometry = FAMILY.geometry(tokenizer, GeometryOptions("[gMASK]"))
    for premise, hypothesis, source, inputs, label in cases:
        example, place = geometry.pair(tokenizer.encode_text(premise), tokenizer.encode_text(hypothesis), "start")
        assert example.source_ids.tolist() == source and example.target_ids.tolist() == inputs
        assert place == len(source)  # of the decoder's first token in the row
        if label:
            assert XNLI_CLASSES.index(label[0]) == label[1]


def test_the_best_epoch_of_many_languages_is_that_of_the_best_mean():
    """By the figure that `--metric_for_best_model accuracy` looks at; of equal ones the first."""
    facts = golden_json("xnli_selection.json")

    def mean(accuracies: list[float]) -> float:
        sets = zip(facts["languages"], accuracies, strict=True)
        return named({language: {"accuracy": value} for language, value in sets})["accuracy"]

    best = int(np.argmax([mean(row) for row in facts["dev"]]))
    assert best + 1 == facts["best_epoch_by_mean_dev"]
    assert facts["test"][best] == facts["reported_test"]
    assert mean(facts["test"][best]) == pytest.approx(facts["reported_test_mean"])


@pytest.mark.parametrize("system", ["convs2s", "lead"])
def test_check_20_xsum_predictions(system, real_data):
    """Published, by the script itself, and by a package that copies it."""
    facts = golden_json("rouge.json")
    folder = Path(real_data) / "data" / "xsum_predictions"
    if not (folder / f"{system}.txt").is_file() or system not in facts["systems"]:
        pytest.skip(f"{folder} has no {system}.txt")
    texts = [(folder / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in (system, "gold")]
    found = PROTOCOLS["rouge-1.5.5"]([Pair(prediction, (gold,)) for prediction, gold in zip(*texts, strict=True)])
    tools = facts["systems"][system]
    published = tools["published ROUGE-1.5.5"]["f-score"]
    package = next(tools[name] for name in tools if name.endswith("weight_factor 1.0"))
    for kind in "12l":
        own = found.figures[f"rouge-{kind}"]
        assert own == pytest.approx(published[f"rouge{kind.upper()}"], abs=0.02)
        assert own == pytest.approx(package[f"rouge-{kind}"]["f"], abs=0.02)
    assert "rouge-1.5.5" in found.signature and "wordnet" in found.signature
