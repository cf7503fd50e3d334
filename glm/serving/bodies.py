"""Parses request bodies: their size is checked before they are read, and large ones are read in a thread of their own.

Whatever a body holds, finding out that it is too much costs milliseconds, and an answer to `/health` does not wait for
it: what takes longer than that is done by the thread of a `Desk`, a slice at a time.
"""

import asyncio
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from glm.errors import shown
from glm.options.suggestions import close_name
from glm.runtime.device import give_memory_back
from glm.runtime.json_structure import json_problem, structure
from glm.serving.errors import ApiError
from glm.serving.schemas import Strict

Body = TypeVar("Body", bound=Strict)
Result = TypeVar("Result")

SMALL = 1 << 14  # bytes of a body that is parsed at once: handing it to a thread would take longer
SLICE = 1 << 14  # characters of texts laid out at a time, before other requests get a turn
MOST_ITEMS = 32  # items laid out at a time
MOST_NAMED = 3  # errors listed for one body


@dataclass(frozen=True)
class Limits:
    """Limits of a single request.

    Args:
        max_request_bytes: most bytes of its body.
        max_request_items: values in it, and names of an object's entries.
        max_request_depth: most nested lists and objects.
        max_request_characters: most characters of all its texts.
    """

    max_request_bytes: int = 4 << 20
    max_request_items: int = 20_000
    max_request_depth: int = 16
    max_request_characters: int = 1 << 18

    def check(self, data: bytes) -> None:
        """Raises ApiError if a body holds more than the limits allow."""
        found = structure(data)
        if found.depth > self.max_request_depth:
            message = f"lists and objects {found.depth} deep; at most {self.max_request_depth} (max_request_depth)"
            raise ApiError(400, message, code="body_too_deep")
        if found.items > self.max_request_items:
            message = f"about {found.items} values and names; at most {self.max_request_items} (max_request_items)"
            raise ApiError(413, f"{message}; send them in several requests", code="body_too_large")


class Desk:
    """A thread that does one kind of work for all requests, one after the other.

    Args:
        name: name of the thread.
    """

    def __init__(self, name: str):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._is_to_give_back = False

    def give_memory_back(self) -> None:
        """Schedules that unused memory is given back to the system, once within the next second."""
        if not self._is_to_give_back:
            self._is_to_give_back = True
            asyncio.get_running_loop().call_later(1.0, self._begin_to_give_back)

    def _begin_to_give_back(self) -> None:
        self._is_to_give_back = False
        with suppress(RuntimeError):  # the server may have ended by then
            self._thread.submit(give_memory_back)

    async def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Runs a piece of work and returns its result. It should be short: once started it cannot be cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def map(self, work: Callable[[Any], Result], items: Sequence[Any]) -> list[Result]:
        """Runs work for each of many items and returns the results. Other requests get turns in between, at which
        cancelling takes effect."""
        found: list[Result] = []
        for part in slices(items):
            found += await self.run(lambda part: [work(item) for item in part], part)
        return found

    def close(self) -> None:
        """Ends the thread after its present work."""
        self._thread.shutdown(cancel_futures=True)


def slices(items: Sequence[Any]) -> Iterator[list[Any]]:
    """Splits items into slices of about `SLICE` characters and at most `MOST_ITEMS` items, one at least."""
    part: list[Any] = []
    size = 0
    for item in items:
        part.append(item)
        size += characters(item)
        if size >= SLICE or len(part) == MOST_ITEMS:
            yield part
            part, size = [], 0
    if part:
        yield part


def characters(value: Any) -> int:
    """Counts the characters of a text, or of all texts in a value; every value counts as one at least."""
    if isinstance(value, str):
        return len(value) + 1
    if isinstance(value, Mapping):
        return characters(list(value)) + sum(map(characters, value.values()))
    return 1 + sum(map(characters, value)) if isinstance(value, list | tuple) else 1


