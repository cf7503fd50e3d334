"""Reads rows of tasks' data files, in the forms in which they are published, as questions."""

import ast
import json
import re
import string
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from glm.data.problems import Kind
from glm.data.tasks import MASK, FieldProblem, Item

Values = Mapping[str, Any]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def text_of(values: Values, *names: str) -> str:
    """Returns the text in the first of these fields that exists. Raises FieldProblem."""
    name = _present(values, names)
    value = values[name]
    if not isinstance(value, str):
        raise FieldProblem(Kind.TYPE, name, f"{type(value).__name__} where text is expected")
    if not value.strip():
        raise FieldProblem(Kind.EMPTY, name, "empty")
    return value.strip()


def texts_of(values: Values, *names: str) -> tuple[str, ...]:
    """Returns the list of texts in the first of these fields that exists, or that a table's cell there writes. Raises
    FieldProblem."""
    name = _present(values, names)
    value = _list_in(values[name])
    if not isinstance(value, list | tuple) or not value:
        raise FieldProblem(Kind.TYPE, name, 'a list of texts is expected; a table\'s cell has it as ["…", "…"]')
    for place, item in enumerate(value):
        if not isinstance(item, str) or not item.strip():
            what = "empty" if isinstance(item, str) else f"{type(item).__name__} where text is expected"
            raise FieldProblem(Kind.EMPTY if isinstance(item, str) else Kind.TYPE, f"{name}[{place}]", what)
    return tuple(item.strip() for item in value)


def _list_in(value: Any) -> Any:
    """Returns the list that a text writes as JSON or as pandas does (`['a', 'b']`); any other value as it is."""
    if not isinstance(value, str) or not value.strip().startswith("["):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(item, str) for item in found):
            return found
    return value


def objects_of(values: Values, *names: str) -> list[Values]:
    """Returns the list of objects in the first of these fields that exists. Raises FieldProblem."""
    name = _present(values, names)
    if not isinstance(values[name], list) or not all(isinstance(item, Mapping) for item in values[name]):
        raise FieldProblem(Kind.TYPE, name, "a list of objects is expected")
    return values[name]


def label_of(values: Values, *names: str) -> str | None:
    """Returns the label in the first of these fields that exists; None if there is none, or it is unknown (-1).

    Raises:
        FieldProblem: it is neither text nor a whole number nor a truth value.
    """
    name = next((name for name in names if values.get(name) is not None), None)
    if name is None:
        return None
    value = values[name]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int):
        raise FieldProblem(Kind.TYPE, name, f"{type(value).__name__} where a label is expected")
    return None if str(value).strip() in ("", "-1") else str(value).strip()


def number_of(values: Values, *names: str) -> int | None:
    """Returns the whole number in the first of these fields that exists; None if there is none. Raises
    FieldProblem."""
    label = label_of(values, *names)
    if label is None:
        return None
    if not label.isdecimal():
        raise FieldProblem(Kind.LABEL, names[0], f"{label!r:.60} where a whole number is expected")
    return int(label)


def _present(values: Values, names: Sequence[str]) -> str:
    for name in names:
        if values.get(name) is not None:
            return name
    raise FieldProblem(
        Kind.MISSING, names[0], f"no field {' or '.join(names)} (fields: {', '.join(values) or 'none'})"
    )


def key_of(values: Values, *names: str) -> str | int | None:
    """Returns what identifies a row, from the first of these fields that exists."""
    found = next((values[name] for name in names if values.get(name) is not None), None)
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def key_in(values: Values, place: int, count: int) -> str | int | None:
    """Returns what identifies one of several questions of a row; nothing if nothing identifies the row."""
    own = key_of(values, "id")
    return own if own is None or count == 1 else f"{own}.{place}"


def language_of(values: Values) -> str | None:
    """Returns the language that a row names."""
    found = values.get("lang", values.get("language"))
    return found if isinstance(found, str) else None


