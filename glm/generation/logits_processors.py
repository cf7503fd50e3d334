"""Decoding rules: small callables (generated ids, scores), built from the options in one place.

`generated` is [rows, t], the tokens each row has generated so far (neither source nor opening), the last one in the
last column; a shorter row has NO_TOKEN in front. `scores` is [rows, V], log-probabilities of the next token, changed
in place. A forbidden token gets -inf.
"""

from collections.abc import Callable, Sequence

import numpy as np

from glm.errors import InputError
from glm.generation.config import GenerationConfig

LogitsProcessor = Callable[[np.ndarray, np.ndarray], None]
NO_TOKEN = -1
FORBIDDEN = -np.inf


def build_logits_processors(
    config: GenerationConfig,
    *,
    end_token_id: int,
    banned_token_ids: Sequence[int] = (),
    allowed_outputs: Sequence[Sequence[int]] = (),
    ignored_token_ids: Sequence[int] = (),
) -> list[LogitsProcessor]:
    """Builds the rules that `config` asks for, in the order in which they are applied.

    Args:
        allowed_outputs: if given, only these token sequences are generated.
        ignored_token_ids: exempt from the ban of repeated n-grams.

    Raises:
        InputError: an allowed output is empty or holds `eop`.
    """
    processors: list[LogitsProcessor] = []
    if config.repetition_penalty != 1.0:
        processors.append(RepetitionPenalty(config.repetition_penalty))
    if banned_token_ids:
        processors.append(BannedTokens(banned_token_ids))
    if config.fewest_tokens:
        processors.append(MinLength(config.fewest_tokens, end_token_id))
    if config.no_repeat_ngram_size:
        processors.append(NoRepeatNGram(config.no_repeat_ngram_size, ignored_token_ids))
    if allowed_outputs:
        processors.append(AllowedOutputs(allowed_outputs, end_token_id))
    return processors


class RepetitionPenalty:
    """Multiplies the log-probability of every token the row has generated before by `penalty`."""

    def __init__(self, penalty: float):
        self.penalty = penalty

    def __call__(self, generated: np.ndarray, scores: np.ndarray) -> None:
        rows, columns = np.nonzero(generated != NO_TOKEN)
        tokens = generated[rows, columns]
        scores[rows, tokens] = scores[rows, tokens] * self.penalty  # once, however often a token occurs


class BannedTokens:
    """Forbids tokens at every step."""

    def __init__(self, token_ids: Sequence[int]):
        self.token_ids = np.asarray(token_ids)

    def __call__(self, generated: np.ndarray, scores: np.ndarray) -> None:
        scores[:, self.token_ids] = FORBIDDEN


class MinLength:
    """Forbids `eop` until `length` tokens are generated."""

    def __init__(self, length: int, end_token_id: int):
        self.length = length
        self.end_token_id = end_token_id

    def __call__(self, generated: np.ndarray, scores: np.ndarray) -> None:
        short = (generated != NO_TOKEN).sum(axis=1) < self.length
        scores[short, self.end_token_id] = FORBIDDEN


class NoRepeatNGram:
    """Forbids every token that would complete an n-gram of the row's own text a second time.

    Args:
        ignored: tokens that are never forbidden; nor is anything within n - 1 tokens after one (UniLM's
            `forbid_ignore_word`).
    """

    def __init__(self, size: int, ignored: Sequence[int] = ()):
        self.size = size
        self.ignored = np.asarray(ignored, dtype=np.int64)

    def __call__(self, generated: np.ndarray, scores: np.ndarray) -> None:
        length = generated.shape[1]
        if length < self.size:
            return
        grams = np.lib.stride_tricks.sliding_window_view(generated, self.size, axis=1)  # [rows, grams, n]
        ending = generated[:, None, length - self.size + 1 :]  # [rows, 1, n - 1]
        same = (grams[:, :, :-1] == ending).all(axis=2) & (grams[:, :, 0] != NO_TOKEN)
        if len(self.ignored):
            same &= ~np.isin(ending, self.ignored).any(axis=2) & ~np.isin(grams[:, :, -1], self.ignored)
        rows, places = np.nonzero(same)
        scores[rows, grams[rows, places, -1]] = FORBIDDEN


class AllowedOutputs:
    """Forbids everything but the continuations of a closed list of outputs.

    Raises:
        InputError: an output is empty or holds `eop`.
    """

    def __init__(self, outputs: Sequence[Sequence[int]], end_token_id: int):
        following: dict[tuple[int, ...], set[int]] = {}  # a trie: prefix -> the tokens that may follow
        for output in outputs:
            if not len(output) or end_token_id in output:
                raise InputError(f"allowed output {list(output)}: is empty, or holds eop ({end_token_id})")
            for end, token in enumerate((*output, end_token_id)):
                following.setdefault(tuple(output[:end]), set()).add(token)
        self.following = {beginning: np.array(sorted(tokens)) for beginning, tokens in following.items()}

    def __call__(self, generated: np.ndarray, scores: np.ndarray) -> None:
        for row, tokens in enumerate(generated):
            allowed = self.following.get(tuple(tokens[tokens != NO_TOKEN].tolist()), np.array([], dtype=np.int64))
            kept = scores[row, allowed]
            scores[row] = FORBIDDEN
            scores[row, allowed] = kept
