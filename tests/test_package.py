"""`pip install .`: into an empty environment, used from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import glm

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("predict.py", "finetune_generation.py")
REQUIREMENTS = ("requirements.txt", "requirements-train.txt")
SOURCES = ("glm", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE", *SCRIPTS, *REQUIREMENTS)


def run(*command: object, cwd: Path, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    words = list(map(str, command))
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Made of a copy, as pip makes it; nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, folder / "source" / name)
    pip = sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"
    run(*pip, "-w", folder, folder / "source", cwd=folder)
    return next(folder.glob("glm-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """An environment with nothing but the package."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", wheel, cwd=folder)
    return folder


def test_all_files_are_in_it_and_no_other(wheel):
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {path.relative_to(ROOT) for path in (ROOT / "glm").rglob("*") if path.is_file()}
    wanted = {path.as_posix() for path in wanted if "__pycache__" not in path.parts}
    wanted |= {f"glm/configs/model/{path.name}" for path in (ROOT / "configs" / "model").glob("*.json")}
    assert found == wanted | {f"glm/scripts/{name}" for name in SCRIPTS}


def test_it_needs_what_the_requirements_say(wheel):
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith("/METADATA"))
        lines = files.read(name).decode().splitlines()
    needed = {line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")}
    of_training = {line for line in needed if 'extra == "train"' in line}
    assert f"Version: {glm.__version__}" in lines
    assert needed - of_training == {f"{name}=={version(name)}" for name in pinned("requirements.txt")}
    assert {line.partition(";")[0] for line in of_training} == {
        f"{name}=={version(name)}" for name in pinned("requirements-train.txt")
    }
    assert not any(line.startswith("paddlenlp") for line in needed - of_training)


def pinned(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line.partition("==")[0] for line in lines if "==" in line and not line.startswith("#")]


def test_an_empty_environment_imports_it_from_another_folder(environment, tmp_path):
    code = "import glm; from glm.models.presets import preset_file; print(glm.__version__, preset_file('tiny.json'))"
    version_, preset = run(environment / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert version_ == glm.__version__ and Path(preset).is_relative_to(environment)
    printed = run(environment / "bin" / "glm", "--help", cwd=tmp_path)
    assert all(f"\n  {verb} " in printed for verb in ("check", "train", "predict"))


def test_its_command_runs_the_scripts_in_another_folder(environment, tmp_path):
    """With this environment's packages beside it. A file that is called as a script is not taken for it."""
    (tmp_path / "predict.py").write_text("raise SystemExit('not this one')", encoding="utf-8")
    beside = {"PYTHONPATH": sysconfig.get_paths()["purelib"], "OMP_NUM_THREADS": "1"}
    for command in (["glm"], ["python", "-m", "glm"]):
        command[0] = environment / "bin" / command[0]
        assert "--num_beams" in run(*command, "predict", "--help", cwd=tmp_path, **beside)
    code = "import glm, glm.serving.server, glm.report.page, glm.report.model_card; print(glm.__file__)"
    printed = run(environment / "bin" / "python", "-c", code, cwd=tmp_path, **beside)
    assert Path(printed.strip()).is_relative_to(environment)
