"""README and docs/: both languages say the same, what they name exists, and every option is in them."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from glm.__main__ import VERBS
from glm.__main__ import main as run_verb
from glm.models import registry
from glm.models.protocol import ABILITIES
from glm.options.finetune import FinetuneTrainingArguments, parse_finetune_arguments
from glm.options.predict import parse_predict_arguments
from tools.documents import FENCE, LANGUAGES, PAGES, README, ROOT, blocks, in_chinese, prose, read

FAMILIES_PAGE = ROOT / "docs" / "families.md"
PAIRS = pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
OTHERS = [ROOT / "CHANGELOG.md", *(ROOT / name for name in ("data/README.md", "tests/faults.md"))]
OTHERS += sorted((ROOT / "benchmarks").glob("*.md"))
EVERY = pytest.mark.parametrize(
    "path",
    [path for page in (README, *PAGES) for path in (page, in_chinese(page))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
LARGEST_README = 12 * 1024  # bytes
NOT_IN_CHINESE = ("词元", "抽样", "非有限值", "空隙", "自助法", "您", "激活、", "激活，", "激活重")
OF_PADDLE = {"gpus", "nproc_per_node"}  # options of paddle.distributed.launch


# -- two languages


def headings(path: Path) -> list[str]:
    """The levels of the headings, in their order; a comment in a block is none."""
    return re.findall(r"^(#+) ", prose(path), re.M)


def tables(path: Path) -> list[list[list[str]]]:
    """By table and row, what stands as code in the first column."""
    found = re.findall(r"(?:^\|.*\n)+", prose(path), re.M)
    return [[re.findall(r"`[^`]+`", row.split("|")[1]) for row in table.splitlines()] for table in found]


def numbers(path: Path) -> list[str]:
    """Figures with a decimal point of the running text."""
    return sorted(re.findall(r"\d+\.\d+", re.sub(r"`[^`]*`|\]\([^)]*\)", "", prose(path))))


def test_every_page_is_there_in_both_languages():
    assert [page.name for page in PAGES] == sorted(path.name for path in (ROOT / "docs" / "zh").glob("*.md"))
    assert len(PAGES) >= 12


@pytest.mark.parametrize("language", [lambda page: page, in_chinese], ids=LANGUAGES)
def test_every_page_is_reached_from_the_readme(language):
    reached, todo = set(), [language(README)]
    while todo:
        page = todo.pop()
        links = re.findall(r"\]\(([^)#]+\.md)[^)]*\)", prose(page))
        found = {(page.parent / link).resolve() for link in links if not link.startswith("https://")} - reached
        reached |= found
        todo += [path for path in found if path.is_file()]
    assert {language(page) for page in PAGES} - reached == set()


@PAIRS
def test_same_headings(page):
    assert headings(page) == headings(in_chinese(page)) and headings(page)[0] == "#"


@PAIRS
def test_same_blocks(page):
    english, chinese = list(blocks(page)), list(blocks(in_chinese(page)))
    assert [block.code for block in english if block.language] == [block.code for block in chinese if block.language]
    assert [block.reason is None for block in english] == [block.reason is None for block in chinese]


@PAIRS
def test_same_tables(page):
    assert tables(page) == tables(in_chinese(page))


@PAIRS
def test_same_numbers(page):
    """A figure that is brought up to date in one language only is found."""
    assert numbers(page) == numbers(in_chinese(page))


@PAIRS
def test_chinese_glossary(page):
    """One word for one idea (docs/zh/architecture.md): these have another one there, or are no word of the field."""
    assert [word for word in NOT_IN_CHINESE if word in read(in_chinese(page))] == []


@pytest.mark.parametrize(
    "name", ["serving/page.html", "serving/chinese.py", "report/page.js", "report/base.html.jinja"]
)
def test_chinese_glossary_of_pages(name):
    assert [word for word in NOT_IN_CHINESE if word in read(ROOT / "glm" / name)] == []


@pytest.mark.parametrize("path", [README, in_chinese(README)], ids=lambda path: path.name)
def test_the_readme_is_short(path):
    assert path.stat().st_size <= LARGEST_README


# -- what is named exists


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)", prose(path), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(path: Path) -> list[str]:
    """The links of a page that lead to no file or to no heading."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize(
    "path",
    [*(path for page in (README, *PAGES) for path in (page, in_chinese(page))), *OTHERS],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_somewhere(path):
    assert broken_links(path) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# One thing\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md) [b](there.md#one-thing) [c](there.md#two) [d](gone.md) [e](#f)", encoding="utf-8")
    assert broken_links(page) == ["there.md#two", "gone.md", "#f"]


