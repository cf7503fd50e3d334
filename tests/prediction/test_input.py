"""What `predict.py` reads: files, standard input or one text, item by item."""

import hashlib
import io
import json
import sys

import pytest

from glm.data.examples import ExampleEncoder
from glm.data.records import BadRecord, Record
from glm.data.templates import QUESTION_GENERATION
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM
from glm.prediction.filling import BadText
from glm.prediction.input import PredictionInput

RECORDS = (
    '{"context": "甲乙", "answer": "乙", "question": "谁？"}\n\n'
    '{"context": "丙丁", "answer": "丁", "id": "x"}\nnot JSON\n'
).encode()


@pytest.fixture
def write(tmp_path):
    """A function: the path of a file with these bytes."""

    def write(content: bytes) -> str:
        (tmp_path / "in.txt").write_bytes(content)
        return str(tmp_path / "in.txt")

    return write


@pytest.fixture
def encoder(tokenizer) -> ExampleEncoder:
    return ExampleEncoder(GLM, tokenizer, QUESTION_GENERATION, src_length=60, tgt_length=30)


def test_a_long_reference_is_no_problem_of_prediction(write, encoder):
    row = {"context": "甲乙", "answer": "乙", "question": "白鹿湖在哪里？" * 9}
    report = PredictionInput(write(json.dumps(row).encode()), fills=False, need_target=True).check(encoder)
    assert (report.used, report.problems, report.cut_targets) == (1, [], 1)


@pytest.fixture
def standard_input(monkeypatch):
    """A function: these bytes are standard input."""

    def give(stream: io.RawIOBase | bytes) -> None:
        stream = io.BytesIO(stream) if isinstance(stream, bytes) else stream
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))

    return give


def test_records_of_a_file(write, encoder):
    path = write(RECORDS)
    source = PredictionInput(path, fills=False)
    assert (source.count, source.sha256) == (None, hashlib.sha256(RECORDS).hexdigest())
    report = source.check(encoder)
    assert (source.count, report.read, report.used, report.refused) == (3, 3, 2, 1)
    items = list(source)
    assert items[0] == Record(1, "甲乙", "乙", "谁？", f"{path}, line 1")
    assert items[1] == Record("x", "丙丁", "丁", None, f"{path}, line 3")
    assert isinstance(items[2], BadRecord) and items[2].error.startswith(f"{path}, line 4: not JSON")
    assert list(source) == items  # read again


def test_records_of_which_some_have_a_reference(write):
    """All are predicted, also where there are scores to come: these are of the first one."""
    first, second, third = PredictionInput(write(RECORDS), fills=False, need_target=True)
    assert (first.references, second.references) == (("谁？",), ()) and isinstance(third, BadRecord)


def test_texts_of_a_file(write):
    path = write("甲[MASK]\n\n  乙 \r\n".encode() + b"\xff\xfe\n" + "丙".encode())
    source = PredictionInput(path, fills=True)
    assert source.count == 4
    message = f"{path}, line 4: not UTF-8 (byte 1); convert the file to UTF-8"
    assert list(source) == ["甲[MASK]", "乙", BadText(message), "丙"]


@pytest.mark.parametrize(
    ("fills", "message"),
    [
        (False, "no record in it; one JSON object per line is expected"),
        (True, "no record in it; one text with blanks per line is expected"),
    ],
)
@pytest.mark.parametrize("content", [b"", b" \n\n\t\n", b"\xef\xbb\xbf\n"])
def test_file_with_nothing_in_it(write, fills, message, content):
    path = write(content)
    with pytest.raises(InputError) as caught:
        PredictionInput(path, fills=fills)
    assert str(caught.value) == f"{path}: {message}"


def test_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError) as caught:
        PredictionInput(str(tmp_path / "nowhere"), fills=False)
    assert str(caught.value) == f"{tmp_path / 'nowhere'}: cannot be read (No such file or directory)"
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be read \\(Is a directory\\)"):
        PredictionInput(str(tmp_path), fills=True)


def test_one_text(standard_input):
    standard_input(b"never read")
    source = PredictionInput(None, text="甲[MASK]", fills=True)
    assert (list(source), source.count, source.sha256) == (["甲[MASK]"], 1, None)


def test_standard_input(standard_input, capsys):
    standard_input(RECORDS)
    source = PredictionInput(None, fills=False)
    assert (source.count, source.sha256) == (None, None)
    items = list(source)
    assert items[0] == Record(1, "甲乙", "乙", "谁？", "standard input, line 1") and len(items) == 3
    assert capsys.readouterr().err == ""


def test_somebody_at_a_terminal_is_told_what_to_type(standard_input, capsys):
    class Terminal(io.BytesIO):
        def isatty(self):
            return True

    standard_input(Terminal(RECORDS))
    assert len(list(PredictionInput(None, fills=False))) == 3
    assert capsys.readouterr().err == "reading records from standard input, one JSON object per line\n"


def test_standard_input_is_read_line_by_line(standard_input):
    """A record is there before the line after the next one is asked for: the rest may come much later."""

    class Slow(io.RawIOBase):
        asked = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            line = b'{"context": "%d", "answer": "b"}\n' % self.asked if self.asked < 1000 else b""
            self.asked += 1
            buffer[: len(line)] = line
            return len(line)

    slow = Slow()
    standard_input(io.BufferedReader(slow, buffer_size=64))
    items = iter(PredictionInput(None, fills=False))
    for number in range(3):
        assert next(items).source == str(number)
        assert slow.asked <= number + 3
