"""Blank-infilling pretraining against the original's own numbers (section 8 of its fact sheet: checks 1 to 5, 13).

Every expected number is read from the files; what a folder lacks is skipped and named.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from glm.data.corpus_store import MemoryCorpus
from glm.data.task_pool import right_examples, task_shares
from glm.models.glm import FAMILY
from glm.models.glm.geometry import attention_mask
from glm.models.glm.objectives import BLANKS, DOCUMENT, SENTENCE, TOKEN, BlankPretraining
from glm.models.glm.spans import LENGTH_SHARES, SentenceEnds, place_spans, places_bound
from glm.models.glm.tokenization import GLMSentencePieceTokenizer
from glm.models.protocol import GeometryOptions
from reference.forward import forward
from tools.reference_files import reference_json, reference_paths

pytestmark = pytest.mark.conformance

LAYOUTS, STATISTICS = "pretraining-layouts*.json", "pretraining-statistics*.json"
COMMANDS = {"eos": "<|endoftext|>", "ENC": "[CLS]", "sop": "<|startofpiece|>", "eop": "<|endofpiece|>"}
PIECES = 2000  # of a tokenizer whose pieces are numbers; each twentieth ends a sentence
DRAWS = 10_000


class NumberTokenizer:
    """A tokenizer whose command ids are those of a file, and whose pieces are those of its records.

    Args:
        commands: ids by the names of the file.
        pieces: texts by id.
    """

    def __init__(self, commands: dict[str, int], pieces: dict[int, str]):
        self.special_ids = {COMMANDS.get(name, f"[{name}]"): number for name, number in commands.items()}
        self.cls_token_id, self.eos_token_id = commands["ENC"], commands["eos"]
        self.sop_token_id, self.eop_token_id = commands["sop"], commands["eop"]
        self.block_mask_id = commands["dBLOCK"]
        self.mask_token_ids = commands["MASK"], commands["sMASK"], commands["gMASK"]
        self.sp_model = _Model(pieces, min(commands.values()))


class _Model:
    def __init__(self, pieces: dict[int, str], size: int):
        self.pieces, self.size = pieces, size

    def __len__(self) -> int:
        return self.size

    def id_to_piece(self, number: int) -> str:
        return self.pieces.get(number, "x")


def layouts() -> list[dict[str, Any]]:
    """All files of layouts."""
    return [reference_json("glm-tasks", path.name) for path in reference_paths("glm-tasks", LAYOUTS)]


def pretraining(golden: dict[str, Any], records: list[dict[str, Any]], **options: Any) -> BlankPretraining:
    pieces = {}
    for record in records:
        pieces.update(zip(record["tokens"], record.get("pieces", ()), strict="pieces" in record))
    return BlankPretraining(NumberTokenizer(golden["commands"], pieces), **options)


def level_of(task: str) -> str:
    return next(level for level in BLANKS if task.startswith(level))


def test_layouts():  # check 1
    for golden in layouts():
        for record in golden["span_examples"]:
            with_blocks = record.get("options", {}).get("block_position_encoding", True)
            objective = pretraining(golden, golden["span_examples"], block_position=with_blocks)
            if "generation_length" in record:
                example = objective.continuation(record["tokens"], record["generation_length"])
            else:
                blank = BLANKS[level_of(record["task"])]
                example = objective.lay_out(record["tokens"], record["spans"], record["order"], blank)
            S, T = len(example.source_ids), len(example.target_ids)
            assert S == record["sep"]
            assert [*example.source_ids, *example.target_ids] == record["ids"]
            assert [*example.source_ids, *example.labels] == record["targets"]
            assert [0] * S + [1] * T == record["loss_mask"]
            rows = np.concatenate([objective.infilling.source_positions(S), example.target_position_ids], axis=1)
            assert rows.tolist() == [record["positions"], record["block_positions"]]


def test_places_of_spans():  # check 2
    for golden in layouts():
        for record in golden["span_placing"]:
            lengths, size = record["span_lengths"], record["total_length"]
            assert places_bound(lengths, size) == record["upper_bound_exclusive"]
            found = place_spans(lengths, record["drawn_places"], record["offset"])
            assert found == [tuple(span) for span in record["spans"]]


def test_sentences():  # check 2
    for golden in layouts():
        for record in golden["sentence_detection"]:
            tokenizer = pretraining(golden, golden["sentence_detection"]).tokenizer
            ids = np.array(record["tokens"])
            found = SentenceEnds(tokenizer, like_original=True).sentences(ids, 1, len(ids))
            assert found == [tuple(span) for span in record["sentence_spans"]]


# -- check 3: distributions


def statistics() -> dict[str, Any]:
    return reference_json("glm-tasks", STATISTICS)


def number_pieces(golden: dict[str, Any]) -> NumberTokenizer:
    offset = PIECES - golden["command_ids"]["eos"]
    commands = {name: number + offset for name, number in golden["command_ids"].items() if name not in ("pad", "unk")}
    return NumberTokenizer(commands, {number: "。" for number in range(0, PIECES, 20)})


def options_of(run: dict[str, Any]) -> dict[str, Any]:
    """The options of a recorded run by our names; the original's `gpt_infill_prob` is of continuations."""
    given = dict(run["options"], seq_length=run["max_seq_length"], infill_prob=1 - run["options"]["gpt_infill_prob"])
    given["sample_one_document"] = not run["sample_across_documents"]
    known = ("bert_prob", "gap_sentence_prob", "bert_ratio", "gap_sentence_ratio", "gpt_min_ratio", "infill_prob")
    known += ("block_mask_prob", "short_seq_prob", "single_span_prob", "seq_length", "sample_one_document")
    return {name: given[name] for name in known if name in given}


