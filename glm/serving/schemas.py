"""Schemas of request bodies. Names and types are strict: an unknown field or another type is an error."""

import secrets
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from glm.errors import InputError, shown
from glm.generation.config import RANGES, GenerationConfig, early_stopping_word
from glm.models.protocol import TASK_NAME

# Limits of what a server computes for anyone: beyond them a single request could take all memory, or overflow numbers.
LIMITS = {
    "num_beams": (1, 32),
    "length_penalty": (-10, 10),
    "temperature": (0.01, 100),
    "repetition_penalty": (0.01, 100),
}
MOST_CANDIDATES = 256  # of a text
MOST_LOGPROBS = 5  # likeliest tokens that are told of each place, as in OpenAI's API
OPTION_NAMES = {option.name for option in fields(GenerationConfig)}

Text = Annotated[str, Field(min_length=1)]
# In any spelling, as well as JSON's `true`
EarlyStopping = Annotated[Literal["true", "false", "never"], BeforeValidator(early_stopping_word)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class Strict(BaseModel):
    """Base of all bodies: converts no value and ignores no unknown field; null means that a field was not given."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def given(self, *names: str) -> dict[str, Any]:
        """Returns those of these fields that were given."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def _field(option) -> tuple[Any, Any]:
    """Makes an optional field of a decoding option."""
    choices = option.metadata.get("choices")
    if option.name == "early_stopping":
        return EarlyStopping | None, Field(None, description=option.metadata["help"])
    return (Literal[*choices] if choices else option.type) | None, Field(None, description=option.metadata["help"])


Options = create_model(
    "Options", __base__=Strict, **{option.name: _field(option) for option in fields(GenerationConfig)}
)


class GenerateRequest(Options):
    """`POST /generate`: records, or texts with blanks, and decoding options that replace the server's."""

    records: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = Field(
        None, min_length=1, description="As the lines of a file."
    )
    texts: Annotated[list[str], Field(fail_fast=True)] | None = Field(
        None, min_length=1, description="With blanks, as the model's family marks them."
    )
    token_scores: bool = Field(False, description="Return the log-probability of every token.")
    task: Text | None = Field(None, description="Whose adapter writes, of those in /v1/models; none if left out.")

    @model_validator(mode="after")
    def _check_input(self):
        if (self.records is None) == (self.texts is None):
            raise ValueError("give either records or texts")
        return self

    def config(self, server: GenerationConfig) -> GenerationConfig:
        """Returns the server's options, updated by those given.

        Raises:
            InputError: one is out of range, or has no effect beside the others.
        """
        return _changed(server, self.given(*OPTION_NAMES))


class AdapterRequest(Strict):
    """`POST /adapters`: a folder of adapters, where the server runs."""

    folder: Annotated[str, Field(min_length=1, max_length=4096)]
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=TASK_NAME)] | None = Field(
        None, description="What the task is called here; as in its folder if left out."
    )


class ChooseRequest(Strict):
    """`POST /choose`: records of the model's own task, or a text with one blank and its candidates."""

    records: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = Field(
        None, min_length=1, description="As the lines of a file."
    )
    text: Text | None = Field(None, description="With one blank; it is put last if there is none.")
    candidates: Annotated[list[Text], Field(fail_fast=True)] | None = Field(
        None, min_length=2, max_length=MOST_CANDIDATES
    )

    @model_validator(mode="after")
    def _check_input(self):
        if (self.records is None) == (self.text is None):
            raise ValueError("give either records, or text and candidates")
        if (self.text is None) != (self.candidates is None):
            raise ValueError("text and candidates belong together")
        return self


class ExtractRequest(Strict):
    """`POST /extract`: a question about a passage, or several as records."""

    records: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = Field(
        None, min_length=1, description="With question and context."
    )
    question: Text | None = None
    context: Text | None = None
    language: Literal["zh", "en"] = Field("zh", description="Of the words around question and passage.")

    @model_validator(mode="after")
    def _check_input(self):
        if (self.records is None) == (self.question is None):
            raise ValueError("give either records, or question and context")
        if (self.question is None) != (self.context is None):
            raise ValueError("question and context belong together")
        return self


