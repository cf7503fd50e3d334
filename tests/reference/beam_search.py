"""Decoding of one example in plain Python: every sequence by brute force, textbook beam search, greedy.

Written from the GLM fact sheet (section 4), not from the product. A model is a function from the tokens generated so
far to the logits [V] of the next one. V vocabulary, K beams.

What all three share:
- A sequence finishes with eop, which takes one of the `max_length` steps: finished ones have at most
  `max_length - 1` tokens, unfinished ones exactly `max_length`. Returned tokens never hold the eop.
- Score = sum of the log-probabilities, eop's included, / max(n, 1) ** length_penalty, n tokens without eop.
- min_length: no eop before that many tokens (eop itself not counted).
- no_repeat_ngram_size: no run of that many tokens twice among the generated ones; 0 turns it off. eop was never
  generated before, so it never repeats anything.
- banned: ids that are never chosen (eop too, if it is named).
- Log-probabilities are those of the whole vocabulary: nothing is renormalised after an exclusion.
- What the model gives probability 0 is excluded as well.
"""

import itertools
import math
from collections.abc import Callable, Collection

import numpy as np

NextLogits = Callable[[tuple[int, ...]], np.ndarray]
Hypothesis = tuple[tuple[int, ...], float]


def brute_force(
    next_logits: NextLogits,
    *,
    vocab_size: int,
    max_length: int,
    eop: int,
    length_penalty: float,
    min_length: int = 0,
    no_repeat_ngram_size: int = 0,
    banned: Collection[int] = (),
) -> list[Hypothesis]:
    """Every sequence that the module's rules allow, with its score: about V ** max_length of them.

    Args:
        next_logits: tokens so far, without eop, to logits [V].
        vocab_size: V.
        max_length: most steps, that of eop included.
        eop: id that finishes a sequence.
        length_penalty: power of the length that the sum is divided by.
        min_length: fewest tokens before eop.
        no_repeat_ngram_size: length of the runs that must not come twice, 0 for off.
        banned: ids never chosen.

    Returns:
        (tokens, score) best first; on a tie the shorter sequence, then the lower ids.

    Raises:
        ValueError: if max_length < 1 or the model's logits are not [V].
    """
    _check_length(max_length)
    known: dict[tuple[int, ...], np.ndarray] = {}
    results = []
    others = [token for token in range(vocab_size) if token != eop]
    for length in range(max_length + 1):
        for tokens in itertools.product(others, repeat=length):
            chosen = tokens if length == max_length else tokens + (eop,)
            if any(token in banned for token in chosen):
                continue
            if chosen[-1] == eop and length < min_length:
                continue
            if _has_repeated_ngram(tokens, no_repeat_ngram_size):
                continue
            total = 0.0
            for step, token in enumerate(chosen):
                prefix = chosen[:step]
                if prefix not in known:
                    known[prefix] = _log_probabilities(next_logits, prefix, vocab_size)
                total += float(known[prefix][token])
            if total > -math.inf:
                results.append((tokens, _score(total, length, length_penalty)))
    return _best_first(results)


def beam_search(
    next_logits: NextLogits,
    *,
    vocab_size: int,
    max_length: int,
    eop: int,
    num_beams: int,
    length_penalty: float = 0.0,
    early_stopping: bool | str = False,
    min_length: int = 0,
    no_repeat_ngram_size: int = 0,
    repetition_penalty: float = 1.0,
    banned: Collection[int] = (),
) -> list[Hypothesis]:
    """Beam search of one example with K beams.

    It starts with one live beam: no tokens, sum 0. Step t = 1, 2, ... max_length:

    1. Scores of a live beam are log softmax(logits). Repetition penalty first: the score of each token that the beam
       already holds is multiplied by it, once however often the token occurs. Then min length, n-gram and banned
       rules set -inf.
    2. Candidates are beam sum + score for every (beam, token) above -inf, best first; on a tie the lower beam, then
       the lower token id. The best 2K are kept, their ranks are 0 .. 2K-1.
    3. In rank order: an eop candidate of rank < K becomes a finished hypothesis of t - 1 tokens, one of rank >= K is
       thrown away; the first K others are the new live beams, with t tokens.
    4. Of the finished hypotheses the K best are kept; on a tie the earlier one stays.
    5. Once K are finished, the example is done if (worst = the worst of them, best = the largest live sum)
       - early_stopping True: at once;
       - False: worst >= best / t ** length_penalty;
       - "never": worst >= best / max_length ** length_penalty if length_penalty > 0, else as for False: the best
         that a continuation could still reach.
       No live beam left ends the search too.

    If the search ended without being done, the live beams join the hypotheses (t tokens, so sum /
    t ** length_penalty), and the K best are kept. A beam that has no candidate left is lost, so the result can have
    fewer than K hypotheses, even none.

    Args:
        next_logits: tokens so far, without eop, to logits [V].
        vocab_size: V.
        max_length: most steps, that of eop included.
        eop: id that finishes a sequence.
        num_beams: K.
        length_penalty: power of the length that the sum is divided by.
        early_stopping: True, False or "never", as above.
        min_length: fewest tokens before eop.
        no_repeat_ngram_size: length of the runs that must not come twice, 0 for off.
        repetition_penalty: factor for the log-probability of tokens already generated; above 1 makes them rarer.
        banned: ids never chosen.

    Returns:
        At most K (tokens, score), best first; on a tie in the order of finishing.

    Raises:
        ValueError: if max_length or num_beams is below 1, early_stopping is something else, or the model's logits
            are not [V].
    """
    _check_length(max_length)
    if num_beams < 1:
        raise ValueError(f"num_beams={num_beams} is below 1")
    if not isinstance(early_stopping, bool) and early_stopping != "never":
        raise ValueError(f"early_stopping={early_stopping!r} is not True, False or 'never'")

    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]  # (tokens, sum), best first
    finished: list[Hypothesis] = []  # best first
    done = False
    for step in range(1, max_length + 1):
        candidates = []  # (sum, beam, token)
        for beam, (tokens, total) in enumerate(live):
            scores = _rule_scores(
                next_logits, tokens, vocab_size, eop, min_length, no_repeat_ngram_size, repetition_penalty, banned
            )
            for token in range(vocab_size):
                if scores[token] > -math.inf:
                    candidates.append((total + scores[token], beam, token))
        candidates.sort(key=lambda candidate: (-candidate[0], candidate[1], candidate[2]))

        new_live = []
        for rank, (total, beam, token) in enumerate(candidates[: 2 * num_beams]):
            tokens = live[beam][0]
            if token != eop:
                if len(new_live) < num_beams:
                    new_live.append((tokens + (token,), total))
            elif rank < num_beams:
                finished.append((tokens, _score(total, len(tokens), length_penalty)))
                finished = _best_first(finished)[:num_beams]
        live = new_live
        if not live:
            break

        if len(finished) == num_beams:
            worst, best = finished[-1][1], max(total for _, total in live)
            if early_stopping is True:
                done = True
            elif early_stopping == "never" and length_penalty > 0:
                done = worst >= best / max_length**length_penalty
            else:
                done = worst >= best / step**length_penalty
        if done:
            break

    if not done:
        for tokens, total in live:
            finished.append((tokens, _score(total, len(tokens), length_penalty)))
    return _best_first(finished)[:num_beams]


