"""What the originals' own code gave: logits, losses, gradients, layouts, ids and decoded texts."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from glm.commands import scaling
from glm.generation.config import GenerationConfig
from glm.generation.sampling import draw_apart, keep_likely, log_softmax
from glm.generation.search import generate
from glm.models.unilm.geometry import (
    BIDIRECTIONAL,
    RIGHT_TO_LEFT,
    SEQ2SEQ,
    TARGET_SEGMENT,
    TASK_SEGMENTS,
    TokenMasker,
    attention_mask,
    chosen_count,
    cut_lengths,
    in_task,
    pair_in_task,
)
from glm.models.unilm.objectives import PIECE, Mixture
from glm.models.unilm.tokenization import WordPieceTokenizer
from glm.modules.decoding import prepare_decoding
from glm.prediction.paraphrase_file import write_paraphrases
from glm.training.schedule import decay_factor
from tools.reference_files import reference_files
from tools.unilm_tools import (
    SPECIAL,
    geometry_of,
    golden_cases,
    golden_model,
    golden_rows,
    hidden_states,
    in_text_order,
    row_places,
    tensors,
    write_vocabulary,
)

pytestmark = pytest.mark.conformance
MODELS = [item for item in reference_files("unilm/*.json")]


def _is_model(path: Path | None) -> bool:
    return path is None or "gradient_norms" in json.loads(path.read_text(encoding="utf-8"))


models = pytest.mark.parametrize("case", [item for item in MODELS if _is_model(item.values[0])])


class Golden:
    """A golden model with its cases in one batch."""

    def __init__(self, case: Path, folder: Path):
        self.case = case
        self.facts = json.loads(case.read_text(encoding="utf-8"))
        self.cases = golden_cases(case)
        self.model, self.tokenizer = golden_model(case, folder)
        self.rows = golden_rows(self.cases)
        self.geometry = geometry_of(self.tokenizer)

    def batch(self, width: int | None = None, rows=None) -> dict[str, np.ndarray]:
        rows = self.rows if rows is None else rows
        width = width or self.cases["input_ids"].shape[1]
        return self.geometry.collate([[row] for row in rows], width, self.tokenizer.pad_token_id)

    def loss(self, rows=None, smoothing: float = 0.0) -> paddle.Tensor:
        return self.model(**tensors(self.batch(rows=rows)), label_smoothing=smoothing)

    def logits(self, width: int | None = None) -> np.ndarray:
        batch = tensors(self.batch(width))
        return self.model(**{name: batch[name] for name in batch if name not in ("labels", "order")}).numpy()


@pytest.fixture
def golden(case, tmp_path) -> Golden:
    return Golden(case, tmp_path / "original")


@models
def test_1_logits_and_hidden_states(golden):
    """Of all four tasks: at the chosen positions within 2e-5 of float64, elsewhere of what float32 keeps."""
    cases, logits = golden.cases, golden.logits()
    ends = hidden_states(golden.model, golden.batch())
    start = 0
    for number, row in enumerate(golden.rows):
        used = cases["masked_weights"][number] != 0
        places = row_places(row, cases["masked_pos"][number][used])
        np.testing.assert_allclose(
            logits[number, places], cases["logits_masked"][number][used], rtol=0, atol=2e-5, err_msg=f"record {number}"
        )
        np.testing.assert_allclose(
            in_text_order(row, logits[number]), cases["logits_row"][number][: len(row)], rtol=0, atol=4e-5
        )
        for name, states in (("hidden_first", ends[0]), ("hidden_last", ends[-1])):
            found = in_text_order(row, states[start : start + len(row)])
            np.testing.assert_allclose(found, cases[name][number][: len(row)], rtol=0, atol=2e-5)
        start += len(row)


@models
def test_2_losses(golden):
    """Of the batch with each label smoothing of the file, and of each record where it has it; of sentence order."""
    cases, model = golden.cases, golden.model
    head = model.sentence_order
    assert golden.facts["mlm_loss"]
    for name, expected in golden.facts["mlm_loss"].items():
        smoothing, model.sentence_order = float(name), None
        assert float(golden.loss(smoothing=smoothing)) == pytest.approx(expected, abs=1e-5)
        for number, each in enumerate(cases.get(f"mlm_loss_each.ls{name}", ())):
            assert float(golden.loss([golden.rows[number]], smoothing)) == pytest.approx(float(each), abs=1e-5)
        model.sentence_order = head
        total = float(golden.loss(smoothing=smoothing))
        assert total - expected == pytest.approx(golden.facts["sop_loss"], abs=2e-5)
        assert float(model.terms["order_loss"]) == pytest.approx(golden.facts["sop_loss"], abs=1e-5)


@models
def test_3_gradients(golden):
    """The norm of each, and of all, of the file's objective: with sentence order where it lists that head."""
    norms = golden.facts["gradient_norms"]
    if not any("seq_relationship" in name for name in norms):
        golden.model.sentence_order = None
    golden.loss().backward()
    names = golden.model.config
    found = _foreign_gradients(golden.model)
    assert found.keys() == norms.keys(), names
    for name, norm in norms.items():
        assert np.linalg.norm(found[name]) == pytest.approx(norm, rel=1e-4, abs=1e-6), name
    total = np.sqrt(sum(np.linalg.norm(gradient) ** 2 for gradient in found.values()))
    assert total == pytest.approx(golden.facts["gradient_norm_total"], rel=1e-4)


