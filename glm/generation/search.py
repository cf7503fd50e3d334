"""The decoding loop: beam search, greedy search and sampling over any model with `prefill` and `step`.

Each step takes the best candidates of an example's K beams. A candidate that ends the text and ranks among the first K
becomes a hypothesis; the best others become the next beams, at most K. The best K hypotheses are kept. A rule
(`glm.generation.finished`) says how many candidates there are and how texts are ranked.

When an example is done, a waiting one takes its place in the batch.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.finished import RULES, FinishedRule
from glm.generation.logits_processors import FORBIDDEN, NO_TOKEN, LogitsProcessor, build_logits_processors
from glm.generation.sampling import (
    RecordId,
    best_candidates,
    draw_apart,
    draw_candidates,
    log_softmax,
    random_stream,
)
from glm.models.protocol import Cache, Decodable, Prompt

# Finished examples are removed from the batch, or replaced, once at most this share of it is unfinished: removing them
# copies the cache of the others, keeping them costs their rows in every step.
MOST_UNFINISHED = 0.75


@dataclass(frozen=True)
class Hypothesis:
    """A generated text.

    Args:
        tokens: generated tokens, without the given opening and without the end token.
        score: the sum of its log-probabilities, normalised by length as the rule says.
        token_scores: the log-probability of each token, and of `eop` if the text ended with it.
    """

    tokens: tuple[int, ...]
    score: float
    token_scores: tuple[float, ...]


class ExampleSearch:
    """The hypotheses of one example, and whether it is done.

    Args:
        number: its index among all prompts.
        max_length: most tokens generated, `eop` included.
        stream: its random stream, where candidates are sampled.
        ends: tells of the tokens of a text whether the last one ends it, like `eop`; it is then part of the text.
        rule: decides when it is finished.
    """

    MOST_ROUNDS = 4  # of sampling, where duplicates were dropped and too few texts remain

    def __init__(
        self,
        prompt: Prompt,
        config: GenerationConfig,
        *,
        number: int,
        max_length: int,
        stream: np.random.Generator | None = None,
        ends: Callable[[Sequence[int]], bool] | None = None,
        rule: FinishedRule = RULES["glm"],
    ):
        self.prompt = prompt
        self.config = config
        self.number = number
        self.max_length = max_length
        self.stream = stream
        self.ends = ends
        self.rule = rule
        self.rounds = 1
        self.length = 0  # tokens of its live beams
        self.hypotheses: list[Hypothesis] = []
        self.done = False

    @property
    def found(self) -> list[Hypothesis]:
        """The requested number of hypotheses, best first."""
        return self.hypotheses[: self.config.num_return_sequences]

    def add(self, tokens: np.ndarray, token_scores: np.ndarray, total: float) -> None:
        """Adds a finished text to the hypotheses if it is among the best K, or as the rule says.

        Args:
            token_scores: scores of the tokens and, where the text ended, of the end token.
            total: the sum of its log-probabilities.
        """
        if self.rule.draws_apart and self.stream and any(tokens.tolist() == [*h.tokens] for h in self.hypotheses):
            return
        if self.rule.keeps_first and len(self.hypotheses) == self.config.num_beams:
            return
        ended = len(token_scores) > len(tokens)
        score = self.rule.score(float(total), len(tokens), ended=ended, length_penalty=self.config.length_penalty)
        self.hypotheses.append(Hypothesis(tuple(tokens.tolist()), score, tuple(token_scores.tolist())))
        self.hypotheses.sort(key=lambda hypothesis: -hypothesis.score)  # stable: ties keep the earlier one
        del self.hypotheses[self.config.num_beams :]

    def check_done(self, best_live: float) -> None:
        """Marks the search as done if no live beam (the best of which sums to `best_live`) can still win."""
        self.done = self.rule.is_done(self, best_live)

    def begins_again(self) -> bool:
        """Resets a finished search for another round of sampling if it has too few different texts."""
        enough = len(self.hypotheses) >= self.config.num_return_sequences
        if not (self.done and self.rule.draws_apart and self.stream) or enough or self.rounds == self.MOST_ROUNDS:
            return False
        self.done, self.length, self.rounds = False, 0, self.rounds + 1
        return True


class Batch:
    """The examples that are decoded together: searches, cache and live beams, in the same order.

    `tokens` [B, R, t] are the tokens that the beams have generated, right-aligned: a shorter text has NO_TOKEN in
    front. `token_scores` [B, R, t] are their log-probabilities, and `sums` [B, R] the sums of these, best first; -inf
    where there is no beam.
    """

    def __init__(self, searches: list[ExampleSearch], cache: Cache, dtype: type | np.dtype = np.float32):
        self.searches = searches
        self.cache = cache
        self.tokens = np.zeros((len(searches), 1, 0), dtype=np.int64)
        self.token_scores = np.zeros((len(searches), 1, 0), dtype=dtype)
        self.sums = np.zeros((len(searches), 1), dtype=dtype)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt, finished examples included: the cache is at least as wide."""
        return max(len(search.prompt) for search in self.searches)

    def text(self, example: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of a beam and their scores."""
        written = self.tokens[example, row] != NO_TOKEN
        return self.tokens[example, row, written], self.token_scores[example, row, written]

    def extend(self, beam_idx: np.ndarray, tokens: np.ndarray, scores: np.ndarray, sums: np.ndarray) -> None:
        """Makes beam k the continuation of beam `beam_idx[:, k]` by one token; all arguments are [B, K]."""
        places = beam_idx[:, :, None]
        self.tokens = np.concatenate([np.take_along_axis(self.tokens, places, 1), tokens[:, :, None]], axis=2)
        self.token_scores = np.concatenate(
            [np.take_along_axis(self.token_scores, places, 1), scores[:, :, None]], axis=2
        )
        self.sums = sums
        self.cache.reorder(beam_idx)

    def keep(self, examples: np.ndarray) -> None:
        """Keeps only these examples."""
        self.searches = [self.searches[example] for example in examples]
        self.tokens, self.token_scores = self.tokens[examples], self.token_scores[examples]
        self.sums = self.sums[examples]
        self.cache.keep(examples)

    def replace(self, places: np.ndarray, other: "Batch") -> None:
        """Replaces the examples at these places by those of `other`, which have one token each."""
        for place, search in zip(places, other.searches, strict=True):
            self.searches[place] = search
        self.tokens[places], self.token_scores[places] = NO_TOKEN, 0.0
        self.tokens[places, :, -1:], self.token_scores[places, :, -1:] = other.tokens, other.token_scores
        self.sums[places] = other.sums
        self.cache.replace(places, other.cache)
        longest = max(search.length for search in self.searches)
        self.tokens, self.token_scores = self.tokens[:, :, -longest:], self.token_scores[:, :, -longest:]

    def append(self, other: "Batch") -> None:
        """Appends the examples of `other`, which have one token each."""
        self.searches = self.searches + other.searches
        missing = ((0, 0), (0, 0), (self.tokens.shape[2] - 1, 0))
        self.tokens = np.concatenate([self.tokens, np.pad(other.tokens, missing, constant_values=NO_TOKEN)])
        self.token_scores = np.concatenate([self.token_scores, np.pad(other.token_scores, missing)])
        self.sums = np.concatenate([self.sums, other.sums])
        self.cache.append(other.cache)


@dataclass(frozen=True)
class Decoder:
    """Starts batches and advances them token by token.

    Args:
        model: in evaluation mode, so that dropout is off.
        config: the options.
        processors: the decoding rules, in order.
        end_token_id: ends a span.
        longest_allowed: tokens of the longest allowed output, if outputs are restricted.
        rule: when texts are finished.
    """

    model: Decodable
    config: GenerationConfig
    processors: Sequence[LogitsProcessor]
    end_token_id: int
    longest_allowed: int = 0
    rule: FinishedRule = RULES["glm"]

    def search(
        self,
        prompt: Prompt,
        *,
        number: int,
        record_id: RecordId,
        config: GenerationConfig | None = None,
        ends: Callable[[Sequence[int]], bool] | None = None,
    ) -> ExampleSearch:
        """Creates the search of an example before its first step.

        Args:
            number, ends: see `ExampleSearch`.
            record_id: chooses its random stream.
            config: its own options; they may differ in what a batch need not share (`batch_options`).

        Raises:
            InputError: `tgt_length` leaves no room for what has to be generated.
        """
        config = config or self.config
        fewest, max_length = max(config.fewest_tokens, self.longest_allowed), config.tgt_length - prompt.given
        if max_length <= fewest:
            raise InputError(
                f"tgt_length {config.tgt_length}: no room for {fewest} tokens (min_tgt_length, or the longest allowed "
                f"output) and eop after the {prompt.given} that are given"
            )
        stream = None if config.select_topk else random_stream(config, record_id)
        return ExampleSearch(
            prompt, config, number=number, max_length=max_length, stream=stream, ends=ends, rule=self.rule
        )

    def open(self, searches: list[ExampleSearch]) -> Batch:
        """Reads the prompts of examples and chooses their first tokens."""
        logits, cache = self.model.prefill([search.prompt for search in searches])
        batch = Batch(searches, cache, logits.dtype)
        self._advance(batch, logits[:, None])  # [B, V] -> [B, 1, V]
        return batch

    def step(self, batch: Batch) -> list[ExampleSearch]:
        """Extends every beam by one token; returns the examples that are now done."""
        unfinished = [search for search in batch.searches if not search.done]
        numbers = np.array([search.length - 1 for search in batch.searches])  # [B]
        self._advance(batch, self.model.step(batch.tokens[:, :, -1], numbers, batch.cache))
        return [search for search in unfinished if search.done]

    def _advance(self, batch: Batch, logits: np.ndarray) -> None:
        """Turns each example's candidates into hypotheses and the next live beams, given logits [B, R, V]."""
        K, V = self.config.num_beams, logits.shape[2]
        scores = self._scores(batch, logits)  # [B, R, V]
        totals, picks = self._candidates(batch, scores)
        beam_idx = np.zeros((len(batch.searches), K), dtype=np.int64)
        tokens = np.full(beam_idx.shape, self.end_token_id)
        token_scores = np.zeros(beam_idx.shape, dtype=scores.dtype)
        sums = np.full(beam_idx.shape, -np.inf, dtype=scores.dtype)
        for example, search in enumerate(batch.searches):
            if search.done:
                continue
            live = 0
            for rank, (total, pick) in enumerate(zip(totals[example], picks[example], strict=True)):
                if total == -np.inf or live == K:
                    break
                row, token = divmod(int(pick), V)
                token_score = total - batch.sums[example, row]  # under sampling: of the distribution sampled from
                is_eop = token == self.end_token_id
                if not (is_eop or (search.ends and search.ends([*batch.text(example, row)[0].tolist(), token]))):
                    beam_idx[example, live], tokens[example, live] = row, token
                    token_scores[example, live], sums[example, live] = token_score, total
                    live += 1
                elif rank < K:
                    text, text_scores = batch.text(example, row)
                    text = text if is_eop else np.append(text, token)
                    search.add(text, np.append(text_scores, token_score), total)
            search.length += 1
            search.check_done(sums[example, 0])
        batch.extend(beam_idx, tokens, token_scores, sums)
        for example, search in enumerate(batch.searches):
            if not search.done and search.length == search.max_length:
                search.done = True
                for row in np.flatnonzero(np.isfinite(sums[example])):
                    search.add(*batch.text(example, row), sums[example, row])

    def _scores(self, batch: Batch, logits: np.ndarray) -> np.ndarray:
        """Returns log-probabilities of the next tokens after the rules, [B, R, V]."""
        B, R, V = logits.shape
        if self.config.temperature != 1.0:
            logits = logits / self.config.temperature
        logits = logits.reshape([B * R, V])
        if self.config.processor_order == "before_softmax":
            scores = self._rules_first(batch, logits)
        else:
            scores = log_softmax(logits)
            _check_numbers(scores[:, 0])
            self._apply_rules(batch, scores)
        scores = scores.reshape([B, R, V])
        if self.config.follows_fairseq:
            self._leave_only_the_end(batch, scores)
        return scores

    def _leave_only_the_end(self, batch: Batch, scores: np.ndarray) -> None:
        """Forbids all but `eop` for examples that have room for one more token: scores [B, R, V], in place."""
        last = [search.length + 1 == search.max_length for search in batch.searches]
        of_end = scores[last, :, self.end_token_id]
        scores[last] = FORBIDDEN
        scores[last, :, self.end_token_id] = of_end

    def _rules_first(self, batch: Batch, logits: np.ndarray) -> np.ndarray:
        """Applies the rules to logits before the softmax: log-probabilities [rows, V] of what they allow."""
        _check_numbers(logits.sum(axis=1))
        self._apply_rules(batch, logits)
        nothing_left = np.isneginf(logits.max(axis=1))
        logits[nothing_left] = 0.0  # so that there is no NaN
        scores = log_softmax(logits)
        scores[nothing_left] = FORBIDDEN
        return scores

    def _apply_rules(self, batch: Batch, scores: np.ndarray) -> None:
        generated = batch.tokens.reshape([len(scores), batch.tokens.shape[2]])
        for process in self.processors:
            process(generated, scores)

    def _candidates(self, batch: Batch, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns each example's candidates, best first: their totals, and indices into R * V."""
        K = self.config.num_beams
        if self.config.select_topk:
            totals = scores + batch.sums[:, :, None]
            return best_candidates(totals.reshape([len(totals), -1]), self.rule.candidates(K))
        streams = [None if search.done else search.stream for search in batch.searches]
        how = {"config": self.config, "streams": streams}
        how["keeps_edge"] = getattr(self.model, "nucleus_keeps_edge", False)
        if self.rule.draws_apart:
            return draw_apart(scores, batch.sums, K, **how)
        count = self.rule.candidates(K) if K > 1 else 1
        return draw_candidates(scores, batch.sums, count, **how)


def _check_numbers(numbers: np.ndarray) -> None:
    """Raises InputError if an element is NaN: a single NaN in a row of logits makes all its log-probabilities NaN."""
    if np.isnan(numbers).any():
        raise InputError("the model's output is not a number: its weights are damaged, or too large for their type")


class Decoding:
    """A batch that examples join and leave while it is being decoded.

    Attributes:
        unfinished: number of examples that are not done.
    """

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self.batch: Batch | None = None

    @property
    def unfinished(self) -> int:
        return int(self._is_unfinished().sum())

    def join(self, searches: list[ExampleSearch]) -> list[ExampleSearch]:
        """Reads the prompts of new examples and generates their first tokens; returns those that are done already."""
        opened = self.decoder.open(searches)
        unfinished = self._is_unfinished()
        places = np.flatnonzero(~unfinished)[: len(searches)]
        if not unfinished.any():
            self.batch = opened
        elif len(places) == len(searches) and opened.longest_prompt <= self.batch.longest_prompt:
            self.batch.replace(places, opened)
        else:
            if len(places):
                self.batch.keep(np.flatnonzero(unfinished))
            self.batch.append(opened)
        return self._settled([search for search in searches if search.done])

    def step(self) -> list[ExampleSearch]:
        """Extends every example by one token; returns those that are now done."""
        unfinished = self._is_unfinished()
        if unfinished.mean() <= MOST_UNFINISHED:
            self.batch.keep(np.flatnonzero(unfinished))
        return self._settled(self.decoder.step(self.batch))

    def _settled(self, done: list[ExampleSearch]) -> list[ExampleSearch]:
        """Returns the examples that are really done; those that need more samples join again."""
        again = []
        for search in done:
            left_behind = copy.copy(search)  # a finished copy keeps its old place in the batch
            if search.begins_again():
                self.batch.searches[self.batch.searches.index(search)] = left_behind
                again.append(search)
        return [search for search in done if search not in again] + (self.join(again) if again else [])

    def _is_unfinished(self) -> np.ndarray:
        return np.array([not search.done for search in self.batch.searches] if self.batch else [], dtype=bool)


def build_decoder(
    model: Decodable,
    config: GenerationConfig,
    *,
    end_token_id: int,
    banned_token_ids: Sequence[int] = (),
    allowed_outputs: Sequence[Sequence[int]] = (),
    ignored_token_ids: Sequence[int] = (),
) -> Decoder:
    """Makes a decoder with the rules that the options ask for; arguments and errors as of `generate`."""
    rule = config.finished_rule if config.finished_rule != "model" else getattr(model, "finished_rule", "glm")
    rule = "fairseq" if config.follows_fairseq else rule
    if rule == "unilm" and config.early_stopping != "false":
        raise InputError(
            f"early_stopping {config.early_stopping}: has no effect with finished_rule unilm; leave it out"
        )
    processors = build_logits_processors(
        config,
        end_token_id=end_token_id,
        banned_token_ids=banned_token_ids,
        allowed_outputs=allowed_outputs,
        ignored_token_ids=ignored_token_ids,
    )
    return Decoder(model, config, processors, end_token_id, max(map(len, allowed_outputs), default=0), RULES[rule])


def generate(
    model: Decodable,
    prompts: Sequence[Prompt],
    config: GenerationConfig,
    *,
    end_token_id: int,
    batch_size: int = 16,
    banned_token_ids: Sequence[int] = (),
    allowed_outputs: Sequence[Sequence[int]] = (),
    ignored_token_ids: Sequence[int] = (),
    record_ids: Sequence[RecordId] | None = None,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Generates the span of one blank for each prompt.

    Args:
        model: in evaluation mode, so that dropout is off.
        prompts: decoded longest first, so that a batch holds prompts of similar length.
        config: the options. A text has at most `tgt_length` tokens, its given opening and `eop` included.
        end_token_id: ends a span.
        batch_size: number of examples decoded together.
        banned_token_ids: never generated.
        allowed_outputs: if given, only these token sequences are generated.
        ignored_token_ids: exempt from the ban of repeated n-grams (`no_repeat_ignore`).
        record_ids: numbers, or tuples of numbers, that choose each example's random stream under sampling; the index
            among the prompts if not given.

    Yields:
        (index among the prompts, at most `num_return_sequences` hypotheses, best first), in the order of finishing.

    Raises:
        InputError: `tgt_length` leaves no room for `min_tgt_length` tokens (or an allowed output) and `eop` after the
            opening; an allowed output is empty or holds `eop`; the model's output is NaN.
    """
    decoder = build_decoder(
        model,
        config,
        end_token_id=end_token_id,
        banned_token_ids=banned_token_ids,
        allowed_outputs=allowed_outputs,
        ignored_token_ids=ignored_token_ids,
    )
    return decode(decoder, prompts, batch_size=batch_size, record_ids=record_ids)


def decode(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    *,
    batch_size: int,
    record_ids: Sequence[RecordId] | None = None,
    configs: Sequence[GenerationConfig] | None = None,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """`generate` with an existing decoder.

    Args:
        configs: options of each prompt, if they have their own (`GenerationConfig.batch_options`).
    """
    record_ids = range(len(prompts)) if record_ids is None else record_ids
    configs = [decoder.config] * len(prompts) if configs is None else configs
    longest_first = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    waiting = deque(
        decoder.search(prompts[number], number=number, record_id=record_ids[number], config=configs[number])
        for number in longest_first
    )
    decoding = Decoding(decoder)
    while waiting or decoding.unfinished:
        if waiting and decoding.unfinished <= MOST_UNFINISHED * batch_size:
            places = min(batch_size - decoding.unfinished, len(waiting))
            done = decoding.join([waiting.popleft() for _ in range(places)])
        else:
            done = decoding.step()
        for search in done:
            yield search.number, search.found
