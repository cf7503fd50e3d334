"""What surrounds generation: rows of the predictions file, scores, and the checks before a run. No model."""

import json
import types

import pytest

from glm.arguments import DataArguments, ModelArguments
from glm.data.records import Record
from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.prediction import (
    Prediction,
    _never_generated,
    build_encoder,
    check_positions,
    score_predictions,
    write_predictions,
    write_scores,
)
from glm.training.setup import (
    CHECKPOINT_FILES,
    check_metric,
    check_output_folder,
    check_start_is_kept,
    clear_earlier_run,
    find_checkpoint,
)


def prediction_of(*texts, question="谁？", identity=7) -> Prediction:
    return Prediction(Record(identity, "甲乙丙", "乙", question, "d.json, line 1"), list(texts))


# -- rows


def test_row():
    prediction = prediction_of(("什么？", -0.12345649), ("谁？", -2.0))
    assert prediction.as_row() == {
        "id": 7,
        "source": "甲乙丙",
        "answer": "乙",
        "predictions": [{"text": "什么？", "score": -0.123456}, {"text": "谁？", "score": -2.0}],
        "reference": "谁？",
    }
    assert prediction.best == "什么？"


def test_row_without_reference():
    row = prediction_of(("甲", 0.0), question=None, identity="a").as_row()
    assert list(row) == ["id", "source", "answer", "predictions"] and row["id"] == "a"


def test_row_without_hypotheses():
    prediction = prediction_of()
    assert prediction.best == "" and prediction.as_row()["predictions"] == []


def test_written_lines(tmp_path):
    path = tmp_path / "new" / "folder" / "out.jsonl"
    predictions = [prediction_of(("第一\n行\u2028", -1.0), identity=2), prediction_of(("b", -2.0), question=None)]
    write_predictions(path, predictions)
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines[-1] == "" and len(lines) == 3
    assert [json.loads(line) for line in lines[:-1]] == [prediction.as_row() for prediction in predictions]
    assert "甲乙丙" in lines[0]


def test_written_scores(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    write_scores(path, {"bleu-4 (char)": 61.5, "rouge-l (jieba)": 70.0})
    assert json.loads(path.read_text(encoding="utf-8")) == {"bleu-4 (char)": 61.5, "rouge-l (jieba)": 70.0}


# -- scores


def test_scores_are_of_the_best_text():
    scores = score_predictions(
        [
            prediction_of(("白鹿湖在哪里", -0.1), ("别的", -0.2), question="白鹿湖在哪里"),
            prediction_of(question="松江有多长"),
        ]
    )
    assert scores["rouge-l (char)"] == pytest.approx(50.0)
    assert scores["empty predictions"] == 1
    assert scores["generated length"] == 3.0


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("白鹿湖在哪里?", "白鹿湖在哪里？"),
        ("人口:3,000万(约)", "人口：３，０００万（约）"),
        ("白鹿湖ＡＢ？", "白鹿湖AB?"),
    ],
)
def test_width_of_characters_does_not_count(text, reference):
    scores = score_predictions([prediction_of((text, -1.0), question=reference)])
    assert scores["bleu-4 (char)"] == pytest.approx(100)
    assert scores["rouge-l (char)"] == pytest.approx(100)


def test_other_differences_count():
    scores = score_predictions([prediction_of(("白鹿湖在那里?", -1.0), question="白鹿湖在哪里？")])
    assert scores["rouge-l (char)"] == pytest.approx(100 * 6 / 7)


# -- checks before a run


@pytest.mark.parametrize(("src_length", "tgt_length", "fits"), [(608, 416, True), (608, 417, False), (1024, 1, False)])
def test_positions(tiny_config, src_length, tgt_length, fits):
    config = tiny_config(max_sequence_length=1024)
    data, generation = DataArguments(src_length=src_length), GenerationConfig(tgt_length=tgt_length)
    if fits:
        check_positions(config, data, generation)
        return
    with pytest.raises(InputError) as caught:
        check_positions(config, data, generation)
    assert str(caught.value) == (
        f"src_length {src_length} + tgt_length {tgt_length} = {src_length + tgt_length}: the model has 1024 positions "
        "(max_sequence_length); shorten one of them"
    )


def test_encoder_follows_the_arguments(tokenizer):
    data = DataArguments(src_length=99, no_block_position=True)
    encoder = build_encoder(tokenizer, data, GenerationConfig(tgt_length=33))
    assert (encoder.src_length, encoder.tgt_length, encoder.geometry.block_position) == (99, 33, False)
    assert encoder.template.target_prefix == "在已知答案的前提下，问题："
    encoder = build_encoder(tokenizer, DataArguments(), GenerationConfig())
    assert (encoder.src_length, encoder.tgt_length, encoder.geometry.block_position) == (608, 160, True)
    with pytest.raises(InputError, match="tgt_length 33: no room for min_tgt_length 30 tokens"):
        build_encoder(tokenizer, DataArguments(), GenerationConfig(tgt_length=33, min_tgt_length=30))
    with pytest.raises(InputError, match="task_name summaries: unknown; known tasks: dureader_qg"):
        build_encoder(tokenizer, DataArguments(task_name="summaries"), GenerationConfig())