# -- the form of words in English prompts


def without_end(text: str) -> str:
    """Removes ASCII punctuation at the end of a text."""
    return text.rstrip(PUNCTUATION)


def lower_first(text: str) -> str:
    """Lower-cases the first letter of a text."""
    return text[:1].lower() + text[1:]


# -- readers


def flat(*unknown: str, **columns: tuple[str, ...]) -> Callable[[Values], Iterator[Item]]:
    """Makes a reader of rows with one question each.

    Args:
        unknown: labels that say that nobody agrees on one: such rows are left out.
        columns: by field the names that its column may have; the reader's `columns` are the first of each.
    """

    def read(values: Values) -> Iterator[Item]:
        fields = {name: text_of(values, *names) for name, names in columns.items()}
        label = label_of(values, "label", "gold_label", "labels")
        if label not in unknown or label is None:
            yield Item(fields, label, key=key_of(values, "id", "idx"), language=language_of(values))

    read.columns = tuple(names[0] for names in columns.values())
    return read


def pair(first: tuple[str, ...], second: tuple[str, ...], *unknown: str) -> Callable[[Values], Iterator[Item]]:
    """Makes a reader of sentence pairs, as `{first}` and `{second}`; `{first_open}` has no punctuation at its end."""
    base = flat(*unknown, first=first, second=second)

    def read(values: Values) -> Iterator[Item]:
        for item in base(values):
            ends = {f"{name}_open": without_end(text) or text for name, text in item.fields.items()}
            yield Item({**item.fields, **ends}, item.label, key=item.key, language=item.language)

    read.columns = base.columns
    return read


def news(values: Values) -> Iterator[Item]:
    """TNEWS: `sentence`, `keywords` if there are any, `label`."""
    keywords = values.get("keywords")
    fields = {"sentence": text_of(values, "sentence"), "keywords": keywords if isinstance(keywords, str) else ""}
    yield Item(fields, label_of(values, "label"), key=key_of(values, "id"))


def copa(values: Values) -> Iterator[Item]:
    """COPA: `premise`, `question` (cause, effect), `choice1`, `choice2`, `label`."""
    choices = [f" {lower_first(without_end(text_of(values, name)))}" for name in ("choice1", "choice2")]
    asked = text_of(values, "question")
    if asked not in ("cause", "effect"):
        raise FieldProblem(Kind.LABEL, "question", f"{asked!r:.60}: is neither cause nor effect")
    fields = {
        "premise": without_end(text_of(values, "premise")),
        "choice1": choices[0],
        "choice2": choices[1],
        "joint": " because" if asked == "cause" else ", so",
    }
    yield Item(fields, number_of(values, "label"), tuple(choices), key=key_of(values, "idx", "id"))


def multirc(values: Values) -> Iterator[Item]:
    """MultiRC: a passage with questions, each with answers of which some are right; or one answer a row."""
    whole = values.get("passage")
    if not isinstance(whole, Mapping):
        yield from flat(passage=("passage", "paragraph"), question=("question",), answer=("answer",))(values)
        return
    passage, own = text_of(whole, "text"), key_of(values, "id", "idx")
    for place, question in enumerate(objects_of(whole, "questions")):
        asked = text_of(question, "question")
        for number, answer in enumerate(objects_of(question, "answers")):
            fields = {"passage": passage, "question": asked, "answer": text_of(answer, "text")}
            key = None if own is None else f"{own}.{place}.{number}"
            yield Item(fields, label_of(answer, "label"), key=key, group=str(place))


