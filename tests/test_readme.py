"""README.md and README.zh-CN.md: their commands run, without a network; both say the same; what they name exists."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from glm.generation.config import GenerationConfig
from glm.options.data import DataArguments
from glm.options.finetune import (
    AdapterArguments,
    DropoutArguments,
    FileArguments,
    FinetuneTrainingArguments,
    ObjectiveArguments,
)
from glm.options.model import ModelArguments
from glm.options.predict import PredictArguments

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
NO_NETWORK = Path(__file__).with_name("no_network")
FENCE = re.compile(
    r"(?:^<!-- not run[^\n:]*: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
GROUPS = (
    *(AdapterArguments, DataArguments, DropoutArguments, FileArguments, GenerationConfig),
    *(FinetuneTrainingArguments, ModelArguments, ObjectiveArguments, PredictArguments),
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and why it is not run, if the file says so."""

    language: str
    text: str
    reason: str | None

    @property
    def code(self) -> list[str]:
        """Its lines without comments, which are translated."""
        return [re.sub(r"\s+# .*", "", line) for line in self.text.splitlines()]


def blocks(path: Path) -> Iterator[Block]:
    for found in FENCE.finditer(path.read_text(encoding="utf-8")):
        yield Block(found["language"], found["text"], found["reason"])


# -- the commands


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The project as a reader has it; the model of `make demo` is the one that is trained on the way."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.suffix == ".py" or path.name in ("glm", "configs", "data"):
            (folder / path.name).symlink_to(path)
    (folder / "runs").mkdir()
    (folder / "runs" / "demo").symlink_to("mine")
    return folder


def run(folder: Path, command: str, *, language: str = "bash") -> subprocess.CompletedProcess:
    """Runs a block where no network can be reached. A training ends after two steps."""
    if language == "python":
        (folder / "example.py").write_text(command, encoding="utf-8")
        command = "python example.py"
    command = command.replace("\\\n", " ")
    command = re.sub(r"^(python finetune_generation\.py [^#\n]+)", r"\1 --max_steps 2", command, flags=re.M)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(NO_NETWORK) if language == "bash" else f"{NO_NETWORK}{os.pathsep}{folder}",
        "NETWORK_ATTEMPTS": str(folder / "attempts.txt"),
    }
    arguments = ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_every_command_runs_without_a_network(checkout):
    ran = 0
    for block in blocks(ENGLISH):
        if block.language in ("bash", "python") and block.reason is None:
            done = run(checkout, block.text, language=block.language)
            assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            ran += 1
    attempts = checkout / "attempts.txt"
    assert not attempts.exists(), attempts.read_text(encoding="utf-8")
    assert ran >= 9
    for result in ("runs/mine/report/report.html", "runs/mine/training.html", "questions.jsonl", "filled.jsonl"):
        assert (checkout / result).stat().st_size > 0


def test_the_network_is_blocked(tmp_path):
    """Otherwise the test before this one could not fail."""
    for call in ("create_connection(('127.0.0.1', 9))", "getaddrinfo('localhost', 80)"):
        done = run(tmp_path, f'python -c "import socket; socket.{call}"')
        assert done.returncode == 1 and "no network in a test" in done.stderr
    assert len((tmp_path / "attempts.txt").read_text(encoding="utf-8").splitlines()) == 2


# -- two languages


def headings(path: Path) -> list[str]:
    """The levels of the headings, in their order; a comment in a block is none."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return re.findall(r"^(#+) ", text, re.M)


def tables(path: Path) -> list[list[list[str]]]:
    """By table and row, what stands as code in the first column."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    found = re.findall(r"(?:^\|.*\n)+", text, re.M)
    return [[re.findall(r"`[^`]+`", row.split("|")[1]) for row in table.splitlines()] for table in found]


def test_same_headings():
    assert headings(ENGLISH) == headings(CHINESE)
    assert len(headings(ENGLISH)) > 10


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.name)
def test_links_lead_to_headings(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)", text, re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}  # as GitHub makes them
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert set(links) - anchors == set() and len(links) > 10


def test_same_blocks():
    english, chinese = list(blocks(ENGLISH)), list(blocks(CHINESE))
    assert [block.code for block in english] == [block.code for block in chinese]
    assert [block.reason is None for block in english] == [block.reason is None for block in chinese]


def test_same_tables():
    assert tables(ENGLISH) == tables(CHINESE)


def test_same_numbers():
    """Figures of the running text, of both files: a figure that is brought up to date in one only is found."""
    numbers = []
    for path in (ENGLISH, CHINESE):
        text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", FENCE.sub("", path.read_text(encoding="utf-8")))
        numbers.append(sorted(re.findall(r"\d+\.\d+", text)))
    assert numbers[0] == numbers[1]


# -- what is named exists


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.name)
def test_flags_exist(path):
    options = {item.name for group in GROUPS for item in dataclasses.fields(group)} | {"help", "debug"}
    commands = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "glm" / "commands").glob("*.py"))
    options |= set(re.findall(r'"--(\w+)"', commands))
    options |= {"gpus", "nproc_per_node"}  # of paddle.distributed.launch
    named = set(
        re.findall(
            r"--(\w+)\b(?!-)", re.sub(r"<!--| -->|^\|[- |:]+\|$", "", path.read_text(encoding="utf-8"), flags=re.M)
        )
    )
    assert named - options == set() and len(named) > 50


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.name)
def test_files_exist(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?:glm|configs|benchmarks|data|tests|docs)/[\w./-]*\w", text)
    missing = {name for name in named if not (ROOT / name).exists()}
    assert missing == set() and len(named) > 15


def test_messages_of_the_troubleshooting_table():
    sources = [*(ROOT / "glm").rglob("*.py"), *ROOT.glob("*.py")]
    said = "".join(path.read_text(encoding="utf-8") for path in sources)
    said = re.sub(r'"\n\s+f?"', "", said)  # a message written in several lines
    said = re.sub(r"\{[^{}]*\}", "{}", said)
    text = ENGLISH.read_text(encoding="utf-8")
    table = text[text.index("## Troubleshooting") :].split("\n\n")[1]
    messages = [re.findall(r"`([^`]+)`", row.split("|")[1])[0] for row in table.splitlines()[2:]]
    assert [message for message in messages if message not in said] == [] and len(messages) > 10
