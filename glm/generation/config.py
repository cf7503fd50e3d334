"""The options of decoding: one object goes from the command line to the decoder unchanged."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any

from glm.errors import InputError

# Options of sampling only (select_topk False), and the values that leave them off.
DRAWING_OPTIONS = {"temperature": 1.0, "top_k": 0, "top_p": 0.0, "generation_seed": 42}


EARLY_STOPPING = ("true", "false", "never")
# Name -> the smallest and the largest value, and what to say of others.
RANGES = {
    "tgt_length": (1, 2**31 - 1, "use 1 or more"),
    "min_tgt_length": (0, 2**31 - 1, "use 0 or more"),
    "num_beams": (1, 1024, "use 1 or more"),
    "length_penalty": (-100, 100, "use a finite number"),
    "no_repeat_ngram_size": (0, 2**31 - 1, "use 0 (off) or more"),
    "repetition_penalty": (1e-3, 1e3, "use a number above 0; 1.0 is off"),
    "temperature": (1e-3, 1e6, "use a number above 0; 1.0 is off"),
    "top_k": (0, 2**31 - 1, "use 0 (off) or more"),
    "top_p": (0, 1, "use 0 (off) to 1"),
    "num_return_sequences": (1, 1024, "use 1 or more"),
    "generation_seed": (0, 2**63 - 1, "use 0 or more"),
}


def early_stopping_word(value: Any) -> Any:
    """Turns any spelling (JSON's `true`, transformers' `True`) into `true`, `false` or `never`; others as is."""
    text = str(value).lower()
    return {"1": "true", "yes": "true", "0": "false", "no": "false"}.get(text, text)


def options_to_reset(given: Collection[str]) -> set[str]:
    """Returns the options that lose a model's or a server's saved value when these are given.

    These are the given ones, and those saved for another way of decoding.
    """
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
    num_beams: int = option(5, "Beams per example; 1 is greedy search (or sampling with --select_topk False).")
    length_penalty: float = option(
        0.7, "A hypothesis scores sum(log p) / n**length_penalty, n its tokens without eop. Above 0 favours long ones."
    )
    early_stopping: str = option(
        "false",
        "When an example with num_beams finished hypotheses is done: 'true' at once, 'false' when no live beam scores "
        "better at its present length, 'never' when none could score better at any length.",
        choices=["true", "false", "never"],
        type=early_stopping_word,
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
        None, "Words exempt from no_repeat_ngram_size, joined by |; [x] is a special token."
    )
    repetition_penalty: float = option(
        1.0, "Log-probabilities of tokens generated before are multiplied by this; above 1 discourages repeats."
    )
    select_topk: bool = option(
        True, "True searches with the best candidates of each step, False samples from the model's distribution."
    )
    temperature: float = option(
        1.0, "Logits are divided by this before sampling (--select_topk False), or by --search_rules fairseq."
    )
    top_k: int = option(0, "Sample from the k most likely tokens only (--select_topk False); 0 is off.")
    top_p: float = option(
        0.0, "Sample from the smallest set of tokens with this total probability (--select_topk False); 0 is off."
    )
    processor_order: str = option(
        "after_softmax",
        "When rules (no_repeat_ngram_size, ...) act: 'after_softmax' leaves other tokens' probabilities as they are "
        "(THUDM/GLM), 'before_softmax' gives them the forbidden ones' (THUDM/Multilingual-GLM).",
        choices=["after_softmax", "before_softmax"],
    )
    num_return_sequences: int = option(1, "Hypotheses returned per example, at most num_beams.")
    generation_seed: int = option(42, "Seed of sampling (--select_topk False), together with the record's number.")

    def __post_init__(self):
        self.early_stopping = early_stopping_word(self.early_stopping)
        errors = self._numbers()
        if not errors:  # only now all options are numbers that can be compared
            errors = self._relations()
        if errors:
            raise InputError(*errors)

    def _numbers(self) -> list[str]:
        """Checks each option by itself; returns one line for each error."""
        wrong = []
        for name, (low, high, advice) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN fails too
                most = f", at most {high:g}" if high < value < inf and name != "top_p" else ""
                wrong.append(self._error(name, advice + most))
        if self.early_stopping not in EARLY_STOPPING:
            wrong.append(self._error("early_stopping", "use true, false or never"))
        if self.finished_rule not in ("model", "glm", "unilm"):
            wrong.append(self._error("finished_rule", "use model, glm or unilm"))
        if self.processor_order not in ("after_softmax", "before_softmax"):
            wrong.append(self._error("processor_order", "use after_softmax or before_softmax"))
        if self.search_rules not in ("glm", "fairseq"):
            wrong.append(self._error("search_rules", "use glm or fairseq"))
        return wrong

    def _relations(self) -> list[str]:
        """Checks options against each other; returns one line for each error."""
        wrong = []
        if self.min_tgt_length >= self.tgt_length:
            wrong.append(self._error("min_tgt_length", f"use 0 to {self.tgt_length - 1} (tgt_length)"))
        if self.num_return_sequences > self.num_beams:
            wrong.append(self._error("num_return_sequences", f"use 1 to {self.num_beams}, or raise num_beams"))
        if self.no_repeat_ngram_size == 0 and self.no_repeat_ignore:
            wrong.append(self._error("no_repeat_ignore", "it has no effect with no_repeat_ngram_size 0"))
        if self.follows_fairseq:
            for name, off in (("finished_rule", "model"), ("early_stopping", "false")):
                if getattr(self, name) != off:
                    wrong.append(self._error(name, "it has no effect with search_rules fairseq"))
            if not self.select_topk:
                wrong.append(
                    self._error("select_topk", "search_rules fairseq takes the best candidates; leave it out")
                )
        if self.select_topk:
            wrong += [
                self._error(name, "it has no effect with select_topk True: use False")
                for name, off in DRAWING_OPTIONS.items()
                if getattr(self, name) != off and not (name == "temperature" and self.follows_fairseq)
            ]
        if self.num_beams == 1 and self.early_stopping != "false":
            wrong.append(self._error("early_stopping", "it has no effect with num_beams 1: raise num_beams"))
        return wrong

    @property
    def follows_fairseq(self) -> bool:
        """Whether beam search follows fairseq's rules."""
        return self.search_rules == "fairseq"

    @property
    def fewest_tokens(self) -> int:
        """The fewest tokens of a text, its `eop` not counted."""
        return max(self.min_tgt_length, 1 if self.follows_fairseq else 0)

    @property
    def batch_options(self) -> tuple:
        """The options that examples decoded together have to share; the others are each example's own."""
        names = ("num_beams", "select_topk", "temperature", "top_k", "top_p", "finished_rule")  # candidates
        names += ("search_rules", "min_tgt_length", "no_repeat_ngram_size", "no_repeat_ignore", "repetition_penalty")
        names += ("processor_order",)
        return tuple(getattr(self, name) for name in names)

    def changed(self, given: Mapping[str, Any]) -> "GenerationConfig":
        """Returns these options with the given ones changed; options that `options_to_reset` names get their defaults.

        Raises:
            InputError: as the class.
        """
        own, defaults = options_to_reset(given), GenerationConfig()
        kept = {item.name: getattr(defaults if item.name in own else self, item.name) for item in fields(self)}
        return GenerationConfig(**{**kept, **given})

    def _error(self, name: str, advice: str) -> str:
        return f"{name} {getattr(self, name)}: {advice}"