def parse(data: bytes, schema: type[Body], limits: Limits) -> Body:
    """Parses a body.

    Raises:
        ApiError: it is no JSON, not what the schema says, or more than the limits allow.
    """
    limits.check(data)
    if not data:
        raise ApiError(422, "a JSON object is expected", code="missing", param="body")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or json_problem(error)
        raise ApiError(400, f"the body is no JSON ({shown(reason)})", code="invalid_json") from error
    if (size := characters(content)) > limits.max_request_characters:
        message = f"texts of {size} characters; at most {limits.max_request_characters} (max_request_characters)"
        raise ApiError(413, f"{message}; send them in several requests", code="body_too_large")
    if isinstance(content, dict):
        unknown = [name for name in content if name not in schema.model_fields]
        content = {name: value for name, value in content.items() if name not in unknown[MOST_NAMED:]}
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise _deviation(error, schema.model_fields) from None


def _deviation(error: ValidationError, known: Collection[str]) -> ApiError:
    """Translates pydantic's errors, by field, into the API's words.

    Args:
        known: the fields that there are.
    """
    found = error.errors(include_url=False, include_input=False)
    # Without the parts of a location that are pydantic's names of types.
    of_fields: dict[str, list[dict[str, Any]]] = {}
    for item in found:
        place = item["loc"][:1] + tuple(part for part in item["loc"][1:] if isinstance(part, int))
        of_fields.setdefault(shown(".".join(map(str, place))) or BODY, []).append(item)
    messages, codes = {}, []
    for name, items in list(of_fields.items())[:MOST_NAMED]:
        # Where a field may have several types, errors of the type that it has are meant.
        items = [item for item in items if not item["type"].endswith("_type")] or items
        codes.append(items[0]["type"])
        messages[name] = " or ".join(dict.fromkeys(_in_our_words(item, known) for item in items))
    message = "; ".join(f"{name}: {said}" for name, said in messages.items())
    param = next(iter(messages))
    if param == BODY:  # an error about several fields names them itself
        message = message.removeprefix(f"{BODY}: ")
        subject = re.split(r"[ :]", message)[0]
        param = subject if subject in known else BODY
    return ApiError(422, message, code=codes[0], param=param)


BODY = "body"
# Pydantic's error types, and our messages.
WORDS = {
    "missing": "has to be given",
    "dict_type": "a JSON object is expected",
    "model_type": "a JSON object is expected",
    "list_type": "a list is expected",
    "string_type": "a text is expected",
    "string_unicode": "holds half of a surrogate pair; write it as UTF-8, or escape whole characters",
    "string_too_short": "must not be empty",
    "string_too_long": "at most {max_length} characters are expected",
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_type": "a number is expected",
    "finite_number": "a finite number is expected",
    "bool_type": "true or false is expected",
    "greater_than": "use a number above {gt:g}",
    "greater_than_equal": "use {ge:g} or more",
    "less_than": "use a number below {lt:g}",
    "less_than_equal": "use {le:g} or less",
    "too_short": "{min_length} or more are expected",
    "too_long": "at most {max_length} are expected",
    "literal_error": "use one of {expected}",
    "value_error": "{error}",
}
# Fields of OpenAI's API and of compatible servers, and our names for them.
OTHER_NAMES = {
    "max_new_tokens": "max_tokens",
    "max_length": "max_tokens",
    "do_sample": "temperature",
    "num_return_sequences": "n",
    "beam_size": "num_beams",
    "beams": "num_beams",
    "use_beam_search": "num_beams",
    "stop_sequences": "stop",
    "input": "prompt",
    "inputs": "prompt",
    "tgt_length": "max_tokens",
    "max_tokens": "tgt_length",
    "n": "num_return_sequences",
    "prompt": "texts",
    "generation_seed": "seed",
    "seed": "generation_seed",
}


def _in_our_words(item: Mapping[str, Any], known: Collection[str]) -> str:
    if item["type"] == "extra_forbidden":
        name = str(item["loc"][-1])
        if (ours := OTHER_NAMES.get(name)) in known:
            return f"no such field; here it is {ours}"
        close = close_name(name, known) if len(item["loc"]) == 1 else None
        return f"no such field; did you mean {close}?" if close else "no such field"
    words, context = WORDS.get(item["type"]), item.get("ctx", {})
    if item["type"] == "literal_error":  # " or " stands between errors
        context = {"expected": context["expected"].replace(" or ", ", ")}
    return item["msg"] if words is None else words.format(**context)
