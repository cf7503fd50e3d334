"""Segmenters on the texts that trip Chinese scoring, and what importing them costs."""

import json
import os
import random
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jieba
import pytest

from glm.evaluation.jieba_words import CACHE_NAME, jieba_cut
from glm.evaluation.segmentation import SEGMENTERS, normalized, squeezed

ROOT = Path(__file__).resolve().parents[2]


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)


def test_names_and_order():
    assert list(SEGMENTERS) == ["char", "jieba"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \t\r\n\u3000\xa0", []),
        ("北京 大学\u3000在\n哪", ["北", "京", "大", "学", "在", "哪"]),
        ("iPhone 15多少钱", ["iphone", "15", "多", "少", "钱"]),  # Latin words and numbers stay whole
        ("Ａ１。A1.", ["ａ１", "。", "a1", "."]),  # full-width and ASCII forms stay apart
        ("长3.5厘米", ["长", "3", ".", "5", "厘", "米"]),
        ("Café", ["cafe"]),
        ("？！……", ["？", "！", "…", "…"]),
        ("好😀", ["好", "😀"]),
        ("👨\u200d👩", ["👨", "👩"]),  # the zero-width joiner is a control character
        ("𠮷野家", ["𠮷", "野", "家"]),  # outside the basic plane, still one character
        ("3℃+2", ["3", "℃", "+", "2"]),  # symbols are tokens
    ],
)
def test_char(text, tokens):
    assert SEGMENTERS["char"](text) == tokens


def test_char_equals_the_tokenizer_of_the_published_figures():
    from paddlenlp.transformers import BasicTokenizer

    tokenizer = BasicTokenizer()
    generator = random.Random(0)
    characters = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    texts = ["".join(characters[start : start + 50]) for start in range(0, len(characters), 50)]  # each one once
    usual = "京都大学 iPhone15é\u3000ΑΣ,。？+℃\n한İ"
    texts += ["".join(generator.choices(usual, k=30)) for _ in range(200)]
    for text in texts:
        assert SEGMENTERS["char"](text) == tokenizer.tokenize(text), text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \t\r\n\u3000\xa0", []),
        ("我来到北京清华大学", ["我", "来到", "北京", "清华大学"]),  # jieba's own README
        ("我来到\u3000北京\r\n清华大学 ", ["我", "来到", "北京", "清华大学"]),
        ("iPhone 15多少钱", ["iPhone", "15", "多少", "钱"]),
        ("长3.5厘米", ["长", "3.5", "厘米"]),
        ("ＡＢ", ["Ａ", "Ｂ"]),  # full-width letters are not words to jieba
        ("？！", ["？", "！"]),
        ("北京😀", ["北京", "😀"]),
    ],
)
def test_jieba(text, tokens):
    assert SEGMENTERS["jieba"](text) == tokens


def test_jieba_with_a_part_of_its_dictionary():
    """Its own function has loaded all of it."""
    texts = [json.loads(line)["context"] for line in (ROOT / "data" / "dev.json").read_text("utf-8").splitlines()]
    characters, draw = "".join(texts) + "的一了AB3. ，㐀", random.Random(1)
    texts += ["".join(draw.choices(characters, k=draw.randrange(1, 40))) for _ in range(500)]
    for text in texts:
        assert jieba_cut(text) == jieba.lcut(text)


def test_import_and_char_load_nothing_heavy():
    code = """if True:
        import sys
        import glm  # whatever the package itself loads is not this test's concern
        before = set(sys.modules)
        import glm.evaluation.metrics
        from glm.evaluation.segmentation import SEGMENTERS
        SEGMENTERS["char"]("北京")
        print(sorted({"jieba", "paddle", "paddlenlp", "rouge", "sacrebleu"} & (set(sys.modules) - before)))
    """
    assert run_python(code).stdout.strip() == "[]"


def test_jieba_is_silent():
    result = run_python("from glm.evaluation.segmentation import SEGMENTERS; print(len(SEGMENTERS['jieba']('北京')))")
    assert result.stdout.strip() == "1"
    # By default jieba prints three such lines; warnings of other packages on this stream are not its log.
    assert not any(line in result.stderr for line in ("prefix dict", "Loading model", "Dumping model"))


def test_normalized_and_squeezed():
    assert normalized("人口：３，０００万（约）…") == "人口:3,000万(约)..."
    assert squeezed(" 在\u3000哪\n里？") == "在哪里?"


PLANTED = """
import marshal, os, sys, tempfile
from pathlib import Path
words = {"青石镇位": 10**9, "青石": 0, "青": 1, "石": 1, "镇": 1, "位": 1}
with open(os.path.join(tempfile.gettempdir(), "jieba.cache"), "wb") as file:
    marshal.dump((words, 10**9), file)
from glm.evaluation.jieba_words import jieba_cut
print(" ".join(jieba_cut("青石镇位于河的北岸")))
print(sorted(path.relative_to(os.environ["XDG_CACHE_HOME"]).parts[1].rpartition("-")[0]
             for path in Path(os.environ["XDG_CACHE_HOME"]).glob("glm/*")))
"""


def test_a_cache_that_others_planted_changes_no_score(tmp_path):
    """Neither the folder for temporary files nor a cache of another dictionary is looked at; ours is used again."""
    (tmp_path / "tmp").mkdir()
    folders = {"TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for _ in range(2):
        command = [sys.executable, "-c", PLANTED]
        done = subprocess.run(command, env=os.environ | folders, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.stdout == f"青石 镇 位于 河 的 北岸\n['jieba-{version('jieba')}']\n", done.stderr
    (cache,) = (tmp_path / "cache" / "glm").glob(f"*/{CACHE_NAME}")
    assert cache.parent.stat().st_mode & 0o777 == 0o700