def _foreign_gradients(model) -> dict[str, np.ndarray]:
    """By the original's names; queries, keys and values apart."""
    from glm.models.unilm import FAMILY

    found = {}
    for name, weight in model.named_parameters():
        if weight.grad is None:
            continue
        names = FAMILY.weights.made_of(name, "huggingface")
        found |= dict(zip(names, np.split(weight.grad.numpy(), len(names), axis=-1), strict=True))
    return found


@models
def test_4_a_batch_without_bidirectional_records(golden):
    rows = [row for row in golden.rows if row.task != BIDIRECTIONAL]
    if not rows:
        pytest.skip(f"all records of {golden.case.name} are bidirectional")
    total = float(golden.loss(rows))
    assert float(golden.model.terms["order_loss"]) == 0.0
    assert total == float(golden.model.terms["mlm_loss"])


@models
def test_6_more_padding_moves_no_logits(golden):
    width = golden.cases["input_ids"].shape[1]
    narrow, wide = golden.logits(), golden.logits(width + 16)
    for number, row in enumerate(golden.rows):
        np.testing.assert_allclose(wide[number, : len(row)], narrow[number, : len(row)], rtol=0, atol=1e-6)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def files(pattern: str):
    """A parametrization by the files that match; see `reference_files`."""
    return pytest.mark.parametrize("path", reference_files(f"unilm/{pattern}"))


@pytest.fixture
def vocabulary(path) -> Path:
    """The vocabulary that a file names."""
    return beside(path, read_json(path)["vocab"])


def beside(path: Path, name: str) -> Path:
    """A vocabulary beside a golden file, or among the tokenizers of the real data."""
    places = [path.parent / name, path.parents[2] / "tokenizers" / name]
    if real := os.environ.get("GLM_REAL_DATA"):
        places.append(Path(real) / "tokenizers" / name)
    for place in places:
        if place.is_file():
            return place
    pytest.skip(f"no {name} beside {path.name}, nor among the tokenizers of GLM_REAL_DATA")


def word_pieces(vocabulary: Path, *, lowercase: bool = True) -> WordPieceTokenizer:
    return WordPieceTokenizer(vocabulary, lowercase=lowercase)


@files("wordpiece*.json")
@pytest.mark.parametrize("cased", [False, True], ids=["lower-cased", "cased"])
def test_7_wordpiece(path, vocabulary, cased):
    tokenizer = word_pieces(vocabulary, lowercase=not cased)
    vectors = read_json(path)["vectors"]
    assert vectors
    for vector, ids in zip(vectors, tokenizer.encode_text([vector["text"] for vector in vectors]), strict=True):
        assert [tokenizer.token_of(number) for number in ids] == vector["tokens_cased" if cased else "tokens"]
        if not cased:
            assert ids == vector["ids"] == tokenizer.encode_text(vector["text"])


def laid_out(tokenizer: WordPieceTokenizer, example: dict, settings: dict, random=None):
    """A training example of a pair of the file, cut as a pair."""
    options = {name: settings[name] for name in ("mask_prob", "max_pred", "max_seq_length")}
    geometry = geometry_of(tokenizer, **options)
    source = geometry.lay_out(tokenizer.encode_text(example["source"]), [])
    span = tokenizer.encode_text(example["target"])
    return geometry, source, span, geometry.example(source, span, tgt_length=512, random=random)


