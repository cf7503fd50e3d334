"""Faults of the original that made its published numbers (section 11 of its fact sheet), by their numbers, where no
other test has them. With their subjects stand those of 1 (languages that pool by id), 2 (windows dropped in tests), 4
(pairs of languages), 9 (one summary in tests) and 11 (random weights in place of a checkpoint that is missing)."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from glm.data.check import check_file
from glm.data.choices import ChoiceEncoder
from glm.data.columns import RECOGNISED
from glm.data.examples import ExampleEncoder
from glm.data.formats import Row
from glm.data.frames import encoder_of
from glm.data.records import RecordFile
from glm.data.task_records import open_records, reader_of
from glm.data.task_table import TASKS, find_frame, in_language
from glm.data.templates import TEMPLATES
from glm.errors import InputError, UsageError
from glm.models.mglm import FAMILY
from glm.models.mglm.configuration import MGLMConfig
from glm.options.finetune import parse_finetune_arguments
from glm.prediction.choosing import Chooser, predict
from tools.run_tools import make_workspace, write_records

PAIR = {"sentence1": "春天来了。", "sentence2": "山上的花都开了。", "label": "1", "id": "x"}


@pytest.fixture(scope="module")
def pieces(sentencepiece_file):
    return FAMILY.open_tokenizer(sentencepiece_file)


@pytest.fixture(scope="module")
def model(pieces):
    config = MGLMConfig(num_layers=1, hidden_size=16, num_attention_heads=2, vocab_size=384, max_sequence_length=129)
    model = FAMILY.model_class()(config)
    random = np.random.default_rng(1)
    for parameter in model.parameters():
        parameter.set_value(random.normal(0.0, 0.2, parameter.shape).astype("float32"))
    model.eval()
    return model


def test_3_one_pattern_gives_one_prediction(model, pieces):
    """The original evaluates four patterns and keeps whichever is written last."""
    found = {}
    for pattern in (None, 0, 1, 2, 3):
        encoder = ChoiceEncoder(FAMILY, pieces, TASKS["pawsx"], src_length=120, tgt_length=9, pattern_id=pattern)
        records = list(reader_of(encoder.task, RECOGNISED, pattern_id=pattern).records(Row(1, "f, line 1", PAIR)))
        rows = dict(predict(Chooser(model, encoder, 2), dict(enumerate(records))))
        assert len(rows) == 1
        found[pattern] = [candidate["score"] for candidate in rows[0]["candidates"]]
    assert found[None] == found[0]
    assert len({tuple(scores) for scores in found.values()}) == 4  # and each of the four has scores of its own


@pytest.mark.parametrize(
    ("task", "language", "told"),
    [("xnli", "zh", "Answer"), ("squad", "zh", "Question Answer"), ("xnli", "en", None), ("xnli_zh", "zh", None)],
)
def test_5_english_words_around_other_languages_are_told(task, language, told, tmp_path, pieces):
    asked = {"id": "q", "context": "青石镇位于河的北岸。", "question": "在哪里？", "answers": ["北岸"]}
    row = asked if task == "squad" else {"premise": "下雨了。", "hypothesis": "天晴。", "label": "neutral"}
    write_records(tmp_path / "rows.json", [row])
    words = "水=neutral,铁=entailment,人=contradiction" if task == "xnli_zh" else None
    frame = in_language(find_frame(task, None, None, words), language)
    encoder = encoder_of(FAMILY, pieces, frame, src_length=255, tgt_length=9)
    check, batches = check_file(open_records(tmp_path / "rows.json", frame), encoder)
    assert sum(map(len, batches)) == 1
    notes = [note for note in check.notes if "stay English" in note]
    assert len(notes) == (told is not None)
    assert told is None or (f"{told})" in notes[0].replace(" Maybe True False", "") and "texts in zh" in notes[0])


def test_6_training_data_are_neither_cut_nor_replaced(tmp_path):
    """The original reads 40,000 rows, and papers of another data set in tests, whatever it is given."""
    write_records(tmp_path / "train.json", [{"source": f"文{n}", "target": "字"} for n in range(40_001)])
    found = [record.source for record in RecordFile(tmp_path / "train.json", TEMPLATES["ncls"])]
    assert len(found) == 40_001 and found[-1] == "文40000"


def test_7_a_configuration_stores_what_it_is_made_with(tmp_path):
    """The original has no flag for one of these, and no configuration that has the other."""
    options = {"sandwich_ln": True, "pb_relax": True}
    MGLMConfig(num_layers=1, hidden_size=4, num_attention_heads=2, **options).save_pretrained(str(tmp_path))
    stored = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert {name: stored[name] for name in options} == options
    opened = MGLMConfig.from_pretrained(str(tmp_path))
    assert (opened.sandwich_ln, opened.pb_relax) == (True, True)


@pytest.mark.parametrize("name", ["ncls", "ncls_multitask", "lcsts", "mt5_summary"])
def test_8_a_long_text_is_cut_and_not_what_is_asked_behind_it(name, pieces, tmp_path):
    """mT5's script: the tokenizer cuts the prompt off."""
    rows = [{"source": "图书馆里有十二万册图书。" * 9, "target": "字", "tgt_lang": "zh"}]
    write_records(tmp_path / "rows.json", rows)
    template = TEMPLATES[name]
    (record,) = RecordFile(tmp_path / "rows.json", template)
    encoder = ExampleEncoder(FAMILY, pieces, template, src_length=40, tgt_length=9)
    ids = list(encoder.source_ids(record))
    prompt = pieces.encode_text(template.summaries.prompts["zh"])
    assert len(ids) == 40 and ids[-1 - len(prompt) : -1] == prompt


