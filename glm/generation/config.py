"""The options of decoding: one object goes from the command line to the decoder unchanged."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from glm.errors import InputError

# Options that only drawn candidates have (select_topk False), and the values that leave them off.
DRAWING_OPTIONS = {"temperature": 1.0, "top_k": 0, "top_p": 0.0, "generation_seed": 42}


def own_options(given: Collection[str]) -> set[str]:
    """The options that do not keep a checkpoint's or a server's value where these are given: themselves, and those
    that were meant for another way of decoding."""
    own = set(given)
    if "select_topk" in given:
        own |= set(DRAWING_OPTIONS)
    if "num_beams" in given:
        own |= {"early_stopping", "num_return_sequences"}
    if "search_rules" in given:
        own |= {"early_stopping", "temperature"}
    return own


def option(default, text: str, **metadata):
    """A dataclass field that is a command-line option with a help text."""
    return field(default=default, metadata={"help": text, **metadata})


@dataclass
class GenerationConfig:
    """How text is generated.

    Names and defaults are those of PaddleNLP's GLM example, but for `min_tgt_length`: its 55 was meant for news
    summaries, and questions have 5 to 20 tokens.

    A hypothesis of n tokens (its `eop` not counted) scores `sum / n ** length_penalty`, where `sum` is the sum of the
    log-probabilities of its tokens and its `eop` (THUDM/GLM's formula; not GNMT's `((n + 5) / 6) ** length_penalty`,
    which is that of `finished_rule unilm`). With `search_rules` fairseq its `eop` is counted, too.

    Raises:
        InputError: an option is out of its range, or another option leaves it without effect.
    """

    tgt_length: int = option(160, "Most target tokens, eop included: the limit of training and of generation.")
    min_tgt_length: int = option(0, "Fewest generated tokens before eop (a constant opening is not counted).")
    num_beams: int = option(5, "Beams per example; 1 is greedy search (or sampling, with --select_topk False).")
    length_penalty: float = option(
        0.7, "A hypothesis scores sum(log p) / n**length_penalty, n its tokens without eop. Above 0 favours long ones."
    )
    early_stopping: str = option(
        "false",
        "When an example with num_beams finished hypotheses is done: 'true' at once, 'false' when no live beam scores "
        "better at its present length, 'never' when none could score better at any length.",
        choices=["true", "false", "never"],
    )
    finished_rule: str = option(
        "model",
        "When texts are finished and how they are ranked: 'glm' as THUDM/GLM, 'unilm' as UniLM (K candidates a step, "
        "scores over ((5 + length) / 6)**length_penalty; drawn texts are independent), 'model' as the model was made.",
        choices=["model", "glm", "unilm"],
    )
    search_rules: str = option(
        "glm",
        "Whose beam search: THUDM/GLM's, or fairseq's, where texts always end with eop, which counts in the length; "
        "the first num_beams texts that end are all there are; and none is empty.",
        choices=["glm", "fairseq"],
    )
    no_repeat_ngram_size: int = option(3, "No n-gram of this size is generated twice; 0 allows all.")
    no_repeat_ignore: str | None = option(
        None, "Words that no_repeat_ngram_size leaves alone, joined by |; [x] is a special token."
    )
    repetition_penalty: float = option(
        1.0, "Log-probabilities of tokens generated before are multiplied by this; above 1 discourages repeats."
    )
    select_topk: bool = option(
        True, "True takes the best candidates of each step, False draws them from the model's distribution."
    )
    temperature: float = option(
        1.0, "Logits are divided by this before drawing (--select_topk False), or by --search_rules fairseq."
    )
    top_k: int = option(0, "Draw from the k most likely tokens only (--select_topk False); 0 is off.")
    top_p: float = option(
        0.0, "Draw from the smallest set of tokens with this probability (--select_topk False); 0 is off."
    )
    processor_order: str = option(
        "after_softmax",
        "When rules (no_repeat_ngram_size, ...) act: 'after_softmax' leaves other tokens' probabilities as they are "
        "(THUDM/GLM), 'before_softmax' gives them the forbidden ones' (THUDM/Multilingual-GLM).",
        choices=["after_softmax", "before_softmax"],
    )
    num_return_sequences: int = option(1, "Hypotheses returned per example, at most num_beams.")
    generation_seed: int = option(42, "Seed of drawn candidates (--select_topk False), with the record's number.")

    def __post_init__(self):
        for name in ("length_penalty", "repetition_penalty", "temperature"):
            self._require(name, math.isfinite(getattr(self, name)), "use a finite number")
        self._require("generation_seed", self.generation_seed >= 0, "use 0 or more")
        self._require("tgt_length", self.tgt_length >= 1, "use 1 or more")
        self._require(
            "min_tgt_length",
            0 <= self.min_tgt_length < self.tgt_length,
            f"use 0 to {self.tgt_length - 1} (tgt_length)",
        )
        self._require("num_beams", self.num_beams >= 1, "use 1 or more")
        self._require("finished_rule", self.finished_rule in ("model", "glm", "unilm"), "use model, glm or unilm")
        if self.no_repeat_ngram_size == 0:
            self._require(
                "no_repeat_ignore", not self.no_repeat_ignore, "it has no effect with no_repeat_ngram_size 0"
            )
        self._require("early_stopping", self.early_stopping in ("true", "false", "never"), "use true, false or never")
        orders = ("after_softmax", "before_softmax")
        self._require("processor_order", self.processor_order in orders, f"use {' or '.join(orders)}")
        self._require("no_repeat_ngram_size", self.no_repeat_ngram_size >= 0, "use 0 (off) or more")
        self._require("repetition_penalty", self.repetition_penalty > 0, "use a number above 0; 1.0 is off")
        self._require("temperature", self.temperature > 0, "use a number above 0; 1.0 is off")
        self._require("top_k", self.top_k >= 0, "use 0 (off) or more")
        self._require("top_p", 0 <= self.top_p <= 1, "use 0 (off) to 1")
        self._require(
            "num_return_sequences",
            1 <= self.num_return_sequences <= self.num_beams,
            f"use 1 to {self.num_beams}, or raise num_beams",
        )
        self._require("search_rules", self.search_rules in ("glm", "fairseq"), "use glm or fairseq")
        if self.follows_fairseq:
            self._require("finished_rule", self.finished_rule == "model", "it has no effect with search_rules fairseq")
            self._require(
                "early_stopping", self.early_stopping == "false", "it has no effect with search_rules fairseq"
            )
            self._require(
                "select_topk", self.select_topk, "search_rules fairseq takes the best candidates; leave it out"
            )
        if self.select_topk:
            for name, off in DRAWING_OPTIONS.items():
                if name == "temperature" and self.follows_fairseq:
                    continue
                self._require(name, getattr(self, name) == off, "it has no effect with select_topk True: use False")
        if self.num_beams == 1:
            self._require(
                "early_stopping", self.early_stopping == "false", "it has no effect with num_beams 1: raise num_beams"
            )

    @property
    def follows_fairseq(self) -> bool:
        """Whether fairseq's rules of beam search hold."""
        return self.search_rules == "fairseq"

    @property
    def fewest_tokens(self) -> int:
        """Of a text, before its `eop`."""
        return max(self.min_tgt_length, 1 if self.follows_fairseq else 0)

    @property
    def batch_options(self) -> tuple:
        """What examples that are decoded together have in common; the other options are each example's own."""
        names = ("num_beams", "select_topk", "temperature", "top_k", "top_p", "finished_rule")  # candidates
        names += ("search_rules", "min_tgt_length", "no_repeat_ngram_size", "no_repeat_ignore", "repetition_penalty")
        names += ("processor_order",)
        return tuple(getattr(self, name) for name in names)

    def changed(self, given: Mapping[str, Any]) -> "GenerationConfig":
        """These options but for those given, and those that giving them sets back, see `own_options`.

        Raises:
            InputError: as the class.
        """
        own, defaults = own_options(given), GenerationConfig()
        kept = {item.name: getattr(defaults if item.name in own else self, item.name) for item in fields(self)}
        return GenerationConfig(**{**kept, **given})

    def _require(self, name: str, holds: bool, advice: str):
        if not holds:
            raise InputError(f"{name} {getattr(self, name)}: {advice}")
