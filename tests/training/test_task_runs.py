"""Whole runs of tasks that choose or extract: they learn, keep the best, go on after a stop, predict as trained."""

import json

import pytest

from glm.errors import InputError, UsageError
from glm.prediction.heads import HEAD_NAME
from tools.run_tools import PLACES, logged, read_lines, write_records

CLOZE = {
    "template": "{context}，{question}[MASK]。",
    "labels": "2万=two,3万=three",
    "num_beams": None,
    "tgt_length": 8,
    "do_eval": True,
    "max_steps": 120,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def cloze(workspace):
    """The options for 20 records of two labels, all of them dev records too."""
    rows = [
        {"context": f"{place}人口大约{number}万", "question": "有多少人口", "label": {2: "two", 3: "three"}[number]}
        for place in PLACES
        for number in (2, 3)
    ]
    path = workspace.folder / "cloze.json"
    write_records(path, rows)
    return {**CLOZE, "train_file": path, "dev_file": path}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss_func": "mix", "candidate_length_penalty": 1.0},
        {"loss_func": "hinge", "learning_rate": 5e-3, "weight_decay": 0.0},
        {"loss_func": "generative"},
        {"classification_head": True},
        {"classification_head": "start", "group_by_length": True},
    ],
    ids=["cross_entropy", "mix", "hinge", "generative", "head", "head-start"],
)
def test_two_labels_are_learnt(workspace, cloze, options, request):
    run = workspace.finetune(request.node.callspec.id, **{**cloze, **options})
    figures = json.loads((run / "eval" / "step-120.metrics.json").read_text(encoding="utf-8"))
    assert figures["accuracy"] == figures["macro f1"] == 100.0 and figures["records"] == 20
    losses = logged(run, "loss")
    assert sum(losses[-5:]) < sum(losses[:5]) / 3
    assert (run / "eval" / "step-120.report" / "report.html").is_file()
    assert (run / HEAD_NAME).is_file() == ("classification_head" in options)
    output = run / "rows.jsonl"
    code = workspace.predict(
        model_name_or_path=run, test_file=cloze["dev_file"], output_file=output, metrics_file=run / "m.json", show=0
    )
    assert code == 0
    want, found = read_lines(run / "eval" / "step-120.jsonl"), read_lines(output)
    assert [row["prediction"] for row in found] == [row["prediction"] for row in want]
    for row, other in zip(found, want, strict=True):
        for candidate, before in zip(row["candidates"], other["candidates"], strict=True):
            assert candidate["score"] == pytest.approx(before["score"], abs=1e-2)