def _neutral(advice: str, *values: Any) -> Any:
    """Makes the type of an OpenAI field that is accepted only at its neutral values, which clients send.

    Args:
        advice: what to say of others.
    """

    def check(value: Any) -> Any:
        if not any(type(value) is type(neutral) and value == neutral for neutral in (None, *values)):
            raise ValueError(advice)
        return value

    return Annotated[Any, BeforeValidator(check)]


PENALTY = "is not there; to discourage repeats there are repetition_penalty and no_repeat_ngram_size"
BIAS = "is not there; no token can be made likelier or banned by a request"


class StreamOptions(Strict):
    """The object `stream_options`."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # there is none


class Decoded(Strict):
    """What completions and chats have in common: OpenAI's fields, and this toolkit's decoding options.

    With `temperature` above 0, `top_p`, `top_k` or `seed` tokens are drawn, `n` times independently; otherwise `n`
    texts of one search are returned.
    """

    model: str | None = None
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=LIMITS["num_beams"][1])
    stop: Stop | Annotated[list[Stop], Field(fail_fast=True, max_length=8)] | None = None
    seed: int | None = Field(None, ge=0, le=RANGES["generation_seed"][1])
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None

    num_beams: int | None = Field(None, ge=1)
    length_penalty: float | None = None
    early_stopping: EarlyStopping | None = None
    min_tgt_length: int | None = None
    no_repeat_ngram_size: int | None = None
    repetition_penalty: float | None = None
    top_k: int | None = Field(None, ge=1)

    frequency_penalty: _neutral(PENALTY, 0, 0.0) = None
    presence_penalty: _neutral(PENALTY, 0, 0.0) = None
    logit_bias: _neutral(BIAS, {}) = None

    @property
    def stops(self) -> list[str]:
        """Returns the stop texts."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def draws(self) -> bool:
        """Whether tokens are sampled."""
        return self.temperature != 0 and bool(self.given("temperature", "top_p", "top_k", "seed"))

    @property
    def wanted(self) -> int:
        """Number of texts returned for a prompt."""
        return self.n or 1

    @property
    def tried(self) -> int:
        """Number of texts generated for a prompt, of which the best `wanted` are returned."""
        return self.wanted

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @model_validator(mode="after")
    def _check_stream(self):
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: has no effect without stream true; leave it out")
        return self

    def config(self, server: GenerationConfig, *, tgt_length: int) -> GenerationConfig:
        """Returns the server's options, updated by those given.

        Raises:
            InputError: one is out of range, or has no effect beside the others.
        """
        given = self.given(
            "num_beams",
            "length_penalty",
            "early_stopping",
            "min_tgt_length",
            "no_repeat_ngram_size",
            "repetition_penalty",
        )
        given["tgt_length"] = tgt_length
        if self.draws:
            seed = secrets.randbelow(2**31) if self.seed is None else self.seed
            given = {"num_beams": 1, "select_topk": False, "generation_seed": seed} | given
            given |= self.given("temperature", "top_p", "top_k")
            return _changed(server, given)
        for name, off in {"top_p": 1.0, "top_k": None}.items():
            if (value := getattr(self, name)) not in (None, off):
                raise InputError(f"{name} {value}: has no effect with temperature 0; raise it")
        if self.temperature == 0:
            given["select_topk"] = True
        if self.tried > self.wanted:
            given.setdefault("num_beams", self.tried)
        beams = given.get("num_beams", server.num_beams)
        if self.tried > self.wanted and beams != self.tried:
            raise InputError(f"best_of {self.tried}: has no effect beside num_beams {beams}; leave one of them out")
        if self.wanted > beams:
            raise InputError(f"n {self.n}: use 1 to {beams}, raise num_beams, or draw with temperature above 0")
        return _changed(server, given | {"num_return_sequences": self.wanted})