def greedy(
    next_logits: NextLogits,
    *,
    vocab_size: int,
    max_length: int,
    eop: int,
    length_penalty: float = 0.0,
    min_length: int = 0,
    no_repeat_ngram_size: int = 0,
    repetition_penalty: float = 1.0,
    banned: Collection[int] = (),
) -> Hypothesis:
    """The best token at each step (lowest id on a tie), by the scores of step 1 of `beam_search`.

    It goes on until eop is chosen or `max_length` tokens are there.

    Args:
        next_logits: tokens so far, without eop, to logits [V].
        vocab_size: V.
        max_length: most steps, that of eop included.
        eop: id that finishes a sequence.
        length_penalty: power of the length that the sum is divided by; it changes the score only.
        min_length: fewest tokens before eop.
        no_repeat_ngram_size: length of the runs that must not come twice, 0 for off.
        repetition_penalty: factor for the log-probability of tokens already generated.
        banned: ids never chosen.

    Returns:
        (tokens, score).

    Raises:
        ValueError: if max_length < 1, the model's logits are not [V], or the rules leave no token to choose.
    """
    _check_length(max_length)
    tokens: tuple[int, ...] = ()
    total = 0.0
    while len(tokens) < max_length:
        scores = _rule_scores(
            next_logits, tokens, vocab_size, eop, min_length, no_repeat_ngram_size, repetition_penalty, banned
        )
        best = scores.index(max(scores))
        if scores[best] == -math.inf:
            raise ValueError(f"the rules leave no token to choose after {tokens}")
        total += scores[best]
        if best == eop:
            break
        tokens += (best,)
    return tokens, _score(total, len(tokens), length_penalty)


def _rule_scores(
    next_logits: NextLogits,
    tokens: tuple[int, ...],
    vocab_size: int,
    eop: int,
    min_length: int,
    no_repeat_ngram_size: int,
    repetition_penalty: float,
    banned: Collection[int],
) -> list[float]:
    scores = _log_probabilities(next_logits, tokens, vocab_size).tolist()
    for token in set(tokens):
        scores[token] *= repetition_penalty
    for token in range(vocab_size):
        too_short = token == eop and len(tokens) < min_length
        # the tokens so far hold no repeat, so one in tokens + (token,) is the new token's doing
        repeats = token != eop and _has_repeated_ngram(tokens + (token,), no_repeat_ngram_size)
        if too_short or repeats or token in banned:
            scores[token] = -math.inf
    return scores


def _log_probabilities(next_logits: NextLogits, tokens: tuple[int, ...], vocab_size: int) -> np.ndarray:
    logits = np.asarray(next_logits(tokens), dtype=np.float64)
    if logits.shape != (vocab_size,):
        raise ValueError(f"logits of shape {logits.shape} for vocab_size={vocab_size}")
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())  # [V]


def _has_repeated_ngram(tokens: tuple[int, ...], size: int) -> bool:
    if size < 1:
        return False
    ngrams = [tokens[start : start + size] for start in range(len(tokens) - size + 1)]
    return len(set(ngrams)) < len(ngrams)


def _score(total: float, length: int, length_penalty: float) -> float:
    return total / max(length, 1) ** length_penalty


def _best_first(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis[1])  # sorted() is stable


def _check_length(max_length: int) -> None:
    if max_length < 1:
        raise ValueError(f"max_length={max_length} is below 1")