def wsc(values: Values) -> Iterator[Item]:
    """WSC: `text`, a noun (span1) and a pronoun (span2) with their places in words; other nouns in `candidates`, as
    texts or objects with one. Without them the noun is right if it is what the model writes."""
    text = text_of(values, "text")
    target = values.get("target", values)
    if not isinstance(target, Mapping):
        raise FieldProblem(Kind.TYPE, "target", "an object is expected")
    words = text.split()
    noun, pronoun = text_of(target, "span1_text"), text_of(target, "span2_text")
    start = number_of(target, "span2_index")
    found = words[start] if start is not None and start < len(words) else ""
    if not found.lower().startswith(pronoun.lower()):
        message = f"word {start} of the text is {found!r:.60}, not the pronoun {pronoun!r:.60}"
        raise FieldProblem(Kind.PLACE, "span2_index", message)
    words[start] = found.replace(found[: len(pronoun)], f"*{found[: len(pronoun)]}*", 1)
    label = label_of(values, "label")
    if label not in (None, "true", "false", "1", "0"):
        raise FieldProblem(Kind.LABEL, "label", f"{label!r:.60}: is neither true nor false")
    is_noun = None if label is None else label in ("true", "1")
    fields, key = {"marked": " ".join(words), "pronoun": pronoun}, key_of(values, "idx", "id")
    if values.get("candidates") is None:
        yield Item(fields, None, (noun,), (0,) if is_noun else (), lone=True, equality=is_noun, key=key)
        return
    others = [other for other in nouns_of(values) if other.lower() != noun.lower()]
    if not others:
        raise FieldProblem(
            Kind.CANDIDATES, "candidates", f"none but {noun!r:.60}; give others, or leave the field out"
        )
    right = () if is_noun is None else (0,) if is_noun else tuple(range(1, len(others) + 1))
    yield Item(fields, None, (noun, *others), right, key=key)


def nouns_of(values: Values) -> tuple[str, ...]:
    """Returns WSC's other nouns, without repetition. Raises FieldProblem."""
    found = values["candidates"]
    if isinstance(found, list) and found and all(isinstance(item, Mapping) for item in found):
        found = [text_of(item, "text") for item in found]
    return tuple(dict.fromkeys(texts_of({"candidates": found}, "candidates")))


def cluewsc(values: Values) -> Iterator[Item]:
    """CLUEWSC: `text`, a noun (span1) and a pronoun (span2) with their places in characters."""
    text, target = text_of(values, "text"), values.get("target", values)
    if not isinstance(target, Mapping):
        raise FieldProblem(Kind.TYPE, "target", "an object is expected")
    spans = []
    for name, mark in (("span1", "#"), ("span2", "*")):
        span, start = text_of(target, f"{name}_text"), number_of(target, f"{name}_index")
        found = text[start : start + len(span)] if start is not None else ""
        if found != span:
            message = f"the text there is {found!r:.60}, not {span!r:.60}"
            raise FieldProblem(Kind.PLACE, f"{name}_index", message)
        spans.append((start, start + len(span), mark))
    marked = text
    for start, end, mark in sorted(spans, reverse=True):
        marked = f"{marked[:start]}{mark}{marked[start:end]}{mark}{marked[end:]}"
    fields = {"marked": marked, "noun": target["span1_text"], "pronoun": target["span2_text"]}
    yield Item(fields, label_of(values, "label"), key=key_of(values, "id", "idx"))


def record(values: Values) -> Iterator[Item]:
    """ReCoRD: a passage with entities, and queries whose @placeholder is one of them."""
    whole = values.get("passage")
    if not isinstance(whole, Mapping):
        raise FieldProblem(Kind.TYPE, "passage", "an object with text and entities is expected")
    passage = text_of(whole, "text").replace("@highlight", "-")
    spans = [(entity.get("start"), entity.get("end")) for entity in objects_of(whole, "entities")]
    if any(not isinstance(number, int) for span in spans for number in span):
        raise FieldProblem(Kind.TYPE, "entities", "start and end are whole numbers")
    names = tuple(dict.fromkeys(whole["text"][start : end + 1] for start, end in spans))
    for query in objects_of(values, "qas"):
        before, after = _around(text_of(query, "query"), "@placeholder", "query")
        right = None
        if query.get("answers"):
            answers = {text_of(answer, "text") for answer in objects_of(query, "answers")}
            right = tuple(place for place, name in enumerate(names) if name in answers)
            if not right:
                raise FieldProblem(Kind.LABEL, "answers", "none of them is an entity of the passage")
        fields = {"passage": passage, "before": before, "after": after}
        yield Item(fields, None, names, right or (), key=key_of(query, "idx", "id"))


