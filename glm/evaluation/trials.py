"""The figures of many sums of statistics at once, for tests that draw records thousands of times."""

import numpy as np

from glm.evaluation.segmentation import SEGMENTERS
from glm.evaluation.statistics import COUNTS, VALUES


def figures_of_trials(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `glm.evaluation.metrics.figures_of_sums`, each [T] float64.

    BLEU is sacrebleu's without smoothing, by the formula: calling sacrebleu for each trial took most of the time of a
    comparison. Of a trial without answers the share of leaks is 0.

    Args:
        sums: [T, C + M] of `COUNTS` and `VALUES`.
    """
    named = dict(zip(COUNTS, np.rint(sums[:, : len(COUNTS)]).T, strict=True))
    records = named["records"]
    figures: dict[str, np.ndarray] = {}
    for name in SEGMENTERS:
        figures |= {f"bleu-{order} ({name}, corpus)": _bleu(named, name, order) for order in (1, 2, 3, 4)}
    figures |= {name: 100 * value / records for name, value in zip(VALUES, sums[:, len(COUNTS) :].T, strict=True)}
    figures["exact match"] = 100 * named["exact matches"] / records
    figures["answer leaks"] = 100 * _ratio(named["answer leaks"], named["answers"])
    figures["length ratio (char)"] = _ratio(named["length (char)"], named["reference length (char)"])
    figures["generated length"] = named["characters"] / records
    return figures | {name: named[name] for name in ("empty predictions", "empty references", "records")}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 of nothing."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _bleu(named: dict[str, np.ndarray], segmenter: str, order: int) -> np.ndarray:
    """Of one segmenter: the geometric mean of precisions by the brevity penalty (Papineni et al. 2002), in percent."""
    numbers = range(1, order + 1)
    precisions = [_ratio(named[f"{n}-gram matches ({segmenter})"], named[f"{n}-grams ({segmenter})"]) for n in numbers]
    length, expected = named[f"length ({segmenter})"], named[f"reference length ({segmenter})"]
    with np.errstate(divide="ignore"):  # log 0 makes it 0, as it has to
        mean = np.exp(np.log(np.array(precisions)).mean(axis=0))
    shortness = np.divide(expected, length, out=np.full_like(length, np.inf), where=length > 0)
    return 100 * mean * np.exp(np.minimum(1 - shortness, 0))