def test_10_no_second_file_overrides_a_flag(tmp_path, sentencepiece_file):
    """There, DeepSpeed's file has the last word on batch, rate and decay. Here a run has one file, the command line
    comes before it, and what another tool's file would set is unknown."""
    space = make_workspace(tmp_path, sentencepiece_file)
    config = tmp_path / "recipe.json"
    config.write_text(json.dumps({"learning_rate": 0.25, "weight_decay": 0.5}), encoding="utf-8")
    base = ["--do_train", "--output_dir", "o", "--device", "cpu", "--train_file", str(space.folder / "train.json")]
    found = parse_finetune_arguments([str(config), *base, "--learning_rate", "0.125"]).training
    assert (found.learning_rate, found.weight_decay) == (0.125, 0.5)
    for given in ([str(config), *base, "--deepspeed_config", str(config)], [str(config), str(config), *base]):
        with pytest.raises((UsageError, SystemExit)):
            parse_finetune_arguments(given)


# -- checkpoints and tokenizers that do not fit


def folder_of(tmp_path, *, rows, without=()):
    """A folder with a model whose vocabulary has so many rows; `without` are ends of names that it lacks."""
    settings = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "vocab_size": rows}
    settings |= {"max_sequence_length": 129}
    folder = tmp_path / "model"
    folder.mkdir()
    config = MGLMConfig(**settings)
    config.save_pretrained(str(folder))
    shapes = FAMILY.weights.shapes(config.to_dict())
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items() if not name.endswith(without)}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("rows", "without", "told"),
    [
        (256, (), r"256 words, but the tokenizer has 35\d"),
        (384, ("mlp.dense_h_to_4h.weight",), "mlp.dense_h_to_4h.weight"),
    ],
    ids=["vocabulary", "partial"],
)
def test_a_run_refuses_what_does_not_fit(tmp_path, sentencepiece_file, rows, without, told):
    """Fewer rows than the tokenizer has tokens; parameters that a fine-tuned file of the original lacks."""
    space = make_workspace(tmp_path, sentencepiece_file)
    write_records(tmp_path / "pairs.json", [PAIR])
    folder = folder_of(tmp_path, rows=rows, without=without)
    with pytest.raises(InputError, match=f"(?s){told}"):
        space.finetune(
            "run",
            model_name_or_path=folder,
            train_file=tmp_path / "pairs.json",
            task_name="pawsx",
            num_beams=None,
            tgt_length=9,
            max_steps=1,
        )
    assert not (tmp_path / "run" / "model.safetensors").exists()
