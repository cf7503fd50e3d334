"""Reads data for summaries across languages: a text with its summaries becomes rows of text, request and target.

Source: the multilingual GLM's NCLS (THUDM/Multilingual-GLM), and its mT5 baseline. A row is a pair (`source`,
`target`, `tgt_lang`), or a text with a summary in each language (`source`, `summary_en`, `summary_zh`). Files of lines
without a header hold the same line by line: text and summary, or text, English and Chinese summary.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from glm.data.formats import CHINESE, Row
from glm.data.problems import Kind, RecordError

TRANSLATION = "translation"  # translation of an English summary into a Chinese one
SUMMARIES = {"en": ("summary_en", "en"), "zh": ("summary_zh", "zh")}
LANGUAGE = "tgt_lang"
TARGETS = ("target", "summary", "highlights")


@dataclass(frozen=True)
class Summaries:
    """What is requested of a text.

    Args:
        prompts: by the language of the summary; `TRANSLATION` where summaries are translated in training too.
        lines: how many lines of a file without a header belong together: the text's, and one for each of its
            summaries.
        language: language of the summaries that are read; all if None.
    """

    prompts: Mapping[str, str]
    lines: int = 3
    language: str | None = None

    def rows(self, rows: Iterable[Row], *, learns: bool, is_lines: bool = False) -> Iterator[Row]:
        """Yields rows with `source`, `prompt` and, where known, `target`; numbered anew.

        Args:
            learns: they are for training, to which translations belong.
            is_lines: they are the lines of a file without a header.
        """
        found = (new for row in (self._joined(rows) if is_lines else rows) for new in self._asked(row, learns))
        yield from (replace(row, number=number) for number, row in enumerate(found, start=1))

    def _joined(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Joins lines that belong together to a row."""
        names = ("source", "summary_en", "summary_zh") if self.lines == 3 else ("source", "target")
        lines = iter(rows)
        while group := list(islice(lines, self.lines)):
            first = group[0]
            error = next((row.error for row in group if row.error is not None), None)
            if error is None and len(group) < self.lines:
                message = f"line {len(group)} of {self.lines} of a record ({', '.join(names)}) is the file's last"
                error = RecordError(Kind.SYNTAX, group[-1].origin, message)
            texts = [row.values.get("source") for row in group]
            yield replace(first, values={} if error else dict(zip(names, texts, strict=True)), error=error)

    def _asked(self, row: Row, learns: bool) -> Iterator[Row]:
        """Yields the requests of a row."""
        if row.error is not None:
            yield row
            return
        found = {language: _first(row.values, names) for language, names in SUMMARIES.items()}
        found = {language: text for language, text in found.items() if text is not None}
        if not found:
            yield self._pair(row)
            return
        for language, text in found.items():
            if self.language in (None, language):
                yield self._row(row, language, target=text)
        if learns and TRANSLATION in self.prompts and len(found) == 2 and self.language in (None, "zh"):
            yield self._row(row, TRANSLATION, source=found["en"], target=found["zh"])

    def _row(self, row: Row, asked: str, **texts: Any) -> Row:
        of_language = {name for names in SUMMARIES.values() for name in names}
        values = {name: value for name, value in row.values.items() if name not in of_language}
        if values.get("id") is not None:
            values["id"] = f"{values['id']}.{asked}"
        values |= {**texts, "prompt": self.prompts[asked]}
        return replace(row, values=values, origin=f"{row.origin}, {asked}")

    def _pair(self, row: Row) -> Row:
        """Returns a row that is a pair already; its language is its own, the data set's name, or its target's."""
        values = row.values
        asked = values.get(LANGUAGE) or self.language
        if values.get("task") == "trans":
            asked = TRANSLATION
        target = _first(values, TARGETS)
        if asked is None and isinstance(target, str):
            asked = "zh" if CHINESE.search(target) else "en"
        if not isinstance(asked, str) or asked not in self.prompts:
            known = " or ".join(name for name in self.prompts if name != TRANSLATION)
            said = "nothing says the language of its summary" if asked is None else f"{asked!r:.60} has no prompt"
            error = RecordError(Kind.LABEL, row.origin, f"{said}; write {known}", field=LANGUAGE)
            return replace(row, error=error)
        return replace(row, values=values | {"prompt": self.prompts[asked]})


def _first(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


NCLS = Summaries({"en": " tl;dr:", "zh": " 中文摘要："}, lines=2)
MULTITASK = Summaries({"en": " TL;DR:", "zh": " 中文摘要:", TRANSLATION: " 中文翻译:"})
OF_MT5 = Summaries({"en": " Please summarize in English:", "zh": " 中文摘要："})
