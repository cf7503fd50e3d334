"""`python -m glm check` as its users call it: the report, the exit code, options, and nothing heavy loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glm.commands.check import main
from glm.errors import InputError, UsageError
from glm.options.run_config import RUN_CONFIG_NAME

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"context": "白鹿湖在松江。", "answer": "松江", "question": "白鹿湖在哪里？"}
LENGTHS = ["--src_length", "60", "--tgt_length", "40"]


@pytest.fixture
def write(tmp_path):
    """A function: the name of a file with these rows."""

    def write(*rows: dict | str, name="a.json") -> str:
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        return str(tmp_path / name)

    return write


@pytest.fixture
def check(sentencepiece_file, capsys):
    """A function: exit code and what is printed, or the JSON of it."""

    def check(*argv: str, as_json=False):
        options = ["--format", "json"] if as_json else []
        code = main([*argv, *options, "--tokenizer_name_or_path", str(sentencepiece_file)])
        out = capsys.readouterr().out
        return code, json.loads(out) if as_json else out

    return check


def test_good_files(write, check):
    names = write(GOOD), write({**GOOD, "context": "青石镇在松江。"}, name="b.json")
    code, found = check(*names, *LENGTHS, as_json=True)
    assert (code, found["problems"]) == (0, 0)
    assert [(file["file"], file["read"], file["used"], file["refused"]) for file in found["files"]] == [
        (name, 1, 1, 0) for name in names
    ]
    code, text = check(*names, *LENGTHS)
    assert code == 0 and text.rstrip().endswith("no problems")
    assert f"{names[0]}: 1 rows read = 1 used + 0 refused (source = context, answer = answer, target = q" in text


def test_problems(write, check):
    train = write(GOOD, "bad", {**GOOD, "question": ""}, GOOD)
    dev = write(GOOD, name="dev.json")
    code, found = check(train, dev, *LENGTHS, as_json=True)
    assert (code, found["problems"]) == (1, 4)
    assert [(group["kind"], group["count"]) for file in found["files"] for group in file["problems"]] == [
        ("cannot be parsed", 1),
        ("empty field", 1),
        ("duplicate row", 1),
        ("row in two files", 1),
    ]
    code, text = check(train, dev, *LENGTHS)
    assert code == 1 and text.rstrip().endswith("4 problems")
    for line in (
        f"{train}: 4 rows read = 2 used + 2 refused",
        "  empty field, 1 times: fill the field in, or take the row out",
        f"    {train}, line 3, field question: empty",
        f"    {dev}, line 1: is in {train} too",
    ):
        assert line in text


def test_shown(write, check):
    name = write(*["bad"] * 5, GOOD)
    text = check(name, *LENGTHS, "--shown", "2")[1]
    assert text.count("not JSON") == 2 and "… and 3 more (--shown)" in text
    assert check(name, *LENGTHS)[1].count("not JSON") == 5


def test_text_without_pieces_is_printable(write, check):
    text = check(write({**GOOD, "context": "松江\x00龘"}), *LENGTHS)[1]
    assert "1 rows hold text that the tokenizer has no piece for: '\\x00龘'" in text and "\x00" not in text


def test_the_minimum_of_another_task(write, check):
    text = check(write(GOOD), "--min_tgt_length", "55")[1]
    assert "1 of 1 targets have fewer tokens than min_tgt_length 55" in text
    assert "--min_tgt_length" not in text  # the README says to leave it alone


def test_one_line_of_lengths_fits_all_files(write, check, tokenizer):
    long = {**GOOD, "context": "白鹿湖在松江。" * 9}
    names = write(GOOD, long), write({**GOOD, "question": "白鹿湖在哪里？" * 5}, name="dev.json")
    code, text = check(*names)
    lengths = [line for line in text.splitlines() if "lengths that fit" in line]
    found = check(*names, as_json=True)[1]["recommended"]
    assert code == 0
    assert lengths == [
        f"lengths that fit all files: --src_length {found['src_length']} --tgt_length {found['tgt_length']}"
    ]
    assert found["src_length"] >= len(tokenizer.encode_text(f"答案：松江，上下文：{long['context']}")) + 3
    assert check(*names, *lengths[0].split()[5:], as_json=True)[1]["files"][1]["cut_targets"] == 0


@pytest.mark.parametrize(
    "rows",
    [
        [GOOD, GOOD],
        [{**GOOD, "id": 1}, {**GOOD, "id": 1, "question": "谁？"}],
        [{**GOOD, "question": "白\u200b鹿湖？"}, {**GOOD, "question": "nan"}],
        [{**GOOD, "context": "白鹿湖\x00在松江。"}],
    ],
)
def test_what_training_accepts_is_no_failure(write, check, rows):
    code, found = check(write(*rows), *LENGTHS, as_json=True)
    assert code == 0 and found["refused"] == 0 and found["problems"] > 0
    assert check(write(*rows), *LENGTHS)[1].rstrip().splitlines()[-1].startswith("no rows are refused; ")


def test_lengths_and_templates_are_those_of_training(write, check):
    long = write({**GOOD, "context": "白鹿湖在松江。" * 20})
    assert check(long, *LENGTHS, as_json=True)[1]["files"][0]["cut_sources"] == 1
    assert check(long, as_json=True)[1]["files"][0]["cut_sources"] == 0
    own = write({"a": "甲", "b": "乙", "c": "丙"}, name="own.json")
    options = ["--template", "{a}：{source}[gMASK]", "--source_column", "b", "--target_column", "c"]
    assert check(own, *options, as_json=True)[1]["files"][0]["columns"] == "source = b, target = c, a = a"


def test_several_data_sets(write, check, tmp_path):
    """NAME=PATH as training takes it: a name that is a task's says how its file is laid out."""
    qg, mt = write(GOOD, name="one.json"), write({"source": "白鹿湖在松江。", "target": "松江"}, name="two.json")
    code, found = check(f"question_generation={qg}", f"mt={mt}", f"c={qg}", as_json=True)
    assert code == 0 and [file["file"] for file in found["files"]] == [qg, mt, qg]
    assert [file["columns"] for file in found["files"]] == [
        "source = context, answer = answer, target = question",
        "source = source, target = target",
        "source = context, answer = answer, target = question",
    ]
    sources = [file["lengths"]["source"]["tokens"]["max"] for file in found["files"]]
    assert sources[1] < sources[0]  # without the words of questions
    with pytest.raises(InputError, match=f"{tmp_path / 'none.json'}: cannot be read"):
        check(f"a={qg}", f"b={tmp_path / 'none.json'}")