def corpus(shortest: int, longest: int, documents: int = 400) -> MemoryCorpus:
    random = np.random.default_rng(5)
    sizes = random.integers(shortest, longest, size=documents)
    return MemoryCorpus([[random.integers(1, PIECES, size=size)] for size in sizes])


def samples_of(golden: dict[str, Any], run: dict[str, Any], texts: MemoryCorpus, draws: int):
    objective = BlankPretraining(number_pieces(golden), **options_of(run))
    return objective, [objective.draw(texts, n, np.random.default_rng([3, n])) for n in range(draws)]


def runs_of(golden: dict[str, Any], *, lose_samples: bool) -> list[dict[str, Any]]:
    """The recorded runs in which the original dropped samples, or those in which it dropped none."""
    found = [run for run in golden["runs"].values() if bool(run["failures"]) == lose_samples]
    if not found:
        pytest.skip(f"{STATISTICS} has no run {'with' if lose_samples else 'without'} failures")
    return found


def shortest_of(golden: dict[str, Any], run: dict[str, Any]) -> int:
    """Ids of the shortest text of a recorded run that was not cut."""
    return int(run["sample_length"][golden["columns_of_quantiles"].index("min")])


def corpus_like(golden: dict[str, Any], run: dict[str, Any], documents: int = 2000) -> MemoryCorpus:
    """Documents whose samples have the lengths of a recorded run; they are drawn in proportion to their lengths."""
    points = dict(zip(golden["columns_of_quantiles"], run["sample_length"], strict=True))
    shares = {"min": 0.0, "max": 1.0, **{name: float(name[:-1]) / 100 for name in points if name.endswith("%")}}
    places, values = zip(*sorted((share, points[name]) for name, share in shares.items()), strict=True)
    random = np.random.default_rng(5)
    sizes = np.interp(random.random(documents), places, values).astype(int) - 2  # [CLS] and <|endoftext|> are added
    sizes = random.choice(sizes, documents, p=(1 / sizes) / (1 / sizes).sum())
    return MemoryCorpus([[random.integers(1, PIECES, size=size)] for size in sizes])


@pytest.fixture(scope="module")
def drawn():
    """Samples by the options of each recorded run in which none was dropped: 10,000 of the largest, of the others as
    many as were recorded."""
    golden = statistics()
    runs = runs_of(golden, lose_samples=False)
    largest = max(run["calls"] for run in runs)
    counts = [DRAWS if run["calls"] == largest else run["calls"] for run in runs]
    return [
        (golden, run, *samples_of(golden, run, corpus_like(golden, run), count))
        for run, count in zip(runs, counts, strict=True)
    ]


def level(drawn, name: str):
    """The runs with figures of a level; skips and names it where there is none."""
    found = [entry for entry in drawn if entry[1][name]["ratio"] is not None]
    if not found:
        pytest.skip(f"{STATISTICS} has no figures of the {name} level")
    return found


def whole(samples, objective: str):
    """The examples of an objective whose samples were not cut into short ones."""
    return [sample.examples[0] for sample in samples if sample.objective == objective and len(sample.examples) == 1]


def text_length(example) -> int:
    """Ids of the text that an example is of."""
    blanks = np.unique(example.target_position_ids[0])
    inputs = len(example.labels) - len(blanks)  # ids in spans: each has an eop beside them
    return len(example.source_ids) - len(blanks) + inputs


def test_shares_of_the_objectives(drawn):  # check 3
    for _, run, _, samples in drawn:
        options = run["options"]
        expected = {TOKEN: options["bert_prob"], SENTENCE: options["gap_sentence_prob"]}
        single = options.get("single_span_prob", 0.0)  # of all samples; they are of the token level
        expected = {name: (1 - single) * share for name, share in expected.items()}
        expected[TOKEN] += single
        expected[DOCUMENT] = 1 - sum(expected.values())
        for objective, share in expected.items():
            assert abs(sum(sample.objective == objective for sample in samples) / len(samples) - share) <= 0.015
        assert all(len(sample.examples) and sample.num_labels for sample in samples)  # none was dropped


