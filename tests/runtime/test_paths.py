"""Paths without what identifies a user, and back."""

import shlex
import subprocess

import pytest

from glm.runtime.paths import found_path, path_from, published, published_command


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "me" / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setattr("glm.runtime.environment.HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path / "me" / "work")
    return tmp_path / "me"


def test_texts(home):
    here = home / "work"
    for text, expected in {
        f"{here}/data/train.json: 3 rows": "data/train.json: 3 rows",
        f"from {home}/data ({here})": "from ~/data (.)",
        f"--train_file={home}/a --x '{home}/b c'": "--train_file=~/a --x '~/b c'",
        f"{home}": "~",
        f"{home}other/x and /mnt{home}/x": f"{home}other/x and /mnt{home}/x",
        "relative/x": "relative/x",
        "/usr/share/x": "/usr/share/x",
        "": "",
    }.items():
        assert published(text) == expected


@pytest.mark.parametrize("home_of", ["/", ""])
def test_a_user_without_home(monkeypatch, tmp_path, home_of):
    monkeypatch.setenv("HOME", home_of)
    monkeypatch.chdir(tmp_path)
    assert published(f"/etc/x {tmp_path}/y") == "/etc/x y"


def test_a_command_means_the_same(home):
    words = ["echo", f"--a={home}/x", "--b", f"{home}/y z", f"--c={home}/p q", f"{home}/w", "--d=k l", "$x"]
    text = published_command(shlex.join(words))
    assert str(home) not in text
    said = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout
    assert said == f"--a {home}/x --b {home}/y z --c {home}/p q {home}/w --d=k l $x\n"


def test_a_path_beside_a_run_and_back(home):
    base, run = home / "runs" / "base", home / "runs" / "adapter"
    (run / "checkpoint-3").mkdir(parents=True)
    base.mkdir()
    name = path_from(base, run)
    assert name == "../base"
    assert found_path(name, run) == found_path(name, run / "checkpoint-3", run) == str(base)
    elsewhere = home / "models" / "m"
    elsewhere.mkdir(parents=True)
    assert path_from(elsewhere, run) == "~/models/m" and found_path("~/models/m", run) == str(elsewhere)
    assert path_from("/opt/m", run) == found_path("/opt/m", run) == "/opt/m"
    assert path_from(elsewhere) == "~/models/m" and found_path("THUDM/glm-2b", run) == "THUDM/glm-2b"
