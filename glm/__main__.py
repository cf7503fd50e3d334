"""`python -m glm VERB …`: everything that is neither training nor prediction."""

import importlib
import sys

from glm.errors import UsageError
from glm.runtime.entry import run

# What each verb does. Its module, `glm.commands.VERB`, is imported only when it is used: `--help` has to be quick.
VERBS: dict[str, str] = {
    "check": "find what is wrong in data files, and lengths that fit",
    "show": "show one record as the model sees it, in training and in prediction",
    "score": "score predictions against references, by our protocol and as other tools do",
    "compare": "compare two files of predictions, with intervals and p-values",
    "perplexity": "how well a model predicts texts: per id, per character, per word",
    "merge": "make one model folder of a LoRA adapter and its model",
    "memory": "compute whether training and generation fit into a card",
    "checkpoint": "look at checkpoints of any format, import, export and reshard them",
}


def main(argv: list[str]) -> int | None:
    """Hands the rest of the command line to the verb that stands first on it."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return None
    verb, *rest = argv
    if verb not in VERBS:
        raise UsageError(f"{verb}: no such verb; one of {', '.join(VERBS)}")
    return importlib.import_module(f"glm.commands.{verb}").main(rest)


def usage() -> str:
    """The verbs, one line each."""
    width = max(map(len, VERBS), default=0)
    lines = (f"  {verb:{width}}  {text}" for verb, text in VERBS.items())
    return "\n".join(["usage: python -m glm VERB …    (VERB --help says more)", "", *lines])


if __name__ == "__main__":
    sys.exit(run(main))