@EVERY
def test_files_exist(path):
    named = re.findall(r"(?<![\w/.])(?:glm|configs|benchmarks|data|tests|docs)/[\w./-]*\w", read(path))
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("language", [lambda page: page, in_chinese], ids=LANGUAGES)
def test_every_folder_is_in_the_tour(language):
    """The list of folders is the first picture of the design that a reader sees."""
    tour = read(language(ROOT / "docs" / "architecture.md"))
    folders = [path.name for path in (ROOT / "glm").iterdir() if (path / "__init__.py").is_file()]
    folders += [name.rpartition(".")[2] for name in registry.FAMILIES.values()]
    assert [name for name in folders if f"{name}/ " not in tour] == [] and len(folders) > 15


# -- options


@cache
def help_of(*words: str) -> str:
    """What `--help` prints for a script or a verb (with an action)."""
    scripts: dict[str, Callable] = {"finetune_generation.py": parse_finetune_arguments}
    scripts |= {"predict.py": parse_predict_arguments}
    name, *rest = words
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
        scripts[name]([*rest, "--help"]) if name in scripts else run_verb([name, *rest, "--help"])
    assert end.value.code == 0
    return printed.getvalue()


def options_of(*words: str) -> set[str]:
    """The options of a command and of its actions."""
    text = help_of(*words)
    found = set(re.findall(r"^ +(?:-\w, )?--([\w-]+)", text, re.M)) - {"help"}
    actions = re.search(r"^  ACTION\n((?: {4}.*\n)+)", text, re.M)
    for action in re.findall(r"^ {4}(\w+)", actions[1], re.M) if actions else ():
        found |= options_of(*words, action)
    return found


COMMANDS = ("finetune_generation.py", "predict.py", *VERBS)


def documented(path: Path) -> set[str]:
    """The options that a page names as code."""
    return {name for code in re.findall(r"`[^`]+`", prose(path)) for name in re.findall(r"--([\w-]*\w)", code)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command):
    options = options_of(command)
    for language in (lambda page: page, in_chinese):
        named = set().union(*(documented(language(page)) for page in PAGES))
        assert {name for name in options if name not in named} - {"debug"} == set()
    assert options or command == "doctor"


@EVERY
def test_named_options_exist(path):
    refused = {item.name for item in dataclasses.fields(FinetuneTrainingArguments)}  # and said to be
    options = set().union(*(options_of(command) for command in COMMANDS)) | {"help", "debug"} | OF_PADDLE | refused
    text = re.sub(r"<!--.*?-->|^\|[- |:]+\|$", "", read(path), flags=re.M)
    assert set(re.findall(r"(?<![\w-])--([a-z]\w*)\b(?!-)", text)) - options == set()


def test_messages_of_the_troubleshooting_table():
    sources = [*(ROOT / "glm").rglob("*.py"), *ROOT.glob("*.py")]
    said = "".join(path.read_text(encoding="utf-8") for path in sources)
    said = re.sub(r'"\n\s+f?"', "", said)  # a message written in several lines
    said = re.sub(r"\{[^{}]*\}", "{}", said)
    table = FENCE.sub("", read(ROOT / "docs" / "troubleshooting.md"))
    messages = re.findall(r"^\| `([^`]+)`", table, re.M)
    assert [message for message in messages if message not in said] == [] and len(messages) > 10


def test_abilities_of_families():
    """The table of docs/families.md against what the families say."""
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", read(FAMILIES_PAGE), re.M)
    ]
    start = next(number for number, row in enumerate(rows) if row[0] == "flags")
    titles = {"mGLM": "mglm"} | {family.title: family.name for family in registry.families()}
    said = {
        name: {row[0]: row[column] == "yes" for row in rows[start + 2 :]} for column, name in enumerate(rows[start])
    }
    for title in rows[start][1:]:
        family = registry.find(titles[title])
        for flags, yes in said[title].items():
            names = set(re.findall(r"--(\w+)", flags))
            abilities = {ability for ability, options in ABILITIES.items() if names & set(options)}
            if "python -m glm memory" in flags:
                abilities = {"memory_forecast"}
            can = abilities <= family.abilities if abilities else not family.own_search
            assert can == yes, (title, flags)
    assert len(rows[start]) == 1 + len(registry.FAMILIES)
