"""The front door: what it lists, how quickly, and what it says to what is no verb or no option."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glm.__main__ import TRAINS, VERBS, main
from glm.errors import UsageError

COMMANDS = [verb for verb in VERBS if verb not in TRAINS]
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_lists_all_verbs(capsys, argv):
    assert main(argv) is None
    printed = capsys.readouterr().out
    assert all(f"  {verb} " in printed and text in printed for verb, text in VERBS.items())


@pytest.mark.parametrize(
    ("verbs", "heavy"),
    [
        ([], {"numpy", "rich", "tqdm"}),
        (["score", "compare"], {"numpy", "rich", "tqdm"}),
        (COMMANDS, {"paddle", "paddlenlp", "jieba", "sacrebleu", "matplotlib", "pyarrow"}),
    ],
)
def test_help_loads_nothing_heavy(verbs, heavy):
    code = (
        "import sys, glm.__main__\n"
        "glm.__main__.main(['--help'])\n"
        f"for verb in {verbs}:\n"
        "    try: glm.__main__.main([verb, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "glm.__main__" in loaded and heavy & loaded == set(), done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(capsys, verb):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"usage: python -m glm {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [verb for verb in COMMANDS if verb != "doctor"])  # which needs no option
def test_wrong_usage_of_a_verb_is_one_line(verb):
    with pytest.raises(UsageError, match="required.*--help lists the options"):
        main([verb])


def test_no_verb():
    with pytest.raises(UsageError, match=r"scoer: no such verb; did you mean score\?; one of doctor, check, show, "):
        main(["scoer", "x"])


def test_options_of_verbs_without_dashes(tmp_path, monkeypatch, capsys):
    """As the two scripts take them; a file of that name, and the value of an option, stay what they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text('{"prediction": "a", "reference": "a"}\n' * 2)
    main(["score", "p.jsonl", "format=json"])
    assert json.loads(capsys.readouterr().out)["records"] == 2
    (tmp_path / "format=json").write_text('{"prediction": "a", "reference": "a"}\n')
    main(["score", "format=json"])
    assert "scores of format=json" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--fail_under format=3: no figure of this name"):
        main(["score", "p.jsonl", "--fail_under", "format=3"])
