"""XNLI by GanLM's discriminator: languages by option, each with its figures, and the classifier of a checkpoint."""

import json

import numpy as np
import pytest

from glm.data.pairs import PairCollator, PairEncoder
from glm.data.task_table import TASKS
from glm.errors import InputError, UsageError
from glm.models.ganlm import FAMILY
from glm.models.ganlm.geometry import XNLI_CLASSES
from glm.modules.classifier import head_scores
from glm.prediction.heads import HEAD_NAME, add_head
from tools.run_tools import PLACES, Workspace, make_workspace, read_lines, write_records
from tools.unilm_tools import tensors

MODEL = {
    "model_type": "ganlm",
    "hidden_size": 32,
    "mlp_size": 48,
    "num_attention_heads": 4,
    "encoder_layers": 1,
    "generator_layers": 1,
    "discriminator_layers": 1,
    "max_source_positions": 60,
    "max_target_positions": 60,
    "attention_dropout_prob": 0.0,
    "output_dropout_prob": 0.0,
    "embedding_dropout_prob": 0.0,
}
WORDS = {"entailment": "人口", "neutral": "大约", "contradiction": "多少"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, ganlm_folder) -> Workspace:
    made = make_workspace(tmp_path_factory.mktemp("xnli"), ganlm_folder)
    (made.folder / "model.json").write_text(json.dumps(MODEL), encoding="utf-8")
    for number, language in enumerate(("en", "zh")):
        rows = [
            {"premise": f"{place}有人口", "hypothesis": f"{word}{place}", "label": label}
            for place in PLACES[number::2]
            for label, word in WORDS.items()
        ]
        for split in ("train", "dev", "test"):
            write_records(made.folder / f"{split}.{language}.json", rows)
    return made


def options(workspace, **more) -> dict:
    """Of a run on both languages."""
    given = {"task_name": "xnli", "classification_head": "start", "start": "discriminator", "src_length": 40}
    given |= {"template": None, "num_beams": None, "tgt_length": None, "max_steps": 60, "learning_rate": 5e-3}
    given |= {"train_file": f"{workspace.folder}/train.{{lang}}.json", "train_langs": "en,zh"}
    return given | more


def test_two_languages_are_learnt_and_judged_by_their_mean(workspace):
    run = workspace.finetune(
        "xnli",
        **options(workspace, do_eval=True, dev_file=f"{workspace.folder}/dev.{{lang}}.json", eval_langs="en, zh"),
        do_predict=True,
        test_file=f"{workspace.folder}/test.{{lang}}.json",
    )
    figures = read_lines(run / "metrics.jsonl")[-1]
    assert figures["eval_accuracy"] == pytest.approx((figures["eval_en/accuracy"] + figures["eval_zh/accuracy"]) / 2)
    assert figures["eval_accuracy"] > 90
    assert (run / HEAD_NAME).is_file()
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["classifier_sees_all"] and config["discriminator_layers"] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_langs": "en,fr"}, r"train_langs en,fr: there is no train_file of fr, .*train\.fr\.json"),
        ({"train_langs": "en,zh,en"}, "train_langs en,zh,en: en stands there twice"),
        ({"train_langs": None}, r"train_file .*: \{lang\} needs train_langs"),
        ({"eval_langs": "en"}, r"eval_langs en: has no effect; write \{lang\} into the name of dev_file"),
        ({"classification_head": "cls"}, "classification_head cls: GanLM classifies by the decoder's first place"),
        ({"start": "both"}, "classification_head start: the decoder that this model has sees nothing but"),
        ({"src_length": 80}, "src_length 80: the model has 60 positions"),
    ],
)
def test_what_cannot_be_is_refused(workspace, changed, message):
    with pytest.raises((InputError, UsageError), match=message):
        workspace.finetune("refused", **options(workspace, **changed))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"premise": "人口", "hypothesis": "多少", "label": "maybe"}, r"bad\.json, line 1.*label"),
        ({"premise": "人口", "label": "neutral"}, r"bad\.json, line 1.*hypothesis"),
        ({"premise": "", "hypothesis": "多少", "label": "neutral"}, r"bad\.json, line 1.*premise"),
    ],
)
def test_rows_without_a_text_or_with_another_label_are_refused(workspace, row, message):
    path = workspace.folder / "bad.json"
    write_records(path, [row])
    with pytest.raises(InputError, match=message):
        workspace.finetune("bad", **options(workspace, train_file=str(path), train_langs=None))


def test_a_classifier_that_a_checkpoint_brings_is_taken_over(ganlm_model, ganlm_tokenizer, tmp_path):
    """Its classes are those of the original, the task's have another order."""
    model = ganlm_model(vocab_size=ganlm_tokenizer.vocab_size, classes=3, classifier_sees_all=True)
    encoder = PairEncoder(FAMILY, ganlm_tokenizer, TASKS["xnli"], pool="start", src_length=40, pattern_id=None)
    own = model.classification_head
    batch = PairCollator(encoder).read([FAMILY.geometry(ganlm_tokenizer, None).pair([5, 6, 7], [8, 9], "start")])
    model.eval()
    wanted = own(model.labelled_states(**tensors(batch))).numpy()
    add_head(model, encoder, str(tmp_path), is_trained=True)
    order = [XNLI_CLASSES.index(label) for label in encoder.pattern.labels]
    assert order != [0, 1, 2] and model.config.classes == 0
    np.testing.assert_allclose(head_scores(model, batch), wanted[:, order], rtol=0, atol=1e-6)


def test_a_classifier_of_other_classes_is_refused(ganlm_model, ganlm_tokenizer, tmp_path):
    model = ganlm_model(vocab_size=ganlm_tokenizer.vocab_size, classes=3, classifier_sees_all=True)
    encoder = PairEncoder(FAMILY, ganlm_tokenizer, TASKS["rte"], pool="start", src_length=40, pattern_id=None)
    with pytest.raises(InputError, match="the model's own is for contradiction, entailment, neutral, and rte has"):
        add_head(model, encoder, str(tmp_path), is_trained=True)