def test_token_level(drawn):  # check 3
    for golden, run, objective, samples in level(drawn, "token"):
        recorded, blocked, eop = run["token"], objective.tokenizer.block_mask_id, objective.tokenizer.eop_token_id
        lengths, hidden, read, ratios, spans, gaps, places = [], 0, 0, [], [], [], []
        for example in whole(samples, TOKEN):
            n = text_length(example)
            if n < shortest_of(golden, run):
                continue
            ends = np.flatnonzero(example.labels == eop)
            own = np.diff(np.concatenate([[-1], ends])) - 1
            assert own.sum() == len(example.labels) - len(own) and own.min() >= 1
            lengths += own.tolist()
            spans.append(len(own))
            ratios.append(own.sum() / n)
            hidden += int((example.target_ids == blocked).sum())
            read += int(own.sum())
            masks = np.flatnonzero(example.source_ids == objective.tokenizer.special_ids["[MASK]"])
            gaps += (np.diff(masks) - 1).tolist()
            places += (masks / (len(example.source_ids) - 1)).tolist()
        check_lengths(golden, recorded, np.bincount(lengths, minlength=40)[1:40])
        assert abs(np.mean(ratios) - recorded["ratio"][0]) <= 0.003
        assert abs(hidden / read - run["options"]["block_mask_prob"]) <= 0.01
        if gaps:
            assert min(gaps) >= 1 == recorded["fewest_tokens_between_two_masks"]
        assert abs(np.mean(places) - recorded["mask_index_over_last_index_of_part_A"][0]) <= 0.02


def check_lengths(golden: dict[str, Any], recorded: dict[str, Any], counts: np.ndarray) -> None:
    """Compares the lengths of spans with the rule, and with those of the original."""
    for n, share in golden["span_length_probabilities"].items():
        assert LENGTH_SHARES[int(n) - 1] == pytest.approx(share, rel=1e-6)
    tail = int(np.flatnonzero(LENGTH_SHARES * counts.sum() >= 5)[-1])  # from here on too few are expected
    observed, expected = [*counts[:tail], counts[tail:].sum()], [*LENGTH_SHARES[:tail], LENGTH_SHARES[tail:].sum()]
    assert stats.chisquare(observed, np.array(expected) * sum(observed)).pvalue > 0.001
    theirs = np.array([recorded["span_length_histogram"].get(str(n), 0) for n in range(1, 40)])
    table = np.array([[*counts[:tail], counts[tail:].sum()], [*theirs[:tail], theirs[tail:].sum()]])
    assert stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue > 0.001


def test_sentence_level(drawn):  # check 3
    for _, run, objective, samples in level(drawn, "sentence"):
        for example in whole(samples, SENTENCE):
            spans = int((example.labels == objective.tokenizer.eop_token_id).sum())
            text = text_length(example)
            reached = len(example.labels) - spans
            assert reached >= min(int(run["options"]["gap_sentence_ratio"] * text), text - 2)
            assert not (example.target_ids == objective.tokenizer.block_mask_id).any()


def test_document_level(drawn):  # check 3
    for golden, run, objective, samples in level(drawn, "document"):
        eop, shares, kinds = objective.tokenizer.eop_token_id, [], [0, 0]
        for example in whole(samples, DOCUMENT):
            infills = example.labels[-1] == eop
            length = len(example.labels) - infills
            text = len(example.source_ids) - 1 + length
            if text >= shortest_of(golden, run):
                low, high = int(run["options"]["gpt_min_ratio"] * text), text - 2
                shares.append((length - low + 0.5) / (high - low + 1))
                kinds[infills] += 1
        assert stats.kstest(shares, "uniform").pvalue > 0.001
        assert stats.binomtest(kinds[0], sum(kinds), run["options"]["gpt_infill_prob"]).pvalue > 0.001


def test_order_of_three_spans():  # check 3
    objective = BlankPretraining(number_pieces(statistics()), sample_one_document=True)
    orders: dict[tuple[int, ...], int] = {}
    texts, number = corpus(55, 75), 0
    while sum(orders.values()) < 3000:
        (example,) = objective.draw(texts, number, np.random.default_rng([9, number]), TOKEN).examples[:1]
        number += 1
        places = example.target_position_ids[0][example.target_position_ids[1] == 1]
        if len(places) == 3:
            key = tuple(np.argsort(np.argsort(places)).tolist())
            orders[key] = orders.get(key, 0) + 1
    assert len(orders) == 6
    assert all(abs(count / sum(orders.values()) - 1 / 6) <= 0.03 for count in orders.values())


