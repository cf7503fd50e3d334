"""`python -m glm VERB …`: pretraining, and everything that is neither training nor prediction."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from glm.errors import UsageError
from glm.options.suggestions import close_name
from glm.runtime.entry import run

# What each verb does. Its module, `glm.commands.VERB`, is imported only when it is used, so that `--help` is quick.
VERBS: dict[str, str] = {
    "doctor": "look at a new machine, and try whether its device computes what it should",
    "check": "find what is wrong in data files, and lengths that fit",
    "show": "show one record as the model sees it, in training and in prediction",
    "pretrain": "pretrain a model on running text, from scratch or from an existing model",
    "score": "score predictions against references, by our protocol and as other tools do",
    "report": "make a page of a file of predictions: figures, samples, all rows",
    "compare": "compare two files of predictions, with intervals and p-values",
    "perplexity": "how well a model predicts texts: per id, per character, per word",
    "merge": "make one model folder of a LoRA adapter and its model",
    "quantize": "make a model folder in int8, a quarter or a third the size, for prediction on a CPU",
    "adapters": "make one folder of the adapters of several tasks",
    "distill": "write what a teacher generates for training records, to train on",
    "memory": "compute whether training and generation fit into a card",
    "scaling": "compute what a model's size and data lead one to expect",
    "checkpoint": "inspect model files of any format, import, export and reshard them",
}

# The two scripts, as verbs too.
SCRIPTS = {"train": "finetune_generation.py", "predict": "predict.py"}
# Verbs that train. They are not in `glm.commands`, which must not import the training code.
TRAINS = {"pretrain": "glm.training.pretrain"}

# Names that people know from elsewhere, and what to use here.
ELSEWHERE = {
    **dict.fromkeys(("finetune", "sft", "fit", "pt"), "python finetune_generation.py"),
    **dict.fromkeys(("continue_pretraining", "pretraining"), "python -m glm pretrain"),
    **dict.fromkeys(("infer", "generate", "chat"), "python predict.py"),
    **dict.fromkeys(("serve", "api", "webchat", "webui", "app", "deploy"), "python predict.py --serve"),
    **dict.fromkeys(("eval", "evaluate", "metrics", "rouge", "bleu"), "python -m glm score"),
    **dict.fromkeys(("diff", "significance"), "python -m glm compare"),
    **dict.fromkeys(("page", "html", "visualize", "visualise"), "python -m glm report"),
    **dict.fromkeys(("validate", "lint", "verify", "stats"), "python -m glm check"),
    **dict.fromkeys(("convert", "export", "import", "reshard", "inspect"), "python -m glm checkpoint"),
    **dict.fromkeys(("env", "diagnose", "selftest", "self-test", "info"), "python -m glm doctor"),
    **dict.fromkeys(("view", "inspect-data", "print"), "python -m glm show"),
    **dict.fromkeys(("merge_lora", "merge-lora", "merge_lora_params"), "python -m glm merge"),
    **dict.fromkeys(("quant", "quantise", "int8", "ptq"), "python -m glm quantize"),
    **dict.fromkeys(("estimate", "mem", "vram"), "python -m glm memory"),
}


def main(argv: list[str]) -> int | None:
    """Passes the rest of the command line to the verb at its beginning."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return None
    verb, *rest = argv
    if verb in SCRIPTS:
        return _script(SCRIPTS[verb]).main(rest)
    if verb not in VERBS:
        raise UsageError(f"{verb}: no such verb{verb_advice(verb)}; one of {', '.join(VERBS)}")
    return importlib.import_module(TRAINS.get(verb, f"glm.commands.{verb}")).main(rest)


def command() -> int:
    """Runs the console command `glm`."""
    return run(main)


def _script(name: str) -> ModuleType:
    """Finds a script beside the package, or where it was installed (setup.py)."""
    here = Path(__file__).resolve().parent
    file = next(path for path in (here / "scripts" / name, here.parent / name) if path.is_file())
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def verb_advice(verb: str) -> str:
    """Suggests what an unknown verb was meant to be; empty if nothing is similar."""
    if (ours := ELSEWHERE.get(verb.lower().strip("-"))) is not None:
        return f"; use {ours}"
    close = close_name(verb, VERBS)
    return f"; did you mean {close}?" if close else ""


def usage() -> str:
    """Lists the verbs, one per line."""
    width = max(map(len, VERBS), default=0)
    lines = (f"  {verb:{width}}  {text}" for verb, text in VERBS.items())
    scripts = (f"  {verb:{width}}  as python {file}" for verb, file in SCRIPTS.items())
    return "\n".join(["usage: python -m glm VERB …    (VERB --help says more)", "", *lines, "", *scripts])


if __name__ == "__main__":
    sys.exit(run(main))