def test_a_stopped_run_goes_on_to_the_same_weights(workspace, cloze):
    from safetensors.numpy import load_file

    options = {**cloze, "do_eval": None, "dev_file": None, "max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    options["classification_head"] = "pad"
    whole = workspace.finetune("whole-head", **options)
    begun = workspace.finetune("begun-head", **{**options, "resume_from_checkpoint": whole / "checkpoint-3"})
    for name in ("model.safetensors", HEAD_NAME):
        want, found = load_file(whole / name), load_file(begun / name)
        assert want.keys() == found.keys()
        assert all((want[key] == found[key]).all() for key in want)


def test_the_best_is_kept_by_a_named_figure(workspace, cloze):
    run = workspace.finetune(
        "best",
        **{**cloze, "max_steps": 30, "evaluation_strategy": "steps", "eval_steps": 10},
        save_strategy="steps",
        save_steps=10,
        load_best_model_at_end=True,
        metric_for_best_model="macro f1",
    )
    evaluated = [json.loads(path.read_text(encoding="utf-8")) for path in run.glob("eval/*.metrics.json")]
    state = json.loads((run / "trainer_state.json").read_text(encoding="utf-8"))
    assert len(evaluated) == 3 and state["best_metric"] == max(figures["macro f1"] for figures in evaluated)


def wsc_rows():
    """Of two nouns in either order, and a third word that varies, the reason tells which one is meant."""
    one, other, *others = PLACES
    for number, third in enumerate(others[:5]):
        for why, meant, not_meant in (("读书", one, other), ("公园", other, one)):
            first, second = (one, other) if number % 2 else (other, one)
            yield f"{first} {second} {third} 它 {why}", meant, not_meant, f"{number}{why}"


def wsc_row(text, noun, identity, **more):
    words = text.split()
    places = {"span1_index": words.index(noun), "span2_index": words.index("它")}
    return {"text": text, "target": {"span1_text": noun, "span2_text": "它", **places}, "idx": identity, **more}


WSC = {"task_name": "wsc", "num_beams": None, "src_length": 80, "tgt_length": 8, "do_eval": True}
WSC |= {"max_steps": 160, "learning_rate": 5e-3}


def test_wsc_is_learnt_against_other_nouns(workspace):
    """With candidates: the noun against the others, by the sum of two losses; a false noun makes the others right."""
    rows = [
        wsc_row(text, noun, f"{identity}.{noun == meant}", label=noun == meant, candidates=[meant, other])
        for text, meant, other, identity in wsc_rows()
        for noun in (meant, other)
    ]
    write_records(workspace.folder / "wsc.json", rows)
    files = dict.fromkeys(("train_file", "dev_file"), workspace.folder / "wsc.json")
    run = workspace.finetune("wsc", loss_func="mix", **WSC, **files)
    figures = json.loads((run / "eval" / "step-160.metrics.json").read_text(encoding="utf-8"))
    assert figures["records"] == 20 and figures["accuracy"] >= 95.0
    found = read_lines(run / "eval" / "step-160.jsonl")
    assert {row["prediction"] for row in found} <= set(PLACES)


def test_wsc_as_it_is_published_is_learnt_by_writing_the_noun(workspace):
    """Without candidates only rows whose label is true are learnt; the others are false if another noun is written."""
    rows = [
        wsc_row(text, noun, f"{identity}.{noun == meant}", label=noun == meant)
        for text, meant, other, identity in wsc_rows()
        for noun in (meant, other)
    ]
    write_records(workspace.folder / "wsc-published.json", rows)
    files = dict.fromkeys(("train_file", "dev_file"), workspace.folder / "wsc-published.json")
    run = workspace.finetune("wsc-published", loss_func="generative", **WSC, **files)
    figures = json.loads((run / "eval" / "step-160.metrics.json").read_text(encoding="utf-8"))
    assert figures["records"] == 20 and figures["accuracy"] >= 95.0
    for row, given in zip(read_lines(run / "eval" / "step-160.jsonl"), rows, strict=True):
        assert row["reference"] == str(given["label"]).lower() and row["candidate"] == given["target"]["span1_text"]
        assert (row["prediction"] == "true") == (row["written"].strip() == row["candidate"])


def test_answers_are_learnt_from_windows(workspace):
    rows = [
        {
            "id": f"{place} {number}",
            "context": f"春天来了，山上的花都开了。{place}位于河的北岸，人口大约{number}万。",
            "question": f"{place}有多少人口？",
            "answers": [f"{number}万"],
        }
        for place in PLACES
        for number in (2, 3)
    ]
    path = workspace.folder / "passages.json"
    write_records(path, rows)
    run = workspace.finetune(
        "extract",
        task_name="cmrc2018",
        train_file=path,
        dev_file=path,
        do_eval=True,
        src_length=72,
        tgt_length=8,
        max_steps=250,
        learning_rate=1e-2,
    )
    figures = json.loads((run / "eval" / "step-250.metrics.json").read_text(encoding="utf-8"))
    assert figures["records"] == 20 and figures["em (mlqa, zh)"] >= 90.0
    assert (run / "eval" / "step-250.report" / "report.html").is_file()


# -- what cannot be run


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"loss_func": "hinge", "classification_head": "pad"}, "loss_func hinge: has no effect beside"),
        ({"label_smoothing": 0.1}, "label_smoothing 0.1: has no effect on a task of kind choose"),
        ({"num_beams": 3}, "num_beams 3: has no effect on a task of kind choose"),
        ({"length_penalty": 1.0}, "use candidate_length_penalty"),
        ({"packing": True}, "packing True: has no effect"),
        ({"classification_head": "pad", "lora": True}, "lora True: not beside classification_head"),
        ({"classification_head": "pad", "multi_token": True}, "multi_token True: has no effect beside"),
        ({"metric_for_best_model": "bleu"}, "metric_for_best_model bleu: unknown"),
        ({"candidate_length_penalty": "nan"}, "use a finite number"),
    ],
)
def test_options_that_do_not_go_together(workspace, cloze, options, told):
    with pytest.raises(UsageError, match=told):
        workspace.finetune("unused", **cloze | options)


def test_options_of_choices_mean_nothing_for_texts(workspace):
    for options in ({"loss_func": "mix"}, {"multi_token": True}, {"classification_head": "pad"}, {"pattern_id": 1}):
        with pytest.raises(UsageError, match="has no effect on"):
            workspace.finetune("unused", **options)


def test_bad_rows_are_told_before_anything_is_built(workspace, cloze):
    path = workspace.folder / "bad.json"
    write_records(path, [{"context": "水", "question": "冰", "label": "four"}])
    with pytest.raises(InputError, match=r"bad.json, line 1, field label: 'four' is none of two, three"):
        workspace.finetune("unused", **{**cloze, "train_file": path})


def test_a_model_without_a_head_cannot_classify(workspace, cloze):
    run = workspace.finetune("no-head", **{**cloze, "max_steps": 1, "do_eval": None, "dev_file": None})
    with pytest.raises(InputError, match=f"has no {HEAD_NAME}; train one"):
        workspace.predict(model_name_or_path=run, classification_head="pad", test_file=cloze["dev_file"])
