"""The decoding loop: beam search, greedy search and sampling over any model with `prefill` and `step`.

Each step takes the best candidates of an example's K beams. A candidate that ends the text and ranks among the first K
becomes a hypothesis; the best others are the next beams, at most K. Of the hypotheses the best K are kept. How many
candidates there are, and how texts are ranked, says a rule (`glm.generation.finished`).

Examples that are done give their places in the batch to those that wait.
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

# Examples that are done leave the batch, or give their places away, once no more than this share of it is unfinished:
# leaving copies the cache of those that stay, staying costs their rows in every step.
MOST_UNFINISHED = 0.75


@dataclass(frozen=True)
class Hypothesis:
    """A generated text.

    Args:
        tokens: without what was given (the opening), and without the token that ends it.
        score: the sum of its log-probabilities, divided as the rule says.
        token_scores: the log-probability of each token, and of `eop` if the text ended with it.
    """

    tokens: tuple[int, ...]
    score: float
    token_scores: tuple[float, ...]


class ExampleSearch:
    """The hypotheses of one example, and whether it is done.

    Args:
        number: its place among all prompts.
        max_length: most tokens generated, `eop` among them.
        stream: what its candidates are drawn from, if they are.
        ends: whether a text ends with its last token, as it does with `eop`; that token counts as one of the text.
        rule: says what finishes it.
    """

    MOST_ROUNDS = 4  # of samples, where equal ones are left out and too few remain

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
        """The hypotheses that are asked for, best first."""
        return self.hypotheses[: self.config.num_return_sequences]

    def add(self, tokens: np.ndarray, token_scores: np.ndarray, total: float) -> None:
        """Keeps a text if it is among the best K, or as the rule has it; of samples drawn apart, equal ones are one.

        Args:
            token_scores: of the tokens and, where the text ended, of its end.
            total: its sum of log-probabilities.
        """
        if self.rule.draws_apart and self.stream and any(tokens.tolist() == [*h.tokens] for h in self.hypotheses):
            return
        if self.rule.keeps_first and len(self.hypotheses) == self.config.num_beams:
            return
        ended = len(token_scores) > len(tokens)
        score = self.rule.score(float(total), len(tokens), ended=ended, length_penalty=self.config.length_penalty)
        self.hypotheses.append(Hypothesis(tuple(tokens.tolist()), score, tuple(token_scores.tolist())))
        self.hypotheses.sort(key=lambda hypothesis: -hypothesis.score)  # stable: of equals the earlier stays
        del self.hypotheses[self.config.num_beams :]

    def check_done(self, best_live: float) -> None:
        """Decides after a step if live beams (the best summing to `best_live`) can still win."""
        self.done = self.rule.is_done(self, best_live)

    def begins_again(self) -> bool:
        """Readies it for another round of samples, if it is done and has found too few different ones."""
        enough = len(self.hypotheses) >= self.config.num_return_sequences
        if not (self.done and self.rule.draws_apart and self.stream) or enough or self.rounds == self.MOST_ROUNDS:
            return False
        self.done, self.length, self.rounds = False, 0, self.rounds + 1
        return True


class Batch:
    """The examples that are decoded together: searches, cache and live beams, place for place.

    `tokens` [B, R, t] are what the beams have generated, the last one in the last column; a shorter text has NO_TOKEN
    in front. `token_scores` [B, R, t] are their log-probabilities and `sums` [B, R] the sums of these, best first;
    -inf where there is no beam.
    """

    def __init__(self, searches: list[ExampleSearch], cache: Cache, dtype: type | np.dtype = np.float32):
        self.searches = searches
        self.cache = cache
        self.tokens = np.zeros((len(searches), 1, 0), dtype=np.int64)
        self.token_scores = np.zeros((len(searches), 1, 0), dtype=dtype)
        self.sums = np.zeros((len(searches), 1), dtype=dtype)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt, examples that are done included: the cache is at least as wide."""
        return max(len(search.prompt) for search in self.searches)

    def text(self, example: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a beam and their scores."""
        written = self.tokens[example, row] != NO_TOKEN
        return self.tokens[example, row, written], self.token_scores[example, row, written]

    def extend(self, beam_idx: np.ndarray, tokens: np.ndarray, scores: np.ndarray, sums: np.ndarray) -> None:
        """Lets beam k be beam `beam_idx[:, k]` and one token more; all [B, K]."""
        places = beam_idx[:, :, None]
        self.tokens = np.concatenate([np.take_along_axis(self.tokens, places, 1), tokens[:, :, None]], axis=2)
        self.token_scores = np.concatenate(
            [np.take_along_axis(self.token_scores, places, 1), scores[:, :, None]], axis=2
        )
        self.sums = sums
        self.cache.reorder(beam_idx)

    def keep(self, examples: np.ndarray) -> None:
        """Lets only these examples go on."""
        self.searches = [self.searches[example] for example in examples]
        self.tokens, self.token_scores = self.tokens[examples], self.token_scores[examples]
        self.sums = self.sums[examples]
        self.cache.keep(examples)

    def replace(self, places: np.ndarray, other: "Batch") -> None:
        """Gives these places to the examples of `other`, which have one token."""
        for place, search in zip(places, other.searches, strict=True):
            self.searches[place] = search
        self.tokens[places], self.token_scores[places] = NO_TOKEN, 0.0
        self.tokens[places, :, -1:], self.token_scores[places, :, -1:] = other.tokens, other.token_scores
        self.sums[places] = other.sums
        self.cache.replace(places, other.cache)
        longest = max(search.length for search in self.searches)
        self.tokens, self.token_scores = self.tokens[:, :, -longest:], self.token_scores[:, :, -longest:]

    def append(self, other: "Batch") -> None:
        """Takes in the examples of `other`, which have one token, after its own."""
        self.searches = self.searches + other.searches
        missing = ((0, 0), (0, 0), (self.tokens.shape[2] - 1, 0))
        self.tokens = np.concatenate([self.tokens, np.pad(other.tokens, missing, constant_values=NO_TOKEN)])
        self.token_scores = np.concatenate([self.token_scores, np.pad(other.token_scores, missing)])
        self.sums = np.concatenate([self.sums, other.sums])
        self.cache.append(other.cache)


@dataclass(frozen=True)
class Decoder:
    """Opens batches and moves them on, token by token.

    Args:
        model: in evaluation mode, or its dropout blurs the result.
        config: the options.
        processors: the rules, in their order.
        end_token_id: ends a span.
        longest_allowed: tokens of the longest allowed output, if only such are generated.
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
        """An example before its first step.

        Args:
            number: see `ExampleSearch`, as `ends`.
            record_id: chooses its random stream.
            config: its own options, where they differ in what a batch need not share (`batch_options`).

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
        """Gives every beam one token more; returns the examples that are done now."""
        unfinished = [search for search in batch.searches if not search.done]
        numbers = np.array([search.length - 1 for search in batch.searches])  # [B]
        self._advance(batch, self.model.step(batch.tokens[:, :, -1], numbers, batch.cache))
        return [search for search in unfinished if search.done]

    def _advance(self, batch: Batch, logits: np.ndarray) -> None:
        """Sorts each example's candidates into hypotheses and the next live beams, given logits [B, R, V]."""
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
                token_score = total - batch.sums[example, row]  # of what was drawn from, where candidates are drawn
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
        """Log-probabilities of the next tokens after the rules, [B, R, V]."""
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
        """Of examples that can have one token more, forbids all but `eop`: scores [B, R, V], in place."""
        last = [search.length + 1 == search.max_length for search in batch.searches]
        of_end = scores[last, :, self.end_token_id]
        scores[last] = FORBIDDEN
        scores[last, :, self.end_token_id] = of_end

    def _rules_first(self, batch: Batch, logits: np.ndarray) -> np.ndarray:
        """Log-probabilities of what the rules leave, [rows, V]: others' share is given to them."""
        _check_numbers(logits.sum(axis=1))
        self._apply_rules(batch, logits)
        nothing_left = np.isneginf(logits.max(axis=1))
        logits[nothing_left] = 0.0  # so that they are numbers
        scores = log_softmax(logits)
        scores[nothing_left] = FORBIDDEN
        return scores

    def _apply_rules(self, batch: Batch, scores: np.ndarray) -> None:
        generated = batch.tokens.reshape([len(scores), batch.tokens.shape[2]])
        for process in self.processors:
            process(generated, scores)

    def _candidates(self, batch: Batch, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each example's candidates, best first: their totals, and indices into R * V."""
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
    """Raises InputError if one is not a number: one in a row of logits makes all of its log-probabilities so."""
    if np.isnan(numbers).any():
        raise InputError("the model's output is not a number: its weights are damaged, or too large for their type")


class Decoding:
    """A batch that examples join and leave while it is decoded.

    Attributes:
        unfinished: how many examples are not done.
    """

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self.batch: Batch | None = None

    @property
    def unfinished(self) -> int:
        return int(self._is_unfinished().sum())

    def join(self, searches: list[ExampleSearch]) -> list[ExampleSearch]:
        """Reads the prompts of new examples and gives them their first tokens; returns those that are done now."""
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
        """Gives every example one token more; returns those that are done now."""
        unfinished = self._is_unfinished()
        if unfinished.mean() <= MOST_UNFINISHED:
            self.batch.keep(np.flatnonzero(unfinished))
        return self._settled(self.decoder.step(self.batch))

    def _settled(self, done: list[ExampleSearch]) -> list[ExampleSearch]:
        """Those that are done, once others have joined again for more samples."""
        again = []
        for search in done:
            left_behind = copy.copy(search)  # takes the place it had, and is done
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
    """A decoder with the rules that the options ask for; arguments and errors as of `generate`."""
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
        model: in evaluation mode, or its dropout blurs the result.
        prompts: decoded longest first, so that those of like length meet in the batch.
        config: the options. At most `tgt_length` tokens are made, what is given of the span and `eop` among them.
        end_token_id: ends a span.
        batch_size: how many are decoded together.
        banned_token_ids: never generated.
        allowed_outputs: if there are any, nothing but these token sequences is generated.
        ignored_token_ids: what the ban of n-grams leaves alone (`no_repeat_ignore`).
        record_ids: numbers, or tuples of them, that choose each example's random stream when candidates are drawn; its
            place among the prompts if not given.

    Yields:
        (place among the prompts, at most `num_return_sequences` hypotheses, best first), in the order of finishing.

    Raises:
        InputError: `tgt_length` leaves no room for `min_tgt_length` tokens, or an allowed output, and `eop` after what
            is given; an allowed output is empty or holds `eop`; the model's output is not a number.
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
    """`generate` with a decoder at hand.

    Args:
        configs: of the prompts, where they have options of their own (`GenerationConfig.batch_options`).
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
