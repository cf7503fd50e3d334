"""`logprobs` of OpenAI's completions: tokens, their log-probabilities, the likeliest alternatives, and text
offsets."""

from collections.abc import Collection, Sequence
from typing import Any

from glm.models.protocol import Tokenizer, TokenScores


class TokenList:
    """The tokens of a choice in order.

    Args:
        top: how many of the likeliest tokens of each place are told; 0 tells none.
    """

    def __init__(self, tokenizer: Tokenizer, top: int):
        self.tokenizer = tokenizer
        self.top = top
        self.tokens: list[str] = []
        self.log_probs: list[float | None] = []
        self.likely: list[dict[str, float] | None] = []
        self.offsets: list[int] = []

    def add(
        self,
        ids: Sequence[int],
        scores: TokenScores,
        offsets: Sequence[int],
        kept: Collection[int] | None = None,
    ) -> None:
        """Adds tokens.

        Args:
            ids: [n].
            scores: scores of these.
            offsets: [n], where each begins in the text.
            kept: places of those that are listed; all of them if not given.
        """
        for place in range(len(ids)) if kept is None else kept:
            self.tokens.append(self.tokenizer.token_of(ids[place]))
            self.log_probs.append(round(float(scores.log_probs[place]), 6))
            self.offsets.append(offsets[place])
            if self.top:
                likely, values = (part[place].tolist() for part in scores.likely)
                pairs = zip(map(self.tokenizer.token_of, likely), values, strict=True)
                self.likely.append({token: round(value, 6) for token, value in pairs})

    def add_unscored(self, number: int) -> None:
        """Adds a token without log-probability and text."""
        self.tokens.append(self.tokenizer.token_of(number))
        self.log_probs.append(None)
        self.likely.append(None)
        self.offsets.append(0)

    def forget_first(self) -> None:
        """Removes the log-probability of the first token, which has no context."""
        self.log_probs[0] = None
        if self.top:
            self.likely[0] = None

    def as_json(self) -> dict[str, Any]:
        """Returns the list in OpenAI's form."""
        return {
            "tokens": self.tokens,
            "token_logprobs": self.log_probs,
            "top_logprobs": self.likely if self.top else None,
            "text_offset": self.offsets,
        }


def offsets_of(tokenizer: Tokenizer, ids: Sequence[int], *, behind: Sequence[int] = ()) -> list[int]:
    """Returns where each token begins in the text of all of them, [n], in characters.

    Args:
        behind: tokens before them, whose text is not counted.
    """
    start = len(tokenizer.decode_ids(behind))
    return [len(tokenizer.decode_ids([*behind, *ids[:number]])) - start for number in range(len(ids))]
