"""Flattens nested rows of other tools: SQuAD's articles, conversations of one turn, and lists of tokens.

SQuAD (also CMRC 2018, DRCD, DuReader-robust): an article has `paragraphs` with a `context` and `qas`. LLaMA-Factory's
ShareGPT format has `conversations` of `from` and `value`; OpenAI's and ms-swift's have `messages` of `role` and
`content`, which may be in parts; Firefly and XTuner keep question and answer in one turn. s2s-ft's rows have `src` and
`tgt`, each a text or its WordPiece tokens, where `##` goes on with a word.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from glm.data.formats import Row
from glm.data.problems import Kind, RecordError

CONVERSATIONS = ("messages", "conversations", "conversation")
USERS, ASSISTANTS, SYSTEMS = ("user", "human"), ("assistant", "gpt", "chatgpt", "bard", "bing"), ("system",)
# Names of what is said by whom, where a turn holds question and answer together.
TOGETHER = {
    "system": frozenset({"system"}),
    "user": frozenset({"human", "user", "input", "question"}),
    "assistant": frozenset({"assistant", "gpt", "output", "answer"}),
}
HISTORY = ("history", "system")  # earlier turns, and a system text, beside an instruction
HAVE_HISTORY = ("instruction", "query", "prompt")
SOURCE_TOKENS, TARGET_TOKENS = "src", "tgt"  # s2s-ft's columns; a list in the second alone is several texts
NEEDLESS_BLANK = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")  # between tokens


def unfold(rows: Iterable[Row], *, multi_turn: str) -> Iterator[Row]:
    """Yields flat rows, one for each question or conversation that is nested in a row.

    Args:
        multi_turn: `error`, or `last` to take the last turn of a conversation and leave the others out.
    """
    count = 0  # questions in SQuAD's articles so far
    for row in rows:
        if row.error is not None:
            yield row
        elif isinstance(row.values.get("paragraphs"), list) or isinstance(row.values.get("qas"), list):
            for nested in _questions(row):
                count += 1
                yield replace(nested, number=count)
        else:
            yield _in_columns(row, multi_turn)


def _in_columns(row: Row, multi_turn: str) -> Row:
    values = row.values
    try:
        if (name := next((name for name in CONVERSATIONS if isinstance(values.get(name), list)), None)) is not None:
            return replace(row, values=_pair(row, name, multi_turn))
        if multi_turn == "error" and any(name in values for name in HAVE_HISTORY):
            _check_history(row)
    except RecordError as error:
        return replace(row, error=error)
    if isinstance(values.get(SOURCE_TOKENS), list):
        return _of_tokens(row)
    if "answer" not in values and "answers" in values and (answer := _first_answer(values["answers"])) is not None:
        return replace(row, values=values | {"answer": answer})
    return row


def _of_tokens(row: Row) -> Row:
    """The row with texts in place of tokens."""
    found = {}
    for name in (SOURCE_TOKENS, TARGET_TOKENS):
        tokens = row.values.get(name)
        if not isinstance(tokens, list):
            continue
        if not all(isinstance(token, str) for token in tokens):
            message = "a list of tokens, each a text, is expected"
            return replace(row, error=RecordError(Kind.TYPE, row.origin, message, field=name))
        found[name] = NEEDLESS_BLANK.sub("", " ".join(tokens).replace(" ##", "").removeprefix("##"))
    return replace(row, values=row.values | found)


# -- SQuAD


def _questions(row: Row) -> Iterator[Row]:
    """Yields a row for each question of an article."""
    article = row.values
    paragraphs = article["paragraphs"] if isinstance(article.get("paragraphs"), list) else [article]
    for place, paragraph in enumerate(paragraphs, start=1):
        origin = row.origin if paragraph is article else f"{row.origin}, paragraph {place}"
        asked = paragraph.get("qas") if isinstance(paragraph, dict) else None
        if not isinstance(asked, list):
            yield replace(
                row, origin=origin, error=RecordError(Kind.SYNTAX, origin, "no list of questions (qas) in it")
            )
            continue
        for number, question in enumerate(asked, start=1):
            yield _question(row, article, paragraph, question, f"{origin}, question {number}")


def _question(row: Row, article: dict, paragraph: dict, question: object, origin: str) -> Row:
    if not isinstance(question, dict):
        error = RecordError(Kind.SYNTAX, origin, f"{type(question).__name__} where a question is expected")
        return replace(row, origin=origin, error=error)
    answer = question.get("answer", _first_answer(question.get("answers")))
    found = {
        "id": question.get("id", question.get("query_id")),
        "context": paragraph.get("context", paragraph.get("context_text")),
        "answer": "" if answer is None else answer,
        "question": question.get("question", question.get("query_text")),
        "title": paragraph.get("title", article.get("title")),
    }
    return replace(row, origin=origin, values={name: value for name, value in found.items() if value is not None})


def _first_answer(answers: object) -> Any:
    """Returns the text of the first answer, in any of the forms that data sets use; None if there is none."""
    if isinstance(answers, dict):
        answers = answers.get("text")
    if isinstance(answers, list | tuple):
        answers = answers[0] if answers else None
    return answers.get("text") if isinstance(answers, dict) else answers


# -- conversations


def _pair(row: Row, name: str, multi_turn: str) -> dict[str, Any]:
    """Replaces a conversation by the columns `prompt` and `response`; other columns stay."""
    turns = [_turn(row, name, turn) for turn in _one_by_one(row.values[name])]
    kinds = [kind for kind, _ in turns]
    if multi_turn == "error" and (found := _more_than_one_turn(kinds)):
        message = f"{found}, and a pair is one turn; take the others out, or take the last turn with --multi_turn last"
        raise RecordError(Kind.SYNTAX, row.origin, message, field=name)
    users = [place for place, kind in enumerate(kinds) if kind == "user"]
    if not users:
        raise RecordError(Kind.SYNTAX, row.origin, "no turn of the user in it", field=name)
    answered = [place for place in users if kinds[place + 1 : place + 2] == ["assistant"]]
    place = users[-1] if kinds[-1] == "user" or not answered else answered[-1]
    others = {column: value for column, value in row.values.items() if column != name}
    found = {"prompt": turns[place][1]}
    if kinds[place + 1 : place + 2] == ["assistant"]:
        found["response"] = turns[place + 1][1]
    return others | found


def _one_by_one(turns: list[Any]) -> list[Any]:
    """Splits turns that hold question and answer together, `{"human": …, "assistant": …}` (Firefly, XTuner)."""
    found = []
    for turn in turns:
        if isinstance(turn, dict) and not {"role", "from"} & turn.keys():
            spoken = {kind: names for kind, names in TOGETHER.items() if names & turn.keys()}
            parts = [{"role": kind, "content": turn[min(names & turn.keys())]} for kind, names in spoken.items()]
            found += [part for part in parts if part["role"] != "system" or part["content"]] or [turn]
        else:
            found.append(turn)
    return found


def _more_than_one_turn(kinds: list[str]) -> str:
    """Describes what a conversation has beyond one question and its answer; empty if nothing."""
    if "system" in kinds:
        return "a system text"
    if (turns := kinds.count("user")) > 1:
        return f"{turns} turns"
    return "" if kinds in (["user"], ["user", "assistant"]) else f"turns of {', '.join(kinds) or 'nobody'}"


def _turn(row: Row, name: str, turn: object) -> tuple[str, Any]:
    """Returns the speaker of a turn (`user`, `assistant`, `system`, or another role) and the text."""
    if not isinstance(turn, dict):
        raise RecordError(Kind.TYPE, row.origin, f"{type(turn).__name__} where a turn is expected", field=name)
    role = str(turn.get("role", turn.get("from", "nobody")))
    text = _joined(row, name, turn.get("content", turn.get("value")))
    for kind, names in (("user", USERS), ("assistant", ASSISTANTS), ("system", SYSTEMS)):
        if role.lower() in names:
            return kind, text
    return role, text


def _joined(row: Row, name: str, content: Any) -> Any:
    """Returns the text of a turn's parts, `[{"type": "text", "text": …}]`; other content as it is.

    Raises:
        RecordError: a part is no text, as an image.
    """
    if not isinstance(content, list):
        return content
    texts = [part.get("text") if isinstance(part, dict) else part for part in content]
    for part, text in zip(content, texts, strict=True):
        if not isinstance(text, str):
            kind = part.get("type", "unknown") if isinstance(part, dict) else type(part).__name__
            raise RecordError(Kind.TYPE, row.origin, f"a part of a turn is no text ({kind}); take it out", field=name)
    return "\n".join(texts)


def _check_history(row: Row) -> None:
    """Raises RecordError for an instruction with earlier turns or a system text, which would be lost."""
    for name in HISTORY:
        value = row.values.get(name)
        if value and (isinstance(value, list) or (isinstance(value, str) and value.strip() not in ("", "[]"))):
            message = "is not empty, and a pair is one turn; take it out, or leave it aside with --multi_turn last"
            raise RecordError(Kind.SYNTAX, row.origin, message, field=name)