def test_records_that_are_too_short_to_train_with(write, capsys):
    name = write({"source": "白鹿湖在松江。", "target": "松江。"}, {"source": "水", "target": "松江。"})
    tokenizer = ["--tokenizer_name_or_path", str(ROOT / "data" / "wordpiece")]
    assert main([f"mt={name}", *tokenizer]) == 1
    wanted = "line 2, field source: 1 of at least 2 tokens that training wants; leave it out"
    assert wanted in capsys.readouterr().out
    assert main([f"mt={name}", "--without_targets", *tokenizer]) == 0
    assert main([name, "--task_name", "mt", *tokenizer]) == 1


def test_cut_targets(write, check):
    name = write({**GOOD, "question": "白鹿湖在哪里？" * 9})
    assert check(name, *LENGTHS)[0] == 1
    code, found = check(name, *LENGTHS, "--allow_cut_targets", as_json=True)
    assert (code, found["files"][0]["cut_targets"]) == (0, 1)
    assert check(name, *LENGTHS, "--without_targets")[0] == 0


def test_records_to_predict(write, check):
    name = write({"context": "甲", "answer": "甲"})
    assert check(name, "--without_targets")[0] == 0
    with pytest.raises(InputError, match="no column is recognised as the target"):
        check(name)


def test_what_a_checkpoint_was_trained_with(write, tmp_path, sentencepiece_file, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "cog-pretrain.model").write_bytes(sentencepiece_file.read_bytes())
    settings = {"task_name": "pair", "src_length": 20, "tgt_length": 9, "learning_rate": 1.0, "num_beams": 4}
    (folder / RUN_CONFIG_NAME).write_text(json.dumps(settings))
    name = write({"source": "白鹿湖在松江。" * 9, "target": "甲"})
    argv = [name, "--tokenizer_name_or_path", str(folder), "--format", "json"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    (file,) = json.loads(printed.out)["files"]
    assert file["cut_sources"] == 1 and file["columns"] == "source = source, target = target"
    assert printed.err == f"from {folder}: --task_name pair --src_length 20 --tgt_length 9\n"
    assert main([*argv, "--src_length", "400"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["cut_sources"] == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: FILE"),
        (["a.json", "--tokenizer", "t"], "the following arguments are required: --tokenizer_name_or_path"),
        (["a.json", "--tokenizer_name_or_path", "t", "--src_length", "x"], "invalid int value: 'x'"),
        (["a.json", "--tokenizer_name_or_path", "t", "--src_length", "5"], "src_length 5: use 8 or more"),
        (["a.json", "--tokenizer_name_or_path", "t", "--shown", "-1"], "--shown -1: 0 or more"),
    ],
)
def test_wrong_usage(argv, message):
    with pytest.raises(UsageError, match=message):
        main(argv)


def test_unreadable(check, tmp_path):
    with pytest.raises(InputError, match="nowhere.json: cannot be read"):
        check(str(tmp_path / "nowhere.json"))


def test_nothing_heavy_is_loaded(write, sentencepiece_file):
    """Not even to check: PaddleNLP alone takes seconds."""
    code = (
        "import sys\nfrom glm.commands.check import main\nmain(sys.argv[1:])\nimport glm.commands.show\n"
        "print(sorted(set(sys.modules) & {'paddle', 'paddlenlp', 'jieba', 'datasets', 'matplotlib', 'pyarrow'}))"
    )
    argv = [write(GOOD), "--tokenizer_name_or_path", str(sentencepiece_file)]
    done = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert done.stderr == ""  # no progress bar where there is no terminal


# -- real data


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("dureader_qg", []),
        ("cmrc2018_qg", ["--task_name", "question_generation"]),
        ("csl_title", ["--task_name", "title"]),
        ("csl_title", ["--task_name", "summary"]),
        ("lcsts_sample", ["--task_name", "title"]),
        ("advertisegen", ["--task_name", "advertisement"]),
        ("unilm_paraphrase", ["--task_name", "paraphrase"]),
        ("iwslt2017_en_de", ["--task_name", "pair", "--source_column", "en", "--target_column", "de"]),
        ("e2e_nlg", ["--template", "{mr}[gMASK]", "--target_column", "ref"]),
    ],
)
def test_every_built_in_template_on_its_data(real_data, capsys, folder, options):
    files = sorted(map(str, (real_data / "data" / folder).glob("*.json")))
    tokenizer = real_data / "tokenizers" / "cog-pretrain.model"
    lengths = ["--src_length", "864", "--tgt_length", "400"]
    main([*files, *options, *lengths, "--format", "json", "--tokenizer_name_or_path", str(tokenizer)])
    found = json.loads(capsys.readouterr().out)["files"]
    for file in found:
        with open(file["file"], encoding="utf-8") as lines:
            assert file["read"] == file["used"] == sum(1 for _ in lines)