def layout_tokenizer(path: Path, vocabulary: Path) -> WordPieceTokenizer:
    """As the file of layouts says: whether it lower-cases."""
    return word_pieces(vocabulary, lowercase=read_json(path)["do_lower_case"])


@files("layout*.json")
def test_8_pairs(path, vocabulary):
    """Tokens and their cut, parts, number of chosen positions; who sees whom by three rows of section 3."""
    tokenizer, count = layout_tokenizer(path, vocabulary), 0
    for settings in read_json(path)["seq2seq"]:
        for expected in settings["examples"]:
            geometry, source, span, example = laid_out(
                tokenizer, expected, settings, random=np.random.default_rng(count)
            )
            clean = np.where(example.labels == -100, example.input_ids, example.labels)
            assert clean.tolist() == expected["ids"]
            assert [tokenizer.token_of(number) for number in clean] == expected["tokens"]
            assert example.parts == (expected["source_part"], expected["length"] - expected["source_part"], 0)
            assert example.num_labels == expected["n_pred"]
            assert example.segment_ids.tolist() == [4] * example.parts[0] + [5] * example.parts[1]
            assert example.position_ids.tolist() == list(range(expected["length"]))
            sizes = geometry.sizes(np.array([len(source)]), np.array([len(span)]), tgt_length=512)
            assert [int(table[0]) for table in sizes] == [len(example), example.num_labels]
            count += 1
    assert count


@files("layout*.json")
def test_8_given_draws_give_the_originals_inputs(path, vocabulary, monkeypatch):
    """With its chosen positions and replacements for ours."""
    tokenizer = layout_tokenizer(path, vocabulary)
    for settings in read_json(path)["seq2seq"]:
        for expected in settings["examples"]:
            draw = expected["one_draw"]
            places = np.array(draw["masked_pos"])
            replaced = np.array(draw["input_ids"])[places]
            monkeypatch.setattr(TokenMasker, "draw", lambda self, ids, random, replaced=replaced: replaced)

            class Chosen:
                def choice(self, tokens, count, replace, places=places, start=expected["source_part"]):
                    assert count == len(places) and (places >= start).all() and (places < start + tokens).all()
                    return places - start

            *_, example = laid_out(tokenizer, expected, settings, random=Chosen())
            assert example.input_ids.tolist() == draw["input_ids"]
            assert example.labels[places].tolist() == draw["masked_ids"]
            assert (np.delete(example.labels, places) == -100).all()


@files("layout*.json")
def test_8_rows_of_decoding(path, vocabulary):
    """The source's cut, its ids and segments, positions that go on behind the unpadded source."""
    tokenizer = layout_tokenizer(path, vocabulary)
    geometry = geometry_of(tokenizer)
    for settings in read_json(path)["decoding"]:
        most = settings["max_seq_length"] - 2 - settings["max_tgt_length"]
        for expected in settings["batch"]:
            ids = [number for number in expected["input_ids"] if number != tokenizer.pad_token_id]
            prompt = geometry.prompt(geometry.lay_out(tokenizer.encode_text(expected["source"])[:most], []))
            assert prompt.input_ids.tolist() == ids
            width, positions = len(expected["input_ids"]), expected["position_ids"]
            assert positions[: len(ids)] == list(range(len(prompt)))
            assert positions[width:] == [prompt.step_position(step) for step in range(len(positions) - width)]
            assert prompt.segment_ids.tolist() == expected["segment_ids"][: len(ids)]
            assert {TARGET_SEGMENT} == set(expected["segment_ids"][width:])


