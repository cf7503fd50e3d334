"""The built-in tasks.

English patterns are the originals' (THUDM/GLM, tasks/superglue/pvp.py; THUDM/Multilingual-GLM), with their numbers;
each part is encoded for itself, so where a part ends matters. Chinese ones follow PET's practice.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from glm.data import task_rows as rows
from glm.data.tasks import (
    CHOICE_FILE,
    CHOOSE,
    EXTRACT,
    LAST_WORD,
    MASK,
    OWN,
    Bare,
    Cut,
    Part,
    Pattern,
    Task,
    field_names,
    parse_labels,
    parse_parts,
)
from glm.data.templates import GENERATION_BLANK, SENTENCE_BLANK, Template, find_template, own_template
from glm.errors import InputError

YES_NO = {"1": " Yes", "0": " No"}
NLI = (("premise", "sentence1", "text_a"), ("hypothesis", "sentence2", "text_b"))
NLI_NUMBERS = {"0": "entailment", "1": "neutral", "2": "contradiction"}  # as in Hugging Face's copies
SENTENCES = (("sentence1", "text_a"), ("sentence2", "text_b"))


def _two_sides(first: str, second: str) -> tuple[tuple[Part, ...], ...]:
    """Returns patterns 0 to 3 of two sentences: the first asks, the second follows the blank."""
    a, b = Cut(f"{{{first}_open}}"), Cut(f"{{{second}}}", 1)
    spaced = Cut(f" {{{second}}}", 1)
    return (
        ('"', a, '" ?', MASK, ",", ' "', b, '"'),
        (a, "?", MASK, ",", spaced),
        ('"', a, '" ?', MASK, '. "', b, '"'),
        (a, "?", MASK, ".", spaced),
    )


def _asked(first: str, second: str) -> tuple[Part, ...]:
    """Returns pattern 4 of two sentences."""
    return (Cut(f"{{{first}}}"), " question:", Cut(f" {{{second}_open}}"), " True or False?", " answer:", MASK)


def _entailment(yes_no: Mapping[str, str], true_false: Mapping[str, str]) -> dict[int, Pattern]:
    """Returns RTE's and CB's patterns: the hypothesis asks, the premise follows."""
    patterns = {number: Pattern(parts, yes_no) for number, parts in enumerate(_two_sides("second", "first"))}
    return patterns | {4: Pattern(_asked("first", "second"), true_false)}


def _xnli(statement: str) -> Pattern:
    parts = (
        'Based on the fact written in foreign language: "',
        Cut("{first}"),
        '".',
        f' Is the {statement} statement reasonably True or definitely False: "',
        Cut("{second_open}"),
        '"?',
        " Answer:",
        MASK,
    )
    return Pattern(parts, {"neutral": " Maybe", "entailment": " True", "contradiction": " False"})


def _mnli() -> dict[int, Pattern]:
    wrong = {"contradiction": " Wrong", "entailment": " Right", "neutral": " Maybe"}
    no = {"contradiction": " No", "entailment": " Yes", "neutral": " Maybe"}
    quoted = ('"', Cut("{first_open}"), '" ?', MASK, ', "', Cut("{second}", 1), '"')
    plain = (Cut("{first_open}"), "?", MASK, ",", Cut("{second}", 1))
    return {number: Pattern((quoted, plain)[number % 2], (wrong, no)[number // 2]) for number in range(4)}


CHINESE_NLI = Pattern(
    ("前提：", Cut("{first}"), "假设：", Cut("{second}", 1), "由前提看，假设是对的吗？", MASK, "。"),
    {"entailment": "对", "contradiction": "错", "neutral": "可能"},
)
IS_OR_NOT = {"0": "不是", "1": "是"}
PARAPHRASE = {
    0: Pattern((Cut("{first}"), "？", "你是说", Cut("{second}", 1), "？", MASK, "。"), IS_OR_NOT),
    1: Pattern((Cut("{first}"), "？", MASK, "，", Cut("{second}", 1)), IS_OR_NOT),
}
NEWS = {
    "100": "故事",
    "101": "文化",
    "102": "娱乐",
    "103": "体育",
    "104": "金融",
    "106": "房产",  # the original's 居家 is two pieces
    "107": "汽车",
    "108": "教育",
    "109": "科技",
    "110": "军事",
    "112": "旅游",
    "113": "国际",
    "114": "股票",
    "115": "农业",
    "116": "游戏",
}


def _news(fields: Mapping[str, str]) -> tuple[Part, ...]:
    keywords = ("关键词：", Cut("{keywords}")) if fields["keywords"] else ()
    return ("标题：", Cut("{sentence}"), *keywords, "类别：", MASK)


def _race(fields: Mapping[str, str]) -> tuple[Part, ...]:
    """Returns the parts of a question: one with a gap is filled there, any other is answered."""
    if fields["question"].count("_") == 1:
        before, after = (side.replace("{", "{{").replace("}", "}}") for side in fields["question"].split("_"))
        return (Cut("{article}"), before, MASK, after)
    return (Cut("{article}"), " Question:", " {question}", " Answer:", MASK)


def _choice_task(name: str, read, patterns, **more) -> Task:
    return Task(name, CHOOSE, read, patterns if isinstance(patterns, dict) else {0: patterns}, **more)


_BOOLQ = (Cut("{passage}"), " Question:", Cut(" {question}"), "? Answer:", MASK, ".")
_MULTIRC = (Cut("{passage}"), ".", " Question:", " {question}?", " Is it", " {answer}", "?", MASK, ".")
_COPA_END = (Cut("{premise}"), "{joint}", MASK, ".")
_EXTRACT = {
    "zh": (Cut("{context}"), "问题：{question}", "答案：", GENERATION_BLANK),
    "en": (Cut("{context}"), " Question: {question}", " Answer:", GENERATION_BLANK),
}

# The multilingual GLM's: English words for every language
_SQUAD_V1 = (" {question}", SENTENCE_BLANK, Bare("."), Cut("{context}"))
# Tasks (XNLI, PAWS-X, XQuAD, MLQA and TyDiQA) whose data sets may be named by their language.
LANGUAGES = frozenset("ar bg bn de el en es fi fr hi id it ja ko nl pt ru sw te th tr ur vi zh".split())
OF_COUNTRY = re.compile(r"[A-Z]{2}|[A-Z][a-z]{3}")  # behind a language, the country or script that it is of
MLQA_LANGUAGES = ("en", "es", "hi", "vi", "de", "ar", "zh")  # languages that its metric has rules for
_MLQA = (Cut("{context}"), Bare("."), " Question: {question}", " Answer: ", SENTENCE_BLANK)


def _published(name: str, parts: tuple[Part, ...], read=rows.squad, **more) -> Task:
    how = {"figure": "f1", "windows_as_published": True, "closed": False}
    return Task(name, EXTRACT, read, {0: Pattern(parts)}, **how, **more)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _choice_task("xnli", rows.pair(*NLI, "-"), {4: _xnli("followling")}, aliases=NLI_NUMBERS),
        _choice_task("xnli_corrected", rows.pair(*NLI, "-"), {4: _xnli("following")}, aliases=NLI_NUMBERS),
        _choice_task("xnli_zh", rows.pair(*NLI, "-"), CHINESE_NLI, aliases=NLI_NUMBERS, language="zh"),
        _choice_task("mnli", rows.pair(*NLI, "-"), _mnli(), aliases=NLI_NUMBERS),
        _choice_task(
            "pawsx",
            rows.pair(*SENTENCES),
            {
                **{
                    n: Pattern(parts, {"0": " No", "1": " Yes"})
                    for n, parts in enumerate(_two_sides("second", "first"))
                },
                4: Pattern(_asked("first", "second"), {"0": " No", "1": " Yes"}),
            },
        ),
        _choice_task("pawsx_zh", rows.pair(*SENTENCES), PARAPHRASE, language="zh"),
        _choice_task(
            "copa",
            rows.copa,
            {
                0: Pattern(('"', "{choice1}", '" or "', "{choice2}", '"?', *_COPA_END)),
                1: Pattern(("{choice1}", " or", " {choice2}", "?", *_COPA_END)),
            },
            several=True,
        ),
        _choice_task(
            "rte",
            rows.pair(*NLI),
            _entailment(
                {"entailment": " Yes", "not_entailment": " No"}, {"entailment": " true", "not_entailment": " false"}
            ),
            aliases={"0": "entailment", "1": "not_entailment"},
        ),
        _choice_task(
            "cb",
            rows.pair(*NLI),
            _entailment(
                {"entailment": " Yes", "contradiction": " No", "neutral": " Maybe"},
                {"entailment": " true", "contradiction": " false", "neutral": " neither"},
            ),
            aliases={"0": "entailment", "1": "contradiction", "2": "neutral"},
        ),
        _choice_task(
            "boolq",
            rows.flat(passage=("passage",), question=("question",)),
            {
                number: Pattern(_BOOLQ, {"true": words[0], "false": words[1]})
                for number, words in enumerate(((" Yes", " No"), (" true", " false")))
            },
            aliases={"1": "true", "0": "false", "True": "true", "False": "false"},
        ),
        _choice_task("multirc", rows.multirc, Pattern(_MULTIRC, YES_NO), figure="f1a"),
        _choice_task(
            "wic",
            rows.flat(first=("sentence1",), second=("sentence2",), word=("word",)),
            Pattern(
                (Cut('"{first}" / "{second}"'), ' Similar sense of "{word}"?', MASK, "."),
                {"true": " Yes", "false": " No"},
            ),
            aliases={"1": "true", "0": "false"},
        ),
        _choice_task(
            "wsc",
            rows.wsc,
            Pattern((Cut("{marked}"), " The pronoun '*{pronoun}*' refers to", MASK, ".")),
            several=True,
        ),
        _choice_task("record", rows.record, Pattern((Cut("{passage}"), " {before}", MASK, "{after}")), several=True),
        _choice_task("race", rows.race, Pattern(_race), several=True),
        _choice_task("tnews", rows.news, {0: Pattern(_news, NEWS), 1: Pattern(_news, {**NEWS, "113": "世界"})}),
        _choice_task("ocnli", rows.pair(*NLI, "-"), CHINESE_NLI, aliases=NLI_NUMBERS, language="zh"),
        _choice_task("cmnli", rows.pair(*NLI, "-"), CHINESE_NLI, aliases=NLI_NUMBERS, language="zh"),
        _choice_task("afqmc", rows.pair(*SENTENCES), PARAPHRASE, language="zh"),
        _choice_task(
            "cluewsc",
            rows.cluewsc,
            {
                0: Pattern(
                    (Cut("{marked}"), "代词'*{pronoun}*'", MASK, "指#{noun}#."), {"false": "不是", "true": "是"}
                ),
                1: Pattern(
                    ("在如下的句子中：", Cut("{marked}"), "代词'*{pronoun}*'", MASK, "指'#{noun}#'."),
                    {"false": "不是", "true": "是"},
                ),
            },
            aliases={"1": "true", "0": "false"},
            language="zh",
        ),
        _choice_task(
            "c3",
            rows.c3,
            Pattern(("短文：", Cut("{context}"), "问题：", "{question}", "答案：", MASK, "。")),
            several=True,
            language="zh",
        ),
        _choice_task(
            "chid",
            rows.chid,
            Pattern((Cut("{before}", 0, keeps_end=True), MASK, Cut("{after}", 1))),
            several=True,
            assigned=True,
            language="zh",
        ),
        _choice_task(
            CHOICE_FILE,
            rows.choice_file,
            Pattern((Cut("{before}", 0, keeps_end=True), MASK, "{after}")),
            several=True,
            ends=False,
        ),
        _choice_task(
            LAST_WORD,
            rows.last_word,
            Pattern((Cut("{context}", 0, keeps_end=True), GENERATION_BLANK)),
            several=True,
            ends=False,
            exact=True,
        ),
        _published("squad_v1", _SQUAD_V1),
        _published("mlqa", _MLQA, languages=MLQA_LANGUAGES),
        _published("tydiqa", _SQUAD_V1, read=rows.tydiqa, no_answer="N/A"),
        Task("squad", EXTRACT, rows.squad, {0: Pattern(_EXTRACT["en"])}, figure="f1", no_answer="N/A"),
        Task(
            "cmrc2018", EXTRACT, rows.squad, {0: Pattern(_EXTRACT["zh"])}, figure="f1", no_answer="N/A", language="zh"
        ),
    )
}


def find_frame(
    task_name: str,
    template: str | None,
    target_prefix: str | None,
    labels: str | None,
    own: Mapping[str, str] = MappingProxyType({}),
) -> Template | Task:
    """Returns the template or task that lays out the records of a run.

    Args:
        task_name: a task of TASKS or a template of TEMPLATES.
        template: the user's own, instead of the task's.
        target_prefix: constant opening of the target, of a task that generates.
        own: texts of a family's own for tasks that generate, by name.
        labels: words and labels of the user's own, `WORD=LABEL,…`: the task chooses among them.

    Raises:
        InputError: there is no such task, or the user's own cannot be used.
    """
    task = TASKS.get(task_name)
    if task is None and labels is None:
        if template is not None:
            return own_template(template, target_prefix or "")
        found = find_template(task_name, others=TASKS)
        found = own_template(own[task_name]) if task_name in own else found
        return found if target_prefix is None else replace(found, target_prefix=target_prefix)
    if target_prefix is not None:
        raise InputError(
            f"target_prefix {target_prefix}: has no effect on a task that chooses or extracts; leave it out"
        )
    if task is None and template is None:
        raise InputError(
            f"labels {labels}: give the text with the blank too: --template, or --task_name with a cloze task"
        )
    words = parse_labels(labels) if labels is not None else None
    return _own_task(task, template, words)


def _own_task(task: Task | None, template: str | None, words: Mapping[str, str] | None) -> Task:
    """Returns a task with the user's template or labels instead of its own."""
    if task is not None and words is not None and (task.kind == EXTRACT or not task.pattern(None).labels):
        raise InputError(
            f"labels {','.join(words.values())}: {task.name} brings its candidates with each record; leave it out"
        )
    if template is None:
        if words is None:
            return task
        if missing := [label for label in task.pattern(None).labels if label not in words]:
            raise InputError(f"labels {','.join(words.values())}: no word for the label {missing[0]} of {task.name}")
        return replace(task, patterns={n: replace(p, labels=words) for n, p in task.patterns.items()})
    parts = parse_parts(template)
    if task is not None:
        words = words or task.pattern(None).labels
        if task.kind == EXTRACT or not words:
            raise InputError(f"template {template}: {task.name} has a layout of its own; leave it out")
    names = field_names(parts)
    return Task(
        task.name if task else OWN,
        CHOOSE,
        rows.flat(**{name: (name,) for name in names}),
        {0: Pattern(parts, words)},
        aliases=task.aliases if task else {},
        language=task.language if task else "zh",
    )


def languages_of(name: str) -> tuple[str, ...]:
    """Returns the languages in a data set's name: one (`zh`, `zh-CN`), or those of passage and question (`en-zh`, as
    MLQA's files have them); none if it has none."""
    parts = tuple(name.split("-"))
    if len(parts) == 2 and OF_COUNTRY.fullmatch(parts[1]):
        parts = parts[:1]
    return parts if len(parts) <= 2 and LANGUAGES.issuperset(parts) else ()


def in_language(frame: Template | Task, name: str) -> Template | Task:
    """Returns a template or task in the language that a data set's name stands for, if it does.

    Where it names two, that of the passage counts: the answer stands there.
    """
    if isinstance(frame, Task):
        told = languages_of(name)
        return replace(frame, language=told[0]) if told else frame
    if frame.summaries is not None and len(told := languages_of(name)) == 1 and told[0] in frame.summaries.prompts:
        return replace(frame, summaries=replace(frame.summaries, language=told[0]))
    return frame
