"""What requests may hold. Names and types are checked strictly: what is unknown or of another type is an error."""

import secrets
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from glm.errors import InputError
from glm.generation.config import GenerationConfig, early_stopping_word

# What a server computes for anybody: beyond, one request would take all memory, or end in numbers out of range.
LIMITS = {
    "num_beams": (1, 32),
    "length_penalty": (-10, 10),
    "temperature": (0.01, 100),
    "repetition_penalty": (0.01, 100),
}
MOST_CANDIDATES = 256  # of a text
OPTION_NAMES = {option.name for option in fields(GenerationConfig)}

Text = Annotated[str, Field(min_length=1)]
# In any spelling, as JSON's `true`.
EarlyStopping = Annotated[Literal["true", "false", "never"], BeforeValidator(early_stopping_word)]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Zero = Annotated[float, Field(ge=0, le=0)]


class Strict(BaseModel):
    """No value is converted, no unknown field passed over; a field that is null was not given."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def given(self, *names: str) -> dict[str, Any]:
        """Those of these fields that were given."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def _field(option) -> tuple[Any, Any]:
    """An option of decoding as a field that may be left out."""
    choices = option.metadata.get("choices")
    if option.name == "early_stopping":
        return EarlyStopping | None, Field(None, description=option.metadata["help"])
    return (Literal[*choices] if choices else option.type) | None, Field(None, description=option.metadata["help"])


Options = create_model(
    "Options", __base__=Strict, **{option.name: _field(option) for option in fields(GenerationConfig)}
)


class GenerateRequest(Options):
    """`POST /generate`: records, or texts with blanks, and options of decoding in place of the server's."""

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
        """The server's options, and those given.

        Raises:
            InputError: one is out of range, or has no effect beside the others.
        """
        return _changed(server, self.given(*OPTION_NAMES))


class ChooseRequest(Strict):
    """`POST /choose`: records of the model's own task, or a text with one blank and what may stand there."""

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


class CompletionRequest(Strict):
    """`POST /v1/completions` with OpenAI's fields, and this toolkit's options of decoding beside them.

    A prompt is what the model reads; a blank is added where it has none. With `temperature` above 0, `top_p`,
    `top_k` or `seed` tokens are drawn, `n` times independently; otherwise `n` texts of one search are returned.
    """

    model: str | None = None
    prompt: Text | Annotated[list[Text], Field(fail_fast=True, min_length=1)]
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=LIMITS["num_beams"][1])
    stop: Stop | Annotated[list[Stop], Field(fail_fast=True, max_length=8)] | None = None
    seed: int | None = Field(None, ge=0)
    user: str | None = None

    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: EarlyStopping | None = None
    min_tgt_length: int | None = None
    no_repeat_ngram_size: int | None = None
    repetition_penalty: float | None = None
    top_k: int | None = Field(None, ge=1)
    token_scores: bool = False

    # Clients send these at their neutral values; others would have no effect.
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    frequency_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    logprobs: None = None
    presence_penalty: Zero | None = None
    stream: Literal[False] | None = None
    suffix: Literal[""] | None = None

    @property
    def prompts(self) -> list[str]:
        """One or more."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def stops(self) -> list[str]:
        """None or more."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn."""
        return self.temperature != 0 and bool(self.given("temperature", "top_p", "top_k", "seed"))

    def config(self, server: GenerationConfig, *, tgt_length: int) -> GenerationConfig:
        """The server's options, and those given.

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
        beams = given.get("num_beams", server.num_beams)
        if self.n and self.n > beams:
            raise InputError(f"n {self.n}: use 1 to {beams}, raise num_beams, or draw with temperature above 0")
        return _changed(server, given | {"num_return_sequences": self.n or 1})


def _changed(server: GenerationConfig, given: dict[str, Any]) -> GenerationConfig:
    for name, (least, most) in LIMITS.items():
        if name in given and not least <= given[name] <= most:
            raise InputError(f"{name} {given[name]}: use {least} to {most}")
    return server.changed(given)
