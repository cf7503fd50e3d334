"""Suggests what an unknown option name was meant to be: another tool's option, or a typing error."""

import difflib
import re
from collections.abc import Collection

from glm.options.foreign_names import NONE, OURS

CUTOFF = 0.8  # similarity below which a suggestion would be wrong more often than right


def plain(name: str) -> str:
    """Normalises a name: no dashes or underscores, lower case."""
    return re.sub(r"[-_]", "", name).lower()


def close_name(name: str, known: Collection[str]) -> str | None:
    """Returns the most similar known name; None if none is similar enough."""
    for other in known:
        if plain(other) == plain(name):
            return other
    found = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=CUTOFF)
    return found[0] if found else None


def option_advice(name: str, known: Collection[str], *, elsewhere: str = "") -> str:
    """Returns the advice that follows `unknown option NAME`; empty if there is none.

    Args:
        known: the options of this command.
        elsewhere: the script that has the others.
    """
    brought = name.lower().replace("-", "_")
    if brought in NONE:
        return f"; {NONE[brought]}"
    ours = OURS[brought].split(" | ") if brought in OURS else []
    for option in ours:
        if option.split()[0].rstrip(",") in known:
            return f"; here it is --{option}"
    if ours and elsewhere:
        return f"; it is --{ours[0]} of {elsewhere}"
    if close := close_name(name, known):
        return f"; did you mean {close}?"
    return ""
