"""`glm.load`: the texts of `predict.py`, its messages as exceptions, and nothing printed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

import glm
import predict
from glm.checkpoint.loading import load_config, load_model
from glm.cpu.compiling import CompilingNotice
from glm.errors import InputError, UsageError
from glm.models import registry
from glm.prediction.free_tasks import any_chooser
from glm.prediction.loaded import Candidate, LoadedModel

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "data" / "tokenizer" / "spm.model"
SIZES = {"num_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "max_sequence_length": 128}
LENGTHS = {"src_length": 48, "tgt_length": 10}
RECORDS = [
    {"context": "扬州位于江苏省中部，著名景点是瘦西湖。", "answer": "江苏省", "question": "扬州在哪里？"},
    {"context": "李白是唐代的诗人。", "answer": "李白"},
    {"context": "", "answer": "李白"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A GLM of weights large enough that its texts differ."""
    root, family = tmp_path_factory.mktemp("loaded"), registry.find("glm")
    (root / "sizes.json").write_text(json.dumps(SIZES), encoding="utf-8")
    tokenizer = family.open_tokenizer(BUNDLED)
    sizes = str(root / "sizes.json")
    model = load_model(family, sizes, load_config(family, sizes, tokenizer))
    numbers = np.random.default_rng(3)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.set_value(paddle.to_tensor(numbers.normal(0, 0.2, weight.shape).astype("float32")))
    model.save_pretrained(root / "model")
    family.save_tokenizer(tokenizer, root / "model")
    return str(root / "model")


@pytest.fixture(scope="module")
def model(folder) -> LoadedModel:
    return glm.load(folder, device="cpu", **LENGTHS)


def rows(folder: str, tmp_path: Path, *options: str) -> list[dict]:
    """What `predict.py` writes."""
    records, output = tmp_path / "records.jsonl", tmp_path / "rows.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    lengths = [f"--{name}={value}" for name, value in LENGTHS.items()]
    files = [] if "--fill" in options else [f"--test_file={records}"]
    assert predict.main(
        [f"--model_name_or_path={folder}", "--device=cpu", *lengths, *files, f"--output_file={output}", *options]
    ) == (0 if "--fill" in options else 3)
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3, "num_return_sequences": 3}, {"select_topk": False, "top_p": 0.9, "generation_seed": 5}],
    ids=["as trained", "beams", "drawn"],
)
def test_generates_what_the_script_does(folder, model, tmp_path, options):
    found = model.generate(RECORDS, **options)
    want = rows(folder, tmp_path, *(f"--{name}={value}" for name, value in options.items()))
    assert [prediction.as_row() for prediction in found] == [
        row | ({"error": prediction.error} if prediction.error else {})
        for row, prediction in zip(want, found, strict=True)
    ]
    first, _, third = found
    assert first.best == first.texts[0].text == want[0]["predictions"][0]["text"] != ""
    assert first.error is None and len(first.texts) == options.get("num_return_sequences", 1)
    assert first.texts[0].score == pytest.approx(want[0]["predictions"][0]["score"], abs=1e-6)
    assert third.error.startswith("record 3, field context: empty") and (third.best, third.texts) == ("", [])
    scores = [text.score for text in first.texts]
    assert scores == sorted(scores, reverse=True)


def test_fills_what_the_script_does(folder, model, tmp_path):
    text = "扬州位于[MASK]，著名景点是[MASK]。"
    (want,) = rows(folder, tmp_path, "--fill", text, "--num_beams=2")
    one, (again, bad) = model.fill(text, num_beams=2), model.fill([text, "长" * 200], num_beams=2)
    assert one == again and one.best == want["filled"] and one.text == text
    assert [[found.text for found in blank] for blank in one.blanks] == [
        [found["text"] for found in blank] for blank in want["blanks"]
    ]
    assert bad.best == "" and "do not fit into src_length 48" in bad.error


def test_texts_are_sources(model):
    model = glm.load(model._given["model_name_or_path"], device="cpu", task_name="paraphrase", **LENGTHS)
    assert [found.best for found in model.generate(["今天天气好。"])] == [
        found.best for found in model.generate([{"source": "今天天气好。"}])
    ]


