"""`python -m glm VERB …`: everything that is neither training nor prediction."""

import importlib
import sys

from glm.errors import UsageError
from glm.options.suggestions import close_name
from glm.runtime.entry import run

# What each verb does. Its module, `glm.commands.VERB`, is imported only when it is used: `--help` has to be quick.
VERBS: dict[str, str] = {
    "check": "find what is wrong in data files, and lengths that fit",
    "show": "show one record as the model sees it, in training and in prediction",
    "score": "score predictions against references, by our protocol and as other tools do",
    "compare": "compare two files of predictions, with intervals and p-values",
    "perplexity": "how well a model predicts texts: per id, per character, per word",
    "merge": "make one model folder of a LoRA adapter and its model",
    "adapters": "make one folder of the adapters of several tasks",
    "distill": "write what a teacher generates for training records, to train on",
    "memory": "compute whether training and generation fit into a card",
    "scaling": "compute what a model's size and data lead one to expect",
    "checkpoint": "look at checkpoints of any format, import, export and reshard them",
}


# What people call it elsewhere, and what to use here.
ELSEWHERE = {
    **dict.fromkeys(("train", "finetune", "sft", "fit", "pt"), "python finetune_generation.py"),
    **dict.fromkeys(("predict", "infer", "generate", "chat"), "python predict.py"),
    **dict.fromkeys(("serve", "api", "webchat", "webui", "app", "deploy"), "python predict.py --serve"),
    **dict.fromkeys(("eval", "evaluate", "metrics", "rouge", "bleu"), "python -m glm score"),
    **dict.fromkeys(("diff", "significance"), "python -m glm compare"),
    **dict.fromkeys(("validate", "lint", "verify", "stats"), "python -m glm check"),
    **dict.fromkeys(("convert", "export", "import", "reshard", "inspect"), "python -m glm checkpoint"),
    **dict.fromkeys(("view", "inspect-data", "print"), "python -m glm show"),
    **dict.fromkeys(("merge_lora", "merge-lora", "merge_lora_params"), "python -m glm merge"),
    **dict.fromkeys(("estimate", "mem", "vram"), "python -m glm memory"),
}


def main(argv: list[str]) -> int | None:
    """Hands the rest of the command line to the verb that stands first on it."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return None
    verb, *rest = argv
    if verb not in VERBS:
        raise UsageError(f"{verb}: no such verb{verb_advice(verb)}; one of {', '.join(VERBS)}")
    return importlib.import_module(f"glm.commands.{verb}").main(rest)


def verb_advice(verb: str) -> str:
    """What somebody meant who wrote a verb that there is none of; empty if nobody can tell."""
    if (ours := ELSEWHERE.get(verb.lower().strip("-"))) is not None:
        return f"; use {ours}"
    close = close_name(verb, VERBS)
    return f"; did you mean {close}?" if close else ""


def usage() -> str:
    """The verbs, one line each."""
    width = max(map(len, VERBS), default=0)
    lines = (f"  {verb:{width}}  {text}" for verb, text in VERBS.items())
    return "\n".join(["usage: python -m glm VERB …    (VERB --help says more)", "", *lines])


if __name__ == "__main__":
    sys.exit(run(main))