@files("layout*.json")
def test_8_rows_of_pretraining(path, vocabulary):
    """Ids, segments and who sees whom of all four tasks."""
    tokenizer = layout_tokenizer(path, vocabulary)
    for settings in read_json(path)["pretraining"]:
        for expected in settings["examples"]:
            a, b = (tokenizer.encode_text(expected[part]) for part in ("a", "b"))
            if expected["sop_label"] == 0:
                a, b = b, a
            special = 2 if expected["task_idx"] in TASK_SEGMENTS else 3
            lengths = cut_lengths(len(a), len(b), settings["max_seq_length"] - special)
            a, b = a[: lengths[0]], b[: lengths[1]]
            counted = len(b) if expected["task_idx"] == SEQ2SEQ else len(a) + len(b)
            assert chosen_count(counted, settings["mask_prob"], settings["max_pred"]) == expected["n_pred"]
            example = pair_in_task(tokenizer, expected["task_idx"], a, b)
            ids, segments = (in_text_order(example, part) for part in (example.input_ids, example.segment_ids))
            assert ids.tolist() == expected["ids"] and segments.tolist() == expected["segment_ids"]
            sees = attention_mask(*example.parts)
            if example.task == RIGHT_TO_LEFT:
                sees = sees[::-1, ::-1]
            L = len(example)
            rows = ["".join("01"[int(seen)] for seen in sees[row]) for row in (0, L // 2, L - 1)]
            assert rows == expected["mask_rows_first_middle_last"]


def model_of(path: Path, *, words: int) -> Path:
    """The plain model that a file of pseudo-masked pairs, which names none, was made with: the one of its number, or
    else the only one of so many words."""
    plain = [case for case in sorted(path.parent.glob("plain*.json")) if _is_model(case)]
    named = path.with_name(path.name.replace("pseudo", "plain")).with_suffix(".json")
    fitting = [case for case in plain if read_json(case)["config"]["vocab_size"] == words]
    if named in fitting:
        return named
    if len(fitting) != 1:
        pytest.skip(f"{path.name}: {len(fitting)} plain models beside it have {words} words, and none its number")
    return fitting[0]


@files("pseudo*.safetensors")
def test_14_pseudo_masked_objective(path, tmp_path):
    """Logits and losses of the golden pairs; the loss is that of the summed scores, which steps find too."""
    golden = load_file(path)
    case = model_of(path, words=golden["logits"].shape[-1])
    model, tokenizer = golden_model(case, tmp_path / "original")
    geometry, rows = geometry_of(tokenizer, objective="pseudo_masked"), []
    targets = golden["target_mask"].astype(bool)
    T = targets.shape[1]
    S = golden["input_ids"].shape[1] - 2 * T
    sources = []
    for number, ids in enumerate(golden["input_ids"]):
        seen = golden["attention_mask"][number]
        source = ids[:S][seen[: S + T, :S].any(axis=0)]
        target = ids[S : S + T][targets[number]]
        assert target[-1] == tokenizer.sep_token_id
        sources.append((source, target))
        rows.append(geometry.example(source.tolist(), target[:-1].tolist(), tgt_length=512))
    batch = geometry.collate([[row] for row in rows], max(map(len, rows)) + 3, tokenizer.pad_token_id)
    logits = model(**tensors({name: batch[name] for name in batch if name not in ("labels", "order")})).numpy()
    for number, row in enumerate(rows):
        S_own, T_own, _ = row.parts
        found = logits[number, S_own + T_own : S_own + 2 * T_own]
        np.testing.assert_allclose(found, golden["logits"][number][targets[number]], rtol=0, atol=2e-5)
    losses = {float(name.removeprefix("loss.ls")): golden[name] for name in golden if name.startswith("loss.ls")}
    assert losses
    for smoothing, expected in losses.items():
        loss = float(model(**tensors(batch), label_smoothing=smoothing))
        assert loss == pytest.approx(float(expected[0]), abs=1e-5)
        if not smoothing:
            assert loss * targets.sum() == pytest.approx(-golden["sum_log_prob"].sum(), abs=5e-4)
    for (source, target), total in zip(sources, golden["sum_log_prob"], strict=True):
        assert stepwise_score(model, geometry, source, target) == pytest.approx(float(total), abs=5e-5)


def stepwise_score(model, geometry, source, target) -> float:
    """The summed log-probability of a target, by prefill and steps."""
    logits, cache = model.prefill([geometry.prompt(source.tolist())])
    total = 0.0
    for step, token in enumerate(target):
        row = logits.reshape(-1).astype("float64")
        total += row[token] - row.max() - np.log(np.exp(row - row.max()).sum())
        if step + 1 < len(target):
            logits = model.step(np.array([[token]]), np.array([step]), cache)
    return float(total)


class Decoded:
    """A golden model that decodes the sources of a file."""

    def __init__(self, path: Path, folder: Path, *, prepared: bool = False):
        self.facts = read_json(path)
        self.model, self.tokenizer = golden_model(path.with_name(f"{self.facts['model']}.json"), folder)
        if prepared:
            prepare_decoding(self.model, "float32", "cpu")
        self.geometry = geometry_of(self.tokenizer)
        self.prompts = [self.geometry.prompt(self.geometry.lay_out(ids, [])) for ids in self.facts["source_ids"]]

    def config(self, settings: dict, **options) -> GenerationConfig:
        settings = {name: value for name, value in settings.items() if name != "ignore_ids"}
        settings["tgt_length"] = settings.pop("max_tgt_length")
        settings["num_return_sequences"] = settings["num_beams"]
        return GenerationConfig(**{**settings, **options})

    def outputs(self, case: dict, *, batch_size: int = 6, prompts=None, **options) -> dict[int, list]:
        return dict(
            generate(
                self.model,
                self.prompts if prompts is None else prompts,
                self.config(case["settings"], **options),
                end_token_id=self.tokenizer.end_token_id,
                ignored_token_ids=case["settings"]["ignore_ids"],
                batch_size=batch_size,
            )
        )

    def assert_golden(self, case: dict, found: dict[int, list], *, sources=None) -> None:
        for number, expected in enumerate(case["outputs"]):
            if sources is not None and number not in sources:
                continue
            hypotheses = found[number]
            assert len(hypotheses) == len(expected), case["settings"]
            for hypothesis, golden in zip(hypotheses, expected, strict=True):
                ended = golden["ids"][-1:] == [self.tokenizer.end_token_id]
                assert [*hypothesis.tokens] == golden["ids"][: len(golden["ids"]) - ended], case["settings"]
                assert len(hypothesis.token_scores) == len(golden["ids"])
                assert hypothesis.score == pytest.approx(golden["score"], abs=5e-5)


@files("decode*.json")
@pytest.mark.parametrize("batch_size", [6, 1])
@pytest.mark.parametrize("prepared", [False, True], ids=["as trained", "arranged"])
def test_12_decoding(path, tmp_path, batch_size, prepared):
    """Every output of every setting, in one batch and one by one; so the rule of the model is UniLM's by itself."""
    decoded = Decoded(path, tmp_path / "original", prepared=prepared)
    for case in decoded.facts["cases"]:
        decoded.assert_golden(case, decoded.outputs(case, batch_size=batch_size))


@files("decode*.json")
def test_12_beside_a_longer_source(path, tmp_path):
    """With a source at least twice as long in the batch, which pads the others."""
    decoded = Decoded(path, tmp_path / "original")
    longest = max(decoded.facts["source_ids"], key=len)
    room = (
        decoded.model.config.max_position_embeddings
        - 2
        - max(case["settings"]["max_tgt_length"] for case in decoded.facts["cases"])
    )
    longer = decoded.geometry.prompt(decoded.geometry.lay_out((longest * 3)[:room], []))
    for case in decoded.facts["cases"]:
        found = decoded.outputs(case, batch_size=7, prompts=[*decoded.prompts, longer])
        decoded.assert_golden(case, found)


@files("decode*.json")
def test_12_cached_steps_equal_full_recomputation(path, tmp_path):
    """Logits of each step of a golden output against a forward over source, past and one [MASK]."""
    decoded = Decoded(path, tmp_path / "original")
    (case, *_) = decoded.facts["cases"]
    for prompt, outputs in zip(decoded.prompts, case["outputs"], strict=True):
        logits, cache = decoded.model.prefill([prompt])
        for step, token in enumerate(outputs[0]["ids"]):
            np.testing.assert_allclose(
                logits.reshape(-1), recomputed(decoded, prompt, outputs[0]["ids"][:step]), rtol=0, atol=1e-5
            )
            logits = decoded.model.step(np.array([[token]]), np.array([step]), cache)


def recomputed(decoded: Decoded, prompt, past: list[int]) -> np.ndarray:
    """[V] at a [MASK] behind a source and its past, by a forward without a cache: Part B's own past is all it sees."""
    ids = [*prompt.input_ids, *past, decoded.tokenizer.mask_token_id]
    row = in_task(SEQ2SEQ, ids, len(prompt.source_ids))
    batch = decoded.geometry.collate([[row]], len(row), decoded.tokenizer.pad_token_id)
    names = [name for name in batch if name not in ("labels", "order")]
    return decoded.model(**tensors({name: batch[name] for name in names})).numpy()[0, -1]


@files("decode*.json")
def test_13_rules(path, tmp_path):
    """No n-gram twice, ignored words excepted; none shorter than asked; one beam is greedy search by hand."""
    decoded = Decoded(path, tmp_path / "original")
    for case in decoded.facts["cases"]:
        settings = case["settings"]
        size, ignored = settings["no_repeat_ngram_size"], set(settings["ignore_ids"])
        for hypotheses in decoded.outputs(case).values():
            for hypothesis in hypotheses:
                tokens = hypothesis.tokens
                grams = [tokens[place : place + size] for place in range(len(tokens) - size + 1)] if size else []
                grams = [gram for gram in grams if not ignored & set(gram)]
                assert len(set(grams)) == len(grams)
                assert len(tokens) >= settings["min_tgt_length"]
    for case in decoded.facts["cases"]:
        plain = not case["settings"]["no_repeat_ngram_size"] and not case["settings"]["min_tgt_length"]
        if case["settings"]["num_beams"] != 1 or not plain:
            continue
        for number, prompt in enumerate(decoded.prompts):
            past: list[int] = []
            while len(past) < case["settings"]["max_tgt_length"] and decoded.tokenizer.end_token_id not in past:
                past.append(int(recomputed(decoded, prompt, past).argmax()))
            assert past == case["outputs"][number][0]["ids"]


@files("nucleus*.json")
def test_15_nucleus(path):
    """Which tokens stay and with what probability; the caller's array is left alone."""
    cases = read_json(path)["cases"]
    for case in cases:
        logits = np.array([case["logits"]])
        before = logits.copy()
        scores = log_softmax(logits / case["temperature"])
        found = np.exp(keep_likely(scores, top_k=case["top_k"], top_p=case["top_p"]))[0]
        assert (logits == before).all()
        assert np.flatnonzero(found).tolist() == sorted(case["kept"]), case["name"]
        np.testing.assert_allclose(found[sorted(case["kept"])], case["probabilities"], rtol=0, atol=1e-6)


@files("nucleus*.json")
def test_15_frequencies(path):
    """Of 10,000 draws from what stays: each within 4 standard errors."""
    for case in read_json(path)["cases"][:6]:
        config = GenerationConfig(
            select_topk=False, temperature=case["temperature"], top_k=case["top_k"], top_p=case["top_p"], num_beams=1
        )
        scores = log_softmax(np.array([[case["logits"]]]) / case["temperature"])
        stream, draws = np.random.default_rng(5), 10_000
        _, picks = draw_apart(scores, np.zeros((1, 1)), draws, config=config, streams=[stream])
        counts = np.bincount(picks[0], minlength=len(case["logits"])) / draws
        expected = np.zeros(len(case["logits"]))
        expected[sorted(case["kept"])] = case["probabilities"]
        assert (np.abs(counts - expected) <= 4 * np.sqrt(expected * (1 - expected) / draws)).all(), case["name"]


@files("output-format*.json")
def test_19_tokens_to_text(path, tmp_path):
    """Over a vocabulary of the file's own tokens, for whatever they are."""
    examples = read_json(path)["detokenise"]
    words = dict.fromkeys(token for example in examples for token in example["tokens"])
    words = [word for word in words if word not in SPECIAL]
    tokenizer = WordPieceTokenizer(write_vocabulary(tmp_path / "vocab.txt", words))
    for example in examples:
        ids = [tokenizer.ids[token] for token in example["tokens"]]
        assert tokenizer.decode_ids(ids) == example["text"]


@files("output-format*.json")
def test_19_file_of_paraphrases(path, tmp_path):
    facts = read_json(path)["file"]
    rows = [
        {"id": number, "source": row["source"], "predictions": [{"text": text} for text in row["predictions"]]}
        for number, row in enumerate(facts["rows"])
    ]
    write_paraphrases(tmp_path / "test.json", rows)
    assert (tmp_path / "test.json").read_bytes() == facts["content"].encode()


def logits_of(model, geometry, row) -> np.ndarray:
    """[L, V] of a row, in the order of its text."""
    batch = geometry.collate([[row]], len(row), 0)
    names = [name for name in batch if name not in ("labels", "order")]
    return in_text_order(row, model(**tensors({name: batch[name] for name in names})).numpy()[0])


@models
def test_5_who_sees_whom(golden):
    """A changed token moves what sees it and nothing else: exactly, and by more than rounding where it is seen."""
    for row in golden.rows:
        L, first = len(row), row.parts[0]
        before = logits_of(golden.model, golden.geometry, row)
        for place in (1, L // 2, L - 2):
            ids = row.input_ids.copy()
            there = int(row_places(row, np.array([place]))[0])
            ids[there] = 5 + (ids[there] - 4) % (golden.facts["config"]["vocab_size"] - 5)
            moved = np.abs(logits_of(golden.model, golden.geometry, replace(row, input_ids=ids)) - before).max(axis=1)
            places = np.arange(L)
            sees = {0: places >= 0, 1: places >= place, 2: places <= place}.get(row.task)
            if sees is None:
                sees = (places >= 0) if place < first else places >= place
            assert (moved[~sees] <= 1e-6).all() and (moved[sees] > 1e-6).all(), (row.task, place)


@files("layout*.json")
def test_9_chosen_positions_and_replacements(path, vocabulary):
    """Over 10,000 draws of one record: uniform over the target and its [SEP], never in the source; .8, .1, .1."""
    tokenizer, draws = layout_tokenizer(path, vocabulary), 10_000
    pairs = [(settings, example) for settings in read_json(path)["seq2seq"] for example in settings["examples"]]
    settings, pair = max(pairs, key=lambda pair: pair[1]["n_pred"])  # the more are chosen, the less is left to chance
    geometry, source, span, _ = laid_out(tokenizer, pair, settings, random=np.random.default_rng(0))
    source = pair["ids"][: pair["source_part"]]  # as the pair's cut leaves them
    span = pair["ids"][pair["source_part"] : -1]
    S, T = len(source), len(span) + 1
    counts, kinds = np.zeros(T), np.zeros(3)
    clean = np.array([*source, *span, tokenizer.sep_token_id])
    for draw in range(draws):
        example = geometry.example(source, span, tgt_length=512, random=np.random.default_rng([1, 0, draw]))
        places = np.flatnonzero(example.labels != -100)
        assert places.min() >= S
        counts[places - S] += 1
        found, was = example.input_ids[places], clean[places]
        assert (example.labels[places] == was).all()
        kinds += [(found == tokenizer.mask_token_id).sum(), 0, (found == was).sum()]
        kinds[1] += len(places) - (found == tokenizer.mask_token_id).sum() - (found == was).sum()
    share = example.num_labels / T
    assert (np.abs(counts / draws - share) <= 4 * np.sqrt(share * (1 - share) / draws)).all()
    np.testing.assert_allclose(kinds / kinds.sum(), [0.8, 0.1, 0.1], atol=0.01)


@pytest.fixture
def csl_documents(path) -> list[str]:
    """The documents that a file of a mixture names, beside it or among the real data."""
    name, field = (part.split()[-1] for part in read_json(path)["documents"].split(","))
    places = [path.parents[2] / "data" / name]
    if real := os.environ.get("GLM_REAL_DATA"):
        places.append(Path(real) / "data" / name)
    for place in places:
        if place.is_file():
            return [json.loads(line)[field] for line in place.read_text(encoding="utf-8").splitlines()]
    pytest.skip(f"no {name} beside {path.parent.name}, nor in GLM_REAL_DATA")


@pytest.fixture
def real_vocabulary(path) -> Path:
    """The vocabulary of a mixture, which names none: that of the layouts beside it, else Chinese BERT's."""
    layouts = sorted(path.parent.glob("layout*.json"))
    name = read_json(layouts[0])["vocab"] if layouts else "bert-base-chinese-vocab.txt"
    return beside(path, name)


def originals_passages(mixture: Mixture, document: str) -> list:
    """Passages as the original has them: of one piece it makes a pair with itself, which ours leaves out."""
    pieces = [ids for piece in PIECE.findall(document.strip()) if (ids := mixture.tokenizer.encode_text(piece))]
    passages, passage = [], []
    for number, piece in enumerate(pieces, start=1):
        passage.append(piece)
        if sum(map(len, passage)) >= mixture.seq_length or number == len(pieces):
            passages.append(passage if len(passage) > 1 else passage * 2)
            passage = []
    return passages


@files("mixture*.json")
def test_10_mixture(path, csl_documents, real_vocabulary):
    """Shares of tasks and of swapped pairs, what is never chosen, and the means of 10,000 of the original's draws."""
    facts = read_json(path)["original"]
    mixture = Mixture(word_pieces(real_vocabulary), facts["max_seq_length"], facts["mask_prob"], facts["max_pred"])
    passages = [passage for document in csl_documents for passage in originals_passages(mixture, document)]
    assert len(passages) == facts["pairs"]
    draws, random = max(facts["draws"], 10_000), np.random.default_rng(facts["seed"])
    names = ("bidirectional", "left-to-right", "right-to-left", "seq2seq")
    examples = [mixture.example(passages[place], random) for place in random.integers(len(passages), size=draws)]
    for task, name in enumerate(names):
        found = [example for example in examples if example.task == task]
        share = (1 / 3, 1 / 6, 1 / 6, 1 / 3)[task]
        assert abs(len(found) / draws - share) <= 4 * np.sqrt(share * (1 - share) / draws)
        expected = facts["by_task"][name]
        assert np.mean([len(example) for example in found]) == pytest.approx(expected["mean_length"], rel=0.03)
        assert np.mean([example.num_labels for example in found]) == pytest.approx(expected["mean_chosen"], rel=0.03)
        for example in found:
            labels = in_text_order(example, example.labels)
            inner = example.parts[0] - 1 if task == SEQ2SEQ else None
            assert labels[0] == -100 and (inner is None or (labels[: inner + 1] == -100).all())
    swapped = [example.order == 0 for example in examples if example.task == BIDIRECTIONAL]
    assert abs(np.mean(swapped) - 0.5) <= 0.035


@files("mixture*.json")
def test_10_numbers_of_chosen_positions(path):
    for name, table in read_json(path)["n_pred_table"].items():
        _, share, _, most = name.replace(",", "").split()
        for length, expected in table.items():
            assert chosen_count(int(length), float(share), int(most)) == expected, (name, length)


@files("mixture*.json")
def test_11_pairs_of_documents(path, real_vocabulary):
    """The original's pairs are among those that can be drawn; a document of one piece gives none."""
    tokenizer = word_pieces(real_vocabulary)
    for example in read_json(path)["pairing_examples"]:
        passages = list(Mixture(tokenizer, example["max_len"]).passages(example["document"]))
        pairs = [(a, b) for a, b in example["pairs"] if a != b]
        assert len(passages) == len(pairs)
        for passage, (a, b) in zip(passages, pairs, strict=True):
            before = [list(piece) for piece in passage]
            splits = [(sum(passage[:place], []), sum(passage[place:], [])) for place in range(1, len(passage))]
            assert (tokenizer.encode_text(a), tokenizer.encode_text(b)) in splits
            random = np.random.default_rng(3)
            for _ in range(100):
                Mixture(tokenizer, example["max_len"]).example(passage, random)
            assert passage == before


@files("optimisation*.json")
def test_17_learning_rates(path):
    """Factors of the originals' schedules: fine-tuning's whole number of warm-up steps, pretraining's share."""
    for name, factors in read_json(path)["schedule_factor_before_update_k"].items():
        total, warmup = int(name.split("total ")[1].split(",")[0]), float(name.split()[-1])
        for step, factor in factors.items():
            found = decay_factor(
                int(step), warmup_steps=int(warmup * total), total_steps=total, shape="linear", decay_ratio=0.0
            )
            assert found == pytest.approx(factor, abs=1e-12), (name, step)


@files("scaling*.json")
def test_18_scaling_laws(path):
    """Every row of the file, by the function that its inputs name."""
    for row in read_json(path)["rows"]:
        given = row["in"]
        if "layers" in given:
            found = scaling.network_parameters(
                layers=given["layers"], hidden=given["d"], mlp=given["f"], pooler_layers=given["pooler_fc"]
            )
        elif given.keys() == {"N", "D"}:
            found = scaling.loss_of_data(given["N"], given["D"])
        elif given.keys() == {"N", "S_min"}:
            found = scaling.loss_of_steps(given["N"], given["S_min"])
        elif given.keys() == {"B"}:
            found = scaling.loss_of_batch(given["B"])
        elif given.keys() == {"L"}:
            found = scaling.critical_batch(given["L"])
        elif row["what"].startswith("data"):
            found = scaling.data_needed(given["N"])
        else:
            found = scaling.loss_of_steps(given["N"], None)
        assert found == pytest.approx(row["out"], rel=1e-12), row["what"]