def race(values: Values) -> Iterator[Item]:
    """RACE: an article with questions, options and letters of answers; or one question a row."""
    article = text_of(values, "article")
    questions = texts_of(values, "questions") if "questions" in values else (text_of(values, "question"),)
    options = values.get("options")
    options = options if "questions" in values else [options]
    answers = values.get("answers") if "questions" in values else [values.get("answer")]
    if not isinstance(options, list) or len(options) != len(questions):
        raise FieldProblem(Kind.TYPE, "options", "a list of options for each question is expected")
    for place, question in enumerate(questions):
        letter = answers[place] if isinstance(answers, list) and place < len(answers) else None
        choices = texts_of({"options": options[place]}, "options")
        label = None if letter is None else "ABCDEFGH".find(str(letter))
        fields = {"article": article, "question": question}
        yield Item(fields, label, choices, key=key_in(values, place, len(questions)))


def c3(values: Values) -> Iterator[Item]:
    """C3: a dialogue or text (`context`) with `questions`, each with choices and the text of its answer; or one
    question a row."""
    context = values.get("context", values.get("passage"))
    context = "\n".join(texts_of(values, "context")) if isinstance(context, list) else text_of(values, "context")
    questions = objects_of(values, "questions") if "questions" in values else [values]
    for place, question in enumerate(questions):
        choices = texts_of(question, "choice", "choices")
        label = label_of(question, "answer", "label")
        if label in choices:
            label = choices.index(label)
        elif label is not None and not label.isdecimal():
            raise FieldProblem(Kind.LABEL, "answer", f"{label!r:.60}: is none of the choices")
        fields = {"context": context, "question": text_of(question, "question")}
        key = f"{values.get('id', '')}.{place}" if len(questions) > 1 else key_of(values, "id")
        yield Item(fields, label if label is None else int(label), choices, key=key)


IDIOM = re.compile(r"#idiom\d*#")


def chid(values: Values) -> Iterator[Item]:
    """CHID: passages whose idioms are replaced by `#idiom…#`, and the candidates that they share."""
    candidates = texts_of(values, "candidates")
    content = values.get("content")
    passages = texts_of(values, "content") if isinstance(content, list) else (text_of(values, "content"),)
    answers, number = values.get("answers", values.get("answer", values.get("label"))), 0
    for passage in passages:
        blanks = list(IDIOM.finditer(passage))
        if not blanks:
            raise FieldProblem(Kind.BLANK, "content", "no #idiom# in it")
        for blank in blanks:
            before, after = (IDIOM.sub("____", part) for part in (passage[: blank.start()], passage[blank.end() :]))
            answer = answers.get(blank.group()) if isinstance(answers, Mapping) else answers
            answer = (answer[number] if number < len(answer) else None) if isinstance(answer, list) else answer
            label = number_of({"answer": answer}, "answer")
            key = key_in(values, number, len(passages) + len(blanks) - 1)
            yield Item({"before": before, "after": after}, label, candidates, key=key, group="")
            number += 1


def letter_place(label: str, count: int) -> int | None:
    """Returns the place of the choice that a letter names (`B`, `Ｂ`, `b`); None if it names none of so many."""
    place = string.ascii_uppercase.find(unicodedata.normalize("NFKC", label).upper())
    return place if len(label) == 1 and 0 <= place < count else None