def test_output_folder_that_is_free(tmp_path):
    check_output_folder(str(tmp_path / "new"), overwrite=False, resumes=False)
    check_output_folder(str(tmp_path), overwrite=False, resumes=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.safetensors", ".hidden", "checkpoint-5"])
def test_output_folder_that_is_not_empty(tmp_path, name):
    (tmp_path / name).write_text("kept")
    with pytest.raises(InputError) as caught:
        check_output_folder(str(tmp_path), overwrite=False, resumes=False)
    assert str(caught.value) == (
        f"output_dir {tmp_path}: is not empty; choose another, or add --overwrite_output_dir or "
        "--resume_from_checkpoint true"
    )
    check_output_folder(str(tmp_path), overwrite=True, resumes=False)
    check_output_folder(str(tmp_path), overwrite=False, resumes=True)
    assert (tmp_path / name).read_text() == "kept"


def test_output_folder_that_is_a_file(tmp_path):
    path = tmp_path / "out"
    path.write_text("")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=f"output_dir {path}: is a file"):
            check_output_folder(str(path), overwrite=overwrite, resumes=overwrite)


def test_clearing_takes_only_what_a_run_left(tmp_path):
    for name in ("checkpoint-5", "checkpoint-10", "eval", "my-checkpoint-1", "checkpoint-final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    (tmp_path / "eval" / "step-5.jsonl").write_text("")
    for name in ("metrics.jsonl", "eval_results.json", "predictions.jsonl", "notes.txt", "model.safetensors"):
        (tmp_path / name).write_text("")
    clear_earlier_run(str(tmp_path))
    left = {"eval", "my-checkpoint-1", "checkpoint-final", "notes.txt", "model.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["file"]
    clear_earlier_run(str(tmp_path))
    clear_earlier_run(str(tmp_path / "nowhere"))


@pytest.fixture
def checkpoints(tmp_path):
    """A run's folder with checkpoints 5, 10 and 9, whole ones."""
    for step in (5, 10, 9):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in CHECKPOINT_FILES:
            (folder / name).write_text("")
    (tmp_path / "checkpoint-final").mkdir()
    return types.SimpleNamespace(folder=str(tmp_path), newest=str(tmp_path / "checkpoint-10"))


@pytest.mark.parametrize("wish", ["true", "True", "TRUE"])
def test_newest_checkpoint(checkpoints, wish):
    assert find_checkpoint(wish, checkpoints.folder) == checkpoints.newest


def test_checkpoint_by_its_folder(checkpoints, tmp_path):
    wish = str(tmp_path / "checkpoint-5")
    assert find_checkpoint(wish, "elsewhere") == wish
    assert find_checkpoint(None, checkpoints.folder) is None


def test_no_checkpoint(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError) as caught:
            find_checkpoint("true", str(folder))
        assert str(caught.value) == f"resume_from_checkpoint true: no checkpoint in {folder}"
    with pytest.raises(InputError) as caught:
        find_checkpoint(str(tmp_path), "elsewhere")
    missing = "model.safetensors, trainer_state.json, optimizer.pdopt, scheduler.pdparams missing"
    assert str(caught.value) == f"resume_from_checkpoint {tmp_path}: not a whole checkpoint ({missing})"


def test_newest_whole_checkpoint(checkpoints, tmp_path):
    """A kill while saving leaves a folder without the files that are written last."""
    (tmp_path / "checkpoint-15").mkdir()
    assert find_checkpoint("true", checkpoints.folder) == checkpoints.newest
    for name in CHECKPOINT_FILES:
        assert find_checkpoint("true", checkpoints.folder) == checkpoints.newest
        (tmp_path / "checkpoint-15" / name).write_text("")
    assert find_checkpoint("true", checkpoints.folder) == str(tmp_path / "checkpoint-15")


def test_a_model_in_the_folder_to_be_overwritten_is_kept(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    inside = str(tmp_path / "checkpoint-2")
    with pytest.raises(InputError, match="model_name_or_path .*checkpoint-2: lies in the output_dir"):
        check_start_is_kept(ModelArguments(model_name_or_path=inside), str(tmp_path))
    with pytest.raises(InputError, match="tokenizer_name_or_path .*checkpoint-2: lies in the output_dir"):
        check_start_is_kept(ModelArguments("THUDM/glm-large-chinese", inside), str(tmp_path))
    check_start_is_kept(ModelArguments(model_name_or_path=inside), str(tmp_path / "elsewhere"))


def test_metric_for_best_model():
    for name in (None, "loss", "eval_loss", "bleu-4 (char)", "eval_rouge-l (jieba)"):
        check_metric(name)
    with pytest.raises(InputError, match=r"metric_for_best_model bleu-4: unknown; did you mean bleu-4 \(char\)"):
        check_metric("bleu-4")


def test_ids_that_are_no_text_are_never_generated(tokenizer):
    """340 pieces, of which 0 to 2 are unknown and control pieces; eop is 347; the vocabulary is padded to 384."""
    model = types.SimpleNamespace(config=types.SimpleNamespace(vocab_size=384, bad_words_id=[17, 349]))
    encoder = build_encoder(tokenizer, DataArguments(), GenerationConfig())
    assert _never_generated(model, encoder) == [0, 1, 2, 17, *range(340, 347), *range(348, 384)]
