"""Answers OpenAI's API without HTTP: completions of prompts, and single turns of a chat."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from glm.data.columns import ColumnOptions
from glm.data.formats import Row
from glm.data.records import columns_of, record_or_bad
from glm.data.templates import GENERATION_BLANK
from glm.errors import InputError
from glm.generation.candidates import log_probs
from glm.generation.search import Hypothesis
from glm.models.protocol import Prompt, TokenScores
from glm.prediction.filling import lay_out
from glm.prediction.predictions import text_row
from glm.prediction.writer import Writer
from glm.serving.batcher import Batcher, Task
from glm.serving.bodies import Desk
from glm.serving.schemas import ChatRequest, CompletionRequest, Decoded, DetokenizeRequest, TokenizeRequest
from glm.serving.streams import GrowingText
from glm.serving.token_lists import TokenList, offsets_of

Json = dict[str, Any]
COMPLETION, CHAT = "text_completion", "chat.completion"


@dataclass(frozen=True)
class Asked:
    """A prompt, and the texts around what is generated.

    Args:
        ids: those of a prompt whose end is to be continued; None for a prompt with a blank of its own.
        begins: its ids began with that of the end of a text, which says that nothing is before them.
        cut: tokens that it lost.
    """

    prompt: Prompt
    before: str = ""
    after: str = ""
    ids: Sequence[int] | None = None
    begins: bool = False
    cut: int = 0


@dataclass(frozen=True)
class Job:
    """A request, split into decoding tasks.

    Args:
        kind: COMPLETION or CHAT.
        tasks: `tried` for each prompt, or one whose search finds all.
        stops: where texts end.
        shown: the text of tokens.
    """

    kind: str
    request: Decoded
    asked: list[Asked]
    tasks: list[Task]
    stops: Collection[str]
    shown: Callable[[Sequence[int]], str]

    @property
    def tasks_of_prompt(self) -> int:
        """Returns the number of tasks of each prompt."""
        return len(self.tasks) // len(self.asked)

    @property
    def grows(self) -> bool:
        """Whether each task writes one text token by token that is returned as it is, without competitors."""
        one_each = self.tasks_of_prompt == self.request.wanted
        return one_each and all(task.config.num_beams == 1 for task in self.tasks)


class Completions:
    """Answers OpenAI's requests with one model.

    Args:
        name: name of the model.
        columns: see `Service`.
        writes: whether the model's own task writes texts, so that it has a template for them.
    """

    def __init__(
        self, name: str, writer: Writer, batcher: Batcher, desk: Desk, columns: ColumnOptions, *, writes: bool
    ):
        self.name = name
        self.writer = writer
        self.batcher = batcher
        self.desk = desk
        self.columns = columns
        self.writes = writes

    # -- requests

    async def complete(self, request: CompletionRequest) -> Json:
        """Completes prompts: generates the text of their blanks.

        Raises:
            InputError: a prompt does not fit or has more than one blank, or the options cannot be used.
            QueueFullError, DecodingError: see `Batcher.write`.
        """
        return await self._answer(await self.job(request))

    async def chat(self, request: ChatRequest) -> Json:
        """Answers one turn of a user, in the model's template. Raises as `complete`."""
        return await self._answer(await self.chat_job(request))

    async def job(self, request: CompletionRequest) -> Job:
        """Makes the tasks of a completion request. Raises InputError as `complete`."""
        given = len(self.writer.prefix_ids)  # tokens of a text that are not generated
        tgt_length = self.writer.config.tgt_length if request.max_tokens is None else given + request.max_tokens
        check_length(self.writer, "max_tokens", tgt_length, given)
        if request.max_tokens != 0:  # before prompts are encoded, which may take longer than to refuse them
            self.batcher.check_room(len(request.prompts) * (request.tried if request.draws else 1))
        asked = await self.desk.map(partial(self._asked, request=request), request.prompts)
        if request.echo and request.logprobs is not None:
            self._check_scored(asked)
        if request.max_tokens == 0:
            return Job(COMPLETION, request, asked, [], (), self._shown(()))
        return self._job(COMPLETION, request, asked, tgt_length)

    async def chat_job(self, request: ChatRequest) -> Job:
        """Makes the task of a chat request. Raises InputError as `complete`."""
        asked = await self.desk.run(self._turn, request.question)
        given = asked.prompt.given
        limit = request.limit
        tgt_length = self.writer.config.tgt_length if limit is None else given + limit
        check_length(self.writer, "max_tokens", tgt_length, given)
        return self._job(CHAT, request, [asked], tgt_length)

    def _job(self, kind: str, request: Decoded, asked: list[Asked], tgt_length: int) -> Job:
        config = request.config(self.writer.config, tgt_length=tgt_length)
        draws = range(request.tried if request.draws else 1)
        stops = self._stops(request)
        tokenizer = self.writer.encoder.tokenizer
        ends = (lambda ids: first_of(stops, tokenizer.decode_ids(ids)) is not None) if stops else None
        tasks = [Task(one.prompt, config, (place, draw), ends) for place, one in enumerate(asked) for draw in draws]
        return Job(kind, request, asked, tasks, stops, self._shown(stops, is_finished=kind == CHAT))

    # -- tokens

    def tokenizer_info(self) -> Json:
        """Describes the tokenizer to clients."""
        tokenizer = self.writer.encoder.tokenizer
        return {
            "tokenizer_class": self.writer.encoder.family.title,
            "vocab_size": tokenizer.vocab_size,
            "eos_token": tokenizer.token_of(tokenizer.end_token_id),
            "bos_token": None,
            "pad_token": None,
        }

    def tokenize(self, request: TokenizeRequest) -> Json:
        """Encodes a text; only a text that is exactly the end token's becomes that token."""
        tokenizer = self.writer.encoder.tokenizer
        is_end = request.prompt == tokenizer.token_of(tokenizer.end_token_id)
        ids = [tokenizer.end_token_id] if is_end else tokenizer.encode_text(request.prompt)
        pieces = list(map(tokenizer.token_of, ids)) if request.return_token_strs else None
        return {"count": len(ids), "max_model_len": self._most_tokens, "tokens": ids, "token_strs": pieces}

    def detokenize(self, request: DetokenizeRequest) -> Json:
        """Decodes ids.

        Raises:
            InputError: one is beyond the tokenizer's vocabulary; `decode_ids` would leave it out.
        """
        tokenizer = self.writer.encoder.tokenizer
        known = tokenizer.vocab_size
        if (unknown := next((number for number in request.tokens if number >= known), None)) is not None:
            raise InputError(f"tokens: {unknown} is no id of the model's tokenizer, which has {known}")
        return {"prompt": tokenizer.decode_ids(request.tokens)}

    @property
    def _most_tokens(self) -> int:
        """Most tokens of source and target together."""
        encoder = self.writer.encoder
        return encoder.src_length + encoder.geometry.room(self.writer.model.config, encoder.src_length)

    # -- whole answers

    async def _answer(self, job: Job) -> Json:
        found = await self.batcher.write(job.tasks)
        chosen = self._chosen(job, found)
        choices = await self.desk.map(lambda pair: self._choice(job, *pair), chosen)
        if getattr(job.request, "logprobs", None) is not None:
            scores = await self._scored(job, chosen)
            listed = [(*pair, of_choice) for pair, of_choice in zip(chosen, scores, strict=True)]
            found_of = await self.desk.map(lambda one: self._log_probs(job, *one), listed)
            choices = [choice | {"logprobs": own} for choice, own in zip(choices, found_of, strict=True)]
        return {
            **self._head(job.kind),
            "choices": [{"index": number, **choice} for number, choice in enumerate(choices)],
            "usage": usage_of(job, found),
        }

    def _chosen(self, job: Job, found: list[list[Hypothesis]]) -> list[tuple[Asked, Hypothesis | None]]:
        """Selects the texts to return, prompt by prompt: the best of those generated."""
        if not job.tasks:
            return [(asked, None) for asked in job.asked for _ in range(job.request.wanted)]
        chosen, count = [], job.tasks_of_prompt
        for place, asked in enumerate(job.asked):
            own = [text for texts in found[place * count : (place + 1) * count] for text in texts]
            if len(own) > job.request.wanted:
                own.sort(key=lambda text: -text.score)
            chosen += [(asked, text) for text in own[: job.request.wanted]]
        return chosen

    def _choice(self, job: Job, asked: Asked, hypothesis: Hypothesis | None) -> Json:
        text, reason = self._text(job, hypothesis)
        if job.kind == CHAT:
            cut = {"cut": asked.cut} if asked.cut else {}
            return {"message": {"role": "assistant", "content": text}, "finish_reason": reason, **cut}
        row: Json = {"text": text}
        if hypothesis is not None:
            row = text_row(self.writer.text(hypothesis), token_scores=job.request.token_scores) | row
        if job.request.echo:
            row["text"] = asked.before + text + asked.after
        return {**row, "logprobs": None, "finish_reason": reason}

    def _text(self, job: Job, hypothesis: Hypothesis | None) -> tuple[str, str]:
        """Returns a text in the API's form, and why it ended: `stop` or `length`."""
        if hypothesis is None:
            return "", "length"
        whole = self.writer.encoder.tokenizer.decode_ids([*self.writer.prefix_ids, *hypothesis.tokens])
        has_eop = len(hypothesis.token_scores) > len(hypothesis.tokens)
        is_stopped = has_eop or first_of(job.stops, self._generated(whole)) is not None
        return job.shown(hypothesis.tokens), "stop" if is_stopped else "length"

    def _head(self, kind: str) -> Json:
        name = "chatcmpl" if kind == CHAT else "cmpl"
        identity = f"{name}-{uuid.uuid4().hex}"
        return {"id": identity, "object": kind, "created": int(time.time()), "model": self.name}

    # -- answers in parts

    async def stream(self, job: Job) -> AsyncIterator[Json]:
        """Yields the parts of an answer as they become available, and at the end of each text why it ended.

        Raises:
            QueueFullError: at once, when this is awaited.
            DecodingError, InputError: while the parts are read.
        """
        events: asyncio.Queue[tuple[int, list[int] | None]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(place: int, tokens: list[int] | None) -> None:
            with suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(events.put_nowait, (place, tokens))

        tasks = job.tasks
        if job.grows:
            tasks = [
                Task(task.prompt, task.config, task.record_id, task.ends, partial(put, place))
                for place, task in enumerate(tasks)
            ]
        futures = self.batcher.submit(tasks)
        for place, future in enumerate(futures):
            future.add_done_callback(lambda _, place=place: put(place, None))
        return self._parts(job, futures, events)

    async def _parts(
        self, job: Job, futures: list[Future], events: asyncio.Queue[tuple[int, list[int] | None]]
    ) -> AsyncIterator[Json]:
        head = self._head(job.kind)
        if job.kind == CHAT:
            head["object"] += ".chunk"
        texts = [GrowingText(job.shown, job.stops) for _ in range(len(job.asked) * job.request.wanted)]
        unfinished = set(range(len(futures)))
        try:
            for opening in self._openings(job):
                yield head | opening
            while unfinished:
                place, tokens = await events.get()
                if tokens is not None:
                    if part := texts[place].grown(tokens):
                        yield head | part_of(job.kind, place, part)
                    continue
                unfinished.discard(place)
                for choice in self._ended(job, futures, place, unfinished, texts):
                    yield head | choice
            if job.request.includes_usage:
                yield head | {"choices": [], "usage": usage_of(job, [future.result() for future in futures])}
        finally:
            for future in futures:
                future.cancel()

    def _openings(self, job: Job) -> list[Json]:
        """Returns the parts that come before all texts: the writer's role, or the prompts."""
        numbers = range(len(job.asked) * job.request.wanted)
        if job.kind == CHAT:
            return [chat_part(number, {"role": "assistant", "content": ""}) for number in numbers]
        if not job.request.echo:
            return []
        asked = [job.asked[number // job.request.wanted].before for number in numbers]
        return [part_of(job.kind, number, before) for number, before in enumerate(asked) if before]

    def _ended(
        self, job: Job, futures: list[Future], place: int, unfinished: set[int], texts: list[GrowingText]
    ) -> list[Json]:
        """Returns the last parts of the texts that are settled when a task ends: its own, or all of its prompt."""
        count = job.tasks_of_prompt
        prompt = place // count
        own = range(prompt * count, (prompt + 1) * count)
        if job.grows:
            own = range(place, place + 1)
        elif unfinished & {*own}:
            return []
        found = [text for task in own for text in futures[task].result()]
        if len(found) > job.request.wanted:
            found.sort(key=lambda text: -text.score)
        first = place if job.grows else prompt * job.request.wanted
        ends = []
        for number, hypothesis in enumerate(found[: job.request.wanted], start=first):
            text, reason = self._text(job, hypothesis)
            part = texts[number].rest(text)
            if job.kind == COMPLETION and job.request.echo:
                part += job.asked[prompt].after
            ends.append(part_of(job.kind, number, part, reason))
        return ends

    # -- prompts

    def _asked(self, given: str | list[int], *, request: CompletionRequest) -> Asked:
        """Encodes a prompt: a text, with a blank or one added at its end or before `suffix`; or ids, with a blank
        added behind them."""
        encoder, suffix = self.writer.encoder, request.suffix or ""
        family, tokenizer = encoder.family, encoder.tokenizer
        blanks = [blank for blank in family.blanks if isinstance(given, str) and blank in given]
        if suffix and not family.blanks:
            raise InputError(f"suffix: {family.title} writes behind its source only; leave it out")
        if suffix and (blanks or not isinstance(given, str)):
            raise InputError("suffix: has no effect beside a prompt with a blank, or of ids; leave it out")
        if not (blanks or suffix):
            ids = tokenizer.encode_text(given) if isinstance(given, str) else self._checked(given)
            body = ids[1:] if ids[:1] == [tokenizer.end_token_id] else ids
            before = given if isinstance(given, str) else tokenizer.decode_ids(body)
            return Asked(self._behind(body, before), before, ids=body, begins=len(body) < len(ids))
        try:
            text = lay_out(self.writer, f"{given}{family.blanks[0]}{suffix}" if suffix else given)
        except InputError as error:
            raise InputError(f"prompt: {error}") from error
        if len(text.parts) > 3:
            raise InputError("prompt: holds more than one blank; POST /generate fills several")
        before, _, after = text.parts
        return Asked(text.prompt(self.writer), before, after)

    @cached_property
    def _no_text(self) -> set[int]:
        tokenizer = self.writer.encoder.tokenizer
        return tokenizer.ids_without_text(tokenizer.vocab_size) - {tokenizer.unknown_token_id}

    def _checked(self, ids: list[int]) -> list[int]:
        """Checks ids of text, with or without the end token in front. Raises InputError if one is none of text."""
        tokenizer = self.writer.encoder.tokenizer
        rest = ids[1:] if ids[0] == tokenizer.end_token_id else ids
        if wrong := [number for number in rest if number >= tokenizer.vocab_size or number in self._no_text]:
            raise InputError(f"prompt: {wrong[0]} is no id of a text; send texts, or ids of the model's own tokenizer")
        return ids

    def _behind(self, ids: list[int], text: str) -> Prompt:
        """Returns the prompt of ids whose end is to be continued."""
        encoder = self.writer.encoder
        if encoder.family.blanks:
            source = encoder.geometry.lay_out_blanks([ids, GENERATION_BLANK] if ids else [GENERATION_BLANK])
        else:
            source = encoder.geometry.lay_out(ids, [])
        if len(source) > (most := encoder.src_length):
            raise InputError(
                f"prompt: {len(source)} tokens do not fit into src_length {most}, shorten the text: {text[:40]}…"
            )
        return encoder.geometry.prompt(source, opening=self.writer.prefix_ids)

    def _turn(self, text: str) -> Asked:
        """Makes a record whose source is the user's message."""
        encoder = self.writer.encoder
        template, family = encoder.template, encoder.family
        if not self.writes:
            raise InputError("messages: the model's task writes no texts; POST records to /choose or /extract")
        if template.needs_answer or template.extra_names:
            names = ", ".join(template.names)
            raise InputError(
                f"messages: the model's template reads more than one text ({names}); POST them as a record to "
                "/generate"
            )
        row = Row(1, "messages", {(self.columns.source_column or template.source_name): text})
        columns = columns_of([row], template, self.columns, name="messages", need_target=False)
        record = record_or_bad(row, columns, need_target=False, reserved=family.reserved)
        prompts, errors, cut = self.writer.lay_out({0: record})
        if 0 in errors:
            raise InputError(errors[0])
        return Asked(prompts[0], cut=cut[0].tokens if 0 in cut else 0)

    # -- texts

    @property
    def _opening(self) -> str:
        """The constant opening of the template's target, which a model also writes if it is not given."""
        encoder = self.writer.encoder
        return encoder.tokenizer.decode_ids(encoder.opening_ids)

    def _behind_opening(self, text: str) -> int:
        """Returns where a text continues behind the template's opening and the following blank; 0 if it does not start
        with it."""
        if not self._opening or not text.startswith(self._opening):
            return 0
        end = len(self._opening)
        return end + text[end : end + 1].isspace()

    def _generated(self, whole: str) -> str:
        """Returns the generated part of a text that starts with the prefix."""
        tokenizer = self.writer.encoder.tokenizer
        return whole.removeprefix(tokenizer.decode_ids(self.writer.prefix_ids))

    def _shown(self, stops: Collection[str], *, is_finished: bool = False) -> Callable[[Sequence[int]], str]:
        """Makes the function that turns tokens into the returned text: up to the first stop, without the template's
        opening.

        Args:
            is_finished: it is one of a record, with the punctuation of those.
        """
        writer, opening = self.writer, self._opening

        def shown(tokens: Sequence[int]) -> str:
            if is_finished:
                text = self._generated(writer.finished(Hypothesis(tuple(tokens), 0.0, ())).text)
            else:
                text = self._generated(writer.encoder.tokenizer.decode_ids([*writer.prefix_ids, *tokens]))
            end = first_of(stops, text)
            text = text if end is None else text[:end]
            if opening and not is_finished:
                text = "" if opening.startswith(text) else text[self._behind_opening(text) :]
            return writer.opening + text

        return shown

    def _stops(self, request: Decoded) -> set[str]:
        """Returns the texts at which generation stops, also in the tokenizer's spelling (`？` becomes `?` there)."""
        tokenizer = self.writer.encoder.tokenizer
        written = {tokenizer.decode_ids(tokenizer.encode_text(stop)) for stop in request.stops}
        return written - {""} | set(request.stops)

    # -- log-probabilities

    def _check_scored(self, asked: Sequence[Asked]) -> None:
        """Raises InputError if the tokens of a prompt cannot be scored."""
        encoder = self.writer.encoder
        room = encoder.geometry.room(self.writer.model.config, encoder.special_tokens)
        for one in asked:
            if one.ids is None:
                raise InputError("echo: a prompt with a blank has no log-probabilities; leave logprobs out")
            if len(one.ids) >= room:
                raise InputError(f"prompt: {len(one.ids)} tokens to be scored; the model has room for {room - 1}")

    async def _scored(
        self, job: Job, chosen: list[tuple[Asked, Hypothesis | None]]
    ) -> list[tuple[TokenScores | None, TokenScores | None]]:
        """Scores the tokens of each text, and of each prompt that is echoed."""
        wanted: list[tuple[Prompt, Sequence[int]]] = []
        encoder = self.writer.encoder
        nothing = encoder.geometry.prompt(encoder.geometry.lay_out([], []))
        for asked, hypothesis in chosen:
            if job.request.echo and asked.ids:
                wanted.append((nothing, asked.ids))
            if hypothesis is not None and hypothesis.tokens:
                wanted.append((asked.prompt, hypothesis.tokens))
        found: list[TokenScores] = []
        for start in range(0, len(wanted), self.batcher.writer.batch_size):  # other requests get turns in between
            part = wanted[start : start + self.batcher.writer.batch_size]
            found += await self.batcher.run(partial(self._score, part, job.request.logprobs), count=len(part))
        scores = iter(found)
        return [
            (
                next(scores) if job.request.echo and asked.ids else None,
                next(scores) if hypothesis is not None and hypothesis.tokens else None,
            )
            for asked, hypothesis in chosen
        ]

    def _score(self, wanted: list[tuple[Prompt, Sequence[int]]], top: int) -> list[TokenScores]:
        self.writer.model.eval()
        prompts = [prompt for prompt, _ in wanted]
        found = log_probs(self.writer.model, prompts, [[list(ids)] for _, ids in wanted], top=top)
        return [scores for (scores,) in found]

    def _log_probs(
        self, job: Job, asked: Asked, hypothesis: Hypothesis | None, scores: Sequence[TokenScores | None]
    ) -> Json:
        """Returns a choice's `logprobs`: of an echoed prompt, whose first token has none, and of the shown tokens."""
        tokenizer, prefix = self.writer.encoder.tokenizer, self.writer.prefix_ids
        of_prompt, of_text = scores
        listed, start = TokenList(tokenizer, job.request.logprobs), 0
        if asked.begins and job.request.echo:
            listed.add_unscored(tokenizer.end_token_id)
        if of_prompt is not None:
            listed.add(asked.ids, of_prompt, offsets_of(tokenizer, asked.ids))
            start = len(asked.before)
        if of_prompt is not None and not asked.begins:
            listed.forget_first()
        if of_text is not None:
            offsets = offsets_of(tokenizer, hypothesis.tokens, behind=prefix)
            first = self._behind_opening(self._generated(tokenizer.decode_ids([*prefix, *hypothesis.tokens])))
            last = first + len(job.shown(hypothesis.tokens)) - len(self.writer.opening)
            kept = [number for number, offset in enumerate(offsets) if first <= offset < last]
            shift = start + len(self.writer.opening) - first
            listed.add(hypothesis.tokens, of_text, [offset + shift for offset in offsets], kept)
        return listed.as_json()


def check_length(writer: Writer, name: str, tgt_length: int, given: int = 0) -> None:
    """Raises InputError if texts of so many tokens, of which so many are given, have no room in the model."""
    encoder = writer.encoder
    room = encoder.geometry.room(writer.model.config, encoder.src_length) - given
    if tgt_length - given > room:
        raise InputError(f"{name} {tgt_length - given}: the model has room for {room} beside a source")


def usage_of(job: Job, found: list[list[Hypothesis]]) -> Json:
    """Counts the tokens read and written, those of texts that are not returned included."""
    read = sum(len(asked.prompt) for asked in job.asked)
    written = sum(len(text.token_scores) for texts in found for text in texts)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def part_of(kind: str, number: int, text: str, reason: str | None = None) -> Json:
    """Makes a part of a choice."""
    if kind == CHAT:
        return chat_part(number, {"content": text} if text else {}, reason)
    return {"choices": [{"index": number, "text": text, "logprobs": None, "finish_reason": reason}]}


def chat_part(number: int, delta: Json, reason: str | None = None) -> Json:
    """Makes a part of a chat's choice."""
    return {"choices": [{"index": number, "delta": delta, "finish_reason": reason}]}


def first_of(stops: Collection[str], text: str) -> int | None:
    """Returns where the first of these texts begins in a text."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)
