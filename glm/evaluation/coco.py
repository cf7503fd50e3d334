"""METEOR, ROUGE-L and CIDEr of the E2E challenge, by the package pycocoevalcap and Java, where both are installed."""

import shutil
from collections.abc import Sequence
from importlib.util import find_spec

from glm.evaluation.statistics import Pair

PACKAGE = "pycocoevalcap"
PROTOCOL = "e2e (pycocoevalcap)"
SIGNATURE = "norm:none|tok:ptb|meteor:1.5|rouge-l:beta-1.2,best-ref|cider:d|as:pycocoevalcap"


def what_is_missing() -> str | None:
    """What to install, in words; None if everything is there."""
    needed = [f"{PACKAGE} (python -m pip install {PACKAGE}, 104 MB)"] if find_spec(PACKAGE) is None else []
    needed += [] if shutil.which("java") else ["Java (java on the PATH)"]
    return f"METEOR, ROUGE-L and CIDEr of E2E need {' and '.join(needed)}; left out" if needed else None


def coco_scores(pairs: Sequence[Pair]) -> dict[str, float]:
    """The three figures of texts that Stanford's tokenizer splits, METEOR and ROUGE-L in percent."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    split = PTBTokenizer().tokenize
    ours = split({place: [{"caption": pair.prediction}] for place, pair in enumerate(pairs)})
    theirs = split({place: [{"caption": text} for text in pair.references] for place, pair in enumerate(pairs)})
    scorers = {"meteor": (Meteor(), 100), "rouge-l": (Rouge(), 100), "cider": (Cider(), 1)}
    return {name: unit * float(scorer.compute_score(theirs, ours)[0]) for name, (scorer, unit) in scorers.items()}
