"""Rules for when a text is finished and how finished texts are ranked, by name.

| rule    | of K beams                                                           | score                            |
|---------|----------------------------------------------------------------------|----------------------------------|
| glm     | the best 2K candidates, so that K go on; one that ends the text and  | sum / n ** length_penalty,       |
|         | is among the first K is kept                                         | n without the end                |
| unilm   | the best K candidates; one that ends the text is kept and fewer go   | sum / ((5 + m) / 6) **           |
|         | on, K again after the next step                                      | length_penalty, m with the end   |
| fairseq | the best 2K candidates, so that K go on; the first K texts that end  | sum / m ** length_penalty,       |
|         | are all there are; the end comes last in any case, and never first   | m with the end                   |

Sources: THUDM/GLM, tasks/seq2seq/evaluate.py; microsoft/unilm and YunwenTechnology/Unilm, beam search of
`modeling.py` (BertForSeq2SeqDecoder); fairseq, sequence_generator.py. Sums are of log-probabilities, that of the end
among them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from glm.generation.config import GenerationConfig


class Searched(Protocol):
    """What a rule needs to know of an example's search, see `glm.generation.search.ExampleSearch`."""

    config: GenerationConfig
    hypotheses: Sequence[Any]
    length: int
    max_length: int


class GLMRule:
    """THUDM/GLM's rule, see the table. Samples are drawn from all beams at once, without replacement."""

    name = "glm"
    draws_apart = False
    keeps_first = False  # the first K texts that end, whatever comes later

    def candidates(self, num_beams: int) -> int:
        """The number of candidates that a step considers."""
        return 2 * num_beams

    def score(self, total: float, tokens: int, *, ended: bool, length_penalty: float) -> float:
        """Returns the score of a text.

        Args:
            total: the sum of its log-probabilities.
            tokens: number of tokens without the end token.
            ended: whether the text has an end token.
        """
        return total / max(tokens, 1) ** length_penalty

    def is_done(self, search: Searched, best_live: float) -> bool:
        """Whether the search ends after a step, where the best live beam sums to `best_live`."""
        if not np.isfinite(best_live):
            return True
        if len(search.hypotheses) < search.config.num_beams:
            return False
        config, length = search.config, search.length
        if config.early_stopping == "true" or config.num_beams == 1:
            return True
        if config.early_stopping == "never" and config.length_penalty > 0:
            length = search.max_length  # sums are negative: the longest text gets the best score
        return search.hypotheses[-1].score >= best_live / length**config.length_penalty


class UniLMRule(GLMRule):
    """UniLM's rule, see the table. Each beam is sampled by itself, so that its texts are independent samples."""

    name = "unilm"
    draws_apart = True

    def candidates(self, num_beams: int) -> int:
        return num_beams

    def score(self, total: float, tokens: int, *, ended: bool, length_penalty: float) -> float:
        return total / ((5 + tokens + ended) / 6) ** length_penalty

    def is_done(self, search: Searched, best_live: float) -> bool:
        return not np.isfinite(best_live)


class FairseqRule(GLMRule):
    """fairseq's rule, see the table."""

    name = "fairseq"
    keeps_first = True

    def score(self, total: float, tokens: int, *, ended: bool, length_penalty: float) -> float:
        return total / (tokens + 1) ** length_penalty

    def is_done(self, search: Searched, best_live: float) -> bool:
        return not np.isfinite(best_live) or len(search.hypotheses) == search.config.num_beams


FinishedRule = GLMRule
RULES: dict[str, FinishedRule] = {rule.name: rule for rule in (GLMRule(), UniLMRule(), FairseqRule())}
