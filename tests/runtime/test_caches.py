"""Where caches are, and whom they are shared with: nobody."""

import os
import stat
from pathlib import Path

import pytest

from glm.runtime.caches import private_cache, user_cache


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "glm"


def test_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "glm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "glm"


def test_a_private_one_is_made_and_found_again(home):
    before = os.umask(0)
    try:
        folder = private_cache("x")
    finally:
        os.umask(before)
    assert folder == private_cache("x") == home / "x" and mode(folder) == 0o700


@pytest.mark.parametrize("how", ["open to others", "a link", "a file", "no home"])
def test_one_that_others_could_have_made_is_not_used(home, tmp_path, how):
    home.mkdir()
    if how == "open to others":
        (home / "x").mkdir()
        (home / "x").chmod(0o777)
    elif how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (home / "x").symlink_to(tmp_path / "elsewhere")
    elif how == "a file":
        (home / "x").write_text("")
    else:
        home.rmdir()
        home.write_text("")
    folder = private_cache("x")
    assert folder != home / "x" and mode(folder) == 0o700 and folder.is_dir()


def test_one_of_another_user_is_not_used(home, monkeypatch):
    folder = private_cache("x")
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert private_cache("x") != folder