def test_chooses_as_its_chooser(model):
    record = {"inputs": "这家店的菜很好吃。", "choices": ["好评", "差评"]}
    (choice,) = model.choose([record])
    encoder = any_chooser(model._own).encoder
    assert {found.label for found in choice.candidates} == {"好评", "差评"}
    assert sum(found.probability for found in choice.candidates) == pytest.approx(1, abs=1e-5)
    best = max(choice.candidates, key=lambda found: found.score)
    assert isinstance(best, Candidate) and choice.best == best.label and choice.error is None
    assert encoder.task.name == "choose"
    (answer,) = model.extract([{"question": "谁？", "context": "李白是诗人。"}])
    assert answer.error is None and answer.window == "李白是诗人。" and isinstance(answer.best, str)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda model: model.generate([{"x": "1"}]), InputError, "records: no column is recognised as the source"),
        (lambda model: model.generate(["text"]), InputError, "no column is recognised as the answer"),
        (lambda model: model.generate(RECORDS[0]), InputError, "records: a list of them is expected"),
        (lambda model: model.generate([3]), InputError, "record 1: a dict or a text is expected, not int"),
        (lambda model: model.generate(RECORDS, num_beam=5), UsageError, "option num_beam; did you mean num_beams?"),
        (lambda model: model.generate(RECORDS, num_beams=0), UsageError, "num_beams 0: use 1 or more"),
        (lambda model: model.generate(RECORDS, device="cpu"), UsageError, "device cpu: is of the loaded model; give"),
        (lambda model: model.generate(RECORDS, prefix="一" * 99), InputError, "leaves no room for min_tgt_length"),
        (lambda model: model.fill([{"text": "x"}]), InputError, "fill: texts are expected"),
        (lambda model: model.extract([], language="fr"), UsageError, "language fr: use zh or en"),
        (lambda model: glm.load("nowhere/at/all/", device="cpu"), InputError, "nowhere/at/all"),
        (lambda model: glm.load("/", device="cpu"), InputError, "/: the folder has no weights (model.safetensors"),
        (lambda model: glm.load("x", nmu_beams=5), UsageError, "unknown option nmu_beams; did you mean num_beams?"),
        (lambda model: glm.load("x", test_file="y"), UsageError, "test_file y: has no effect on a model that Python"),
    ],
)
def test_what_is_wrong_is_an_exception(model, capfd, monkeypatch, call, error, message):
    monkeypatch.setattr("paddlenlp.transformers.tokenizer_utils_base.resolve_file_path", _fails, raising=False)
    with pytest.raises(error) as raised:
        call(model)
    assert message in str(raised.value)
    assert capfd.readouterr() == ("", "")


def _fails(*args, **kwargs):
    raise ConnectionError("no route to host")


def test_no_records_give_no_predictions(model):
    assert model.generate([]) == model.fill([]) == model.choose([]) == model.extract([]) == []


# -- the first text


# In a process of its own: in this one all is compiled that any test has used.
FIRST_TEXTS = """
import json, sys
from numba.core.dispatcher import Dispatcher
import glm
from glm.prediction.warm_up import warm_up

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("glm.")]
    found = [item for module in modules for item in vars(module).items() if isinstance(item[1], Dispatcher)]
    return {{(name, str(types)) for name, kernel in found for types in kernel.signatures}}

model, records = glm.load({folder!r}, device="cpu", **{lengths}), {records}
warm_up(model._own)
before = compiled()
model.generate(records * 30)
model.generate(records, num_beams=1)
model.generate(records * 20, num_beams=1, select_topk=False)
model.fill(["扬州位于[MASK]，著名景点是[MASK]。", "北京"])
model.choose([{{"inputs": "菜很好吃。", "choices": ["好评", "差评", "都不是"]}}])
print(len(before), sorted(compiled() - before))
"""


def test_after_a_dummy_text_no_request_compiles(folder):
    """Alone and in a crowd, by beams and drawn, blanks and candidates."""
    code = FIRST_TEXTS.format(folder=folder, lengths=LENGTHS, records=RECORDS)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    count, more = done.stdout.split(" ", 1)
    assert int(count) > 3 and more.strip() == "[]"


def test_compiling_is_told_once_and_its_time(capsys):
    notice = CompilingNotice(kept=True)
    notice.report()
    for _ in range(2):
        notice.on_start(None)
        notice.on_start(None)  # a kernel that the first one calls
        notice.on_end(None)
        notice.on_end(None)
    notice.report()
    notice.report()
    begun, done = capsys.readouterr().err.splitlines()
    assert (
        begun == "compiling kernels for this processor, once for this machine and version; this takes up to a minute"
    )
    assert done.startswith("compiled 2 kernels in ") and done.endswith(" s")