def choice_file(values: Values) -> Iterator[Item]:
    """Any file of choices: `inputs` (with one blank, or none: it is put last), `choices`, `label`."""
    name = next((name for name in ("inputs", "inputs_pretokenized") if values.get(name) is not None), "inputs")
    before, after = _around(text_of(values, name) + ("" if MASK in str(values[name]) else MASK), MASK, name)
    choices = texts_of(values, "choices", "choices_pretokenized")
    label = label_of(values, "label")
    if label in choices:
        label = str(choices.index(label))
    elif label is not None and (place := letter_place(label, len(choices))) is not None:
        label = str(place)
    elif label is not None and not label.isdecimal():
        raise FieldProblem(Kind.LABEL, "label", f"{label!r:.60}: is none of the choices, and no number of one")
    fields = {"before": before, "after": after}
    yield Item(fields, None if label is None else int(label), choices, key=key_of(values, "id"))


def last_word(values: Values) -> Iterator[Item]:
    """A text whose last word is predicted; or, with `{blank}` in the text, `answer` in its place."""
    text = text_of(values, "text")
    if values.get("answer") is not None:
        context, answer = text, text_of(values, "answer")
    else:
        context, _, answer = text.rpartition(" ")
        context = context.strip()
    if not context:
        raise FieldProblem(Kind.BLANK, "text", "one word: nothing stands before the last one")
    yield Item({"context": context}, 0, (f" {answer}",), (0,), key=key_of(values, "id"))


def _around(text: str, mark: str, name: str) -> tuple[str, str]:
    """Returns the text before and behind the only mark. Raises FieldProblem."""
    if text.count(mark) != 1:
        message = f"{'no' if mark not in text else 'more than one'} {mark} in it; exactly one is expected"
        raise FieldProblem(Kind.BLANK, name, message)
    before, after = text.split(mark)
    return before, after


def squad(values: Values) -> Iterator[Item]:
    """SQuAD's JSON, an article, a passage or a question a row: questions with their answers, none of them lost."""
    if "data" in values:
        for article in objects_of(values, "data"):
            yield from squad(article)
    elif "paragraphs" in values:
        for paragraph in objects_of(values, "paragraphs"):
            yield from squad(paragraph)
    elif "qas" in values:
        context = text_of(values, "context", "context_text")
        for question in objects_of(values, "qas"):
            yield _question(question, context)
    else:
        yield _question(values, text_of(values, "context"))


TYDIQA = {  # prefixes of TyDiQA's question ids
    **{"arabic": "ar", "bengali": "bn", "english": "en", "finnish": "fi", "indonesian": "id", "japanese": "ja"},
    **{"korean": "ko", "russian": "ru", "swahili": "sw", "telugu": "te", "thai": "th"},
}


def tydiqa(values: Values) -> Iterator[Item]:
    """TyDiQA's gold passages: SQuAD's form, with the language in front of each id."""
    for item in squad(values):
        told = TYDIQA.get(str(item.key).partition("-")[0])
        yield replace(item, language=told) if item.language is None and told is not None else item


def _question(values: Values, context: str) -> Item:
    fields = {"context": context, "question": text_of(values, "question", "query_text")}
    return Item(fields, answers=_answers(values), key=key_of(values, "id", "query_id"), language=language_of(values))


def _answers(values: Values) -> tuple[str, ...] | None:
    """Returns the answers of a question: texts, objects with a text, or Hugging Face's object of lists; None if not
    given."""
    found = values.get("answers", values.get("answer"))
    if found is None:
        return None
    if isinstance(found, Mapping):
        found = found.get("text")
    found = _list_in(found)
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list | tuple):
        raise FieldProblem(Kind.TYPE, "answers", "a text, or a list of texts, is expected")
    texts = [text_of(item, "text") if isinstance(item, Mapping) else item for item in found]
    if not all(isinstance(text, str) for text in texts):
        raise FieldProblem(Kind.TYPE, "answers", "a text, or a list of texts, is expected")
    return tuple(texts)