def test_short_documents_lose_no_sample():  # check 3
    golden = statistics()
    for run in runs_of(golden, lose_samples=True):
        length = run["max_seq_length"]
        objective, samples = samples_of(golden, run, corpus(max(12, length // 43), max(24, length // 6)), 1500)
        by_level = {name: [s for s in samples if s.objective == name] for name in (TOKEN, SENTENCE, DOCUMENT)}
        assert abs(len(by_level[TOKEN]) / len(samples) - run["options"]["bert_prob"]) <= 0.04
        ratios = []
        for sample in by_level[TOKEN]:
            for example in sample.examples:
                spans = len(np.unique(example.target_position_ids[0]))
                ratios.append((len(example.labels) - spans) / text_length(example))
        assert abs(np.mean(ratios) - run["token"]["ratio"][0]) <= 0.01
        eop = objective.tokenizer.eop_token_id
        whole_texts = [sample.examples[0] for sample in by_level[DOCUMENT] if len(sample.examples) == 1]
        several = [example for example in whole_texts if len(example) > 0.97 * length]
        assert several and all(example.labels[-1] != eop for example in several)  # continuations


# -- check 5


def logits_of(model, ids, positions, S, T):
    """[S + T, V] by the NumPy forward pass."""
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    seen = attention_mask([S], S, T)
    return forward(weights, ids[None], positions[None], seen, num_layers=2, num_attention_heads=3)[0]


def test_who_sees_whom(tiny_model):  # check 5
    for golden in layouts():
        record = next(r for r in golden["span_examples"] if len(r.get("spans", ())) > 1)
        objective = pretraining(golden, golden["span_examples"])
        blank = BLANKS[level_of(record["task"])]
        example = objective.lay_out(record["tokens"], record["spans"], record["order"], blank)
        S, T = len(example.source_ids), len(example.target_ids)
        ids = np.unique(np.concatenate([example.source_ids, example.target_ids]), return_inverse=True)[1]
        model = tiny_model(vocab_size=S + T + 8, max_sequence_length=S + T)
        positions = np.concatenate([objective.infilling.source_positions(S), example.target_position_ids], axis=1)
        starts = np.flatnonzero(example.target_position_ids[1] == 1)
        before = logits_of(model, ids, positions, S, T)
        first, second = S + starts[0] + 1, S + starts[1]  # the first id of the first span, `sop` of the second
        for changed in (second, first):
            other = ids.copy()
            other[changed] = S + T + 3
            moved = np.abs(logits_of(model, other, positions, S, T) - before).max(axis=1) > 1e-9
            assert moved[changed] and not moved[:changed].any()
        assert moved[second:].all()  # a change of the first span is seen by the second


# -- check 13: tasks in pretraining


def test_shares_of_tasks():  # check 13
    for path in reference_paths("glm-tasks", "multi-task*.json"):
        for record in reference_json("glm-tasks", path.name)["weights"]:
            assert task_shares(record["sizes"]) == pytest.approx(record["probabilities"], rel=1e-12)


def test_rows_of_tasks(geometry_of_tasks):  # check 13
    """Each row again from its own parts: Part A, and the pieces that its candidate has."""
    geometry, eop = geometry_of_tasks
    for path in reference_paths("glm-tasks", "multi-task*.json"):
        for row in reference_json("glm-tasks", path.name)["rows"]:
            source = row["ids"][: row["sep"]]
            scored = [target for target, mask in zip(row["targets"], row["loss_mask"], strict=True) if mask]
            ends = scored[-1] == eop
            assert ends == row["multi_token"]
            pieces = scored[:-1] if ends else scored
            encoder = SimpleNamespace(
                geometry=geometry,
                is_single=not row["multi_token"],
                task=SimpleNamespace(ends=ends),
                lay_out_source=lambda encoded, source=source: source,
            )
            candidates = [[*pieces, eop] if ends else pieces, [1, eop] if ends else [1]]
            encoded = SimpleNamespace(candidates=candidates, opening=[], record=SimpleNamespace(right=(0,)))
            (example,) = right_examples(encoded, encoder)
            assert [*example.source_ids, *example.target_ids] == row["ids"]
            assert example.labels.tolist() == scored
            assert example.target_position_ids[1].tolist() == row["block_positions"][row["sep"] :]


@pytest.fixture(scope="module")
def geometry_of_tasks():
    pieces = GLMSentencePieceTokenizer(str(reference_paths("mglm", "*.model")[0]))
    return FAMILY.geometry(pieces, GeometryOptions("[MASK]")), pieces.eop_token_id
