"""Errors as answers: `{"error": {"message", "type", "param", "code"}}`."""

from typing import Any

from fastapi.responses import Response

from glm.prediction.output import json_line
from glm.serving.languages import ENGLISH, translated

# OpenAI's names of error types, by status.
TYPES = {401: "authentication_error", 408: "timeout_error", 503: "overloaded_error", 504: "timeout_error"}
# After 408 the client may not send the rest of its body, so the connection cannot be used again.
HEADERS = {408: {"Connection": "close"}, 503: {"Retry-After": "1"}}


class ApiError(Exception):
    """A request that cannot be answered.

    Args:
        status: the HTTP status.
        message: what is wrong, and what to do.
        code: tells a program which error it is.
        param: the field that is wrong.
    """

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    def content(self, language: str = ENGLISH) -> dict[str, Any]:
        """Returns the error's content in one of the API's languages."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        message = translated(str(self), language)
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, language: str = ENGLISH) -> "JSONResponse":
        """Makes the response."""
        return JSONResponse(self.content(language), self.status, HEADERS.get(self.status))


class JSONResponse(Response):
    """JSON response that can hold any text, unpaired surrogates included."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json_line(content)


def render(answer: dict[str, Any]) -> bytes:
    """Serialises an answer item by item, so that other threads get turns in between."""
    fields = []
    for name, value in answer.items():
        if isinstance(value, list):
            text = b"[" + b", ".join(json_line(item).rstrip() for item in value) + b"]"
        else:
            text = json_line(value).rstrip()
        fields.append(json_line(name).rstrip() + b": " + text)
    return b"{" + b", ".join(fields) + b"}\n"