Id = Annotated[int, Field(ge=0)]


class CompletionRequest(Decoded):
    """`POST /v1/completions`: the prompt is what the model reads, with a blank added if it has none."""

    prompt: (
        Text
        | Annotated[list[Text], Field(fail_fast=True, min_length=1)]
        | Annotated[list[Id], Field(fail_fast=True, min_length=1)]
        | Annotated[
            list[Annotated[list[Id], Field(fail_fast=True, min_length=1)]], Field(fail_fast=True, min_length=1)
        ]
    )
    suffix: str | None = None
    best_of: int | None = Field(None, ge=1, le=LIMITS["num_beams"][1])
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    token_scores: bool = False

    @property
    def prompts(self) -> list[str | list[int]]:
        """Returns the prompts, as texts or ids."""
        is_one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if is_one else self.prompt

    @property
    def tried(self) -> int:
        return max(self.best_of or 1, self.wanted)

    @model_validator(mode="after")
    def _check_beside(self):
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens 0: writes nothing; use 1 or more, or echo true to have the prompt scored")
        if self.best_of is not None and 1 < self.best_of < self.wanted:
            raise ValueError(f"best_of {self.best_of}: use n ({self.wanted}) or more")
        if self.stream and self.logprobs is not None:
            raise ValueError("logprobs: come with whole texts only; leave stream out")
        if self.stream and self.token_scores:
            raise ValueError("token_scores: come with whole texts only; leave stream out")
        return self


class TokenizeRequest(Strict):
    """`POST /tokenize`, as vLLM's servers have it."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None  # without effect: special tokens of a prompt are added by its layout
    return_token_strs: bool | None = None


class DetokenizeRequest(Strict):
    """`POST /detokenize`, as vLLM's servers have it."""

    model: str | None = None
    tokens: Annotated[list[Id], Field(fail_fast=True)]


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """A message of a chat."""

    role: str
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """Its text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or ())


TOOLS = "is not there; the model writes texts and calls nothing"
FORMAT = "is not there; the model writes plain text"
CHAT_SCORES = "are not there; POST /v1/completions has them"


class ChatRequest(Decoded):
    """`POST /v1/chat/completions`: one message of a user, which the model reads in its own template."""

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1)

    logprobs: _neutral(CHAT_SCORES, False) = None
    top_logprobs: _neutral(CHAT_SCORES, 0) = None
    tools: _neutral(TOOLS, []) = None
    tool_choice: _neutral(TOOLS, "none", "auto") = None
    parallel_tool_calls: _neutral(TOOLS, True, False) = None
    functions: _neutral(TOOLS, []) = None
    function_call: _neutral(TOOLS, "none", "auto") = None
    response_format: _neutral(FORMAT, {"type": "text"}) = None
    store: _neutral("is not there; nothing is stored", False) = None
    metadata: _neutral("is not there; nothing is stored", {}) = None

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer, under either of OpenAI's names."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def question(self) -> str:
        """Returns the user's message.

        Raises:
            InputError: it is more than the one turn of a user.
        """
        (first, *others) = self.messages
        if others or first.role != "user":
            roles = ", ".join(shown(message.role, 20) for message in self.messages[:4])
            raise InputError(
                f"messages: {len(self.messages)} of the roles {roles}; "
                "one of the role user is answered: the model was trained on single turns, so put all into one"
            )
        if not first.text.strip():
            raise InputError("messages: the user's content is empty; write what the model is to read")
        return first.text

    @model_validator(mode="after")
    def _check_limit(self):
        if self.max_tokens == 0:
            raise ValueError("max_tokens 0: writes nothing; use 1 or more")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens: is another name of max_completion_tokens; leave one of them out")
        return self


def _changed(server: GenerationConfig, given: dict[str, Any]) -> GenerationConfig:
    for name, (least, most) in LIMITS.items():
        if name in given and not least <= given[name] <= most:
            raise InputError(f"{name} {given[name]}: use {least} to {most}")
    return server.changed(given)
