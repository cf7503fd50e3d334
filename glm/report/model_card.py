"""Writes the model card: a README for a model folder, with the front matter of the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import StrictUndefined, Template

from glm.evaluation.metrics import figure_text
from glm.report.files import CARD_NAME
from glm.report.provenance import Provenance, now
from glm.runtime.atomic import write_file

MARKER = "<!-- Written by the training run. Delete this line, and no run writes over your changes. -->"
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
# Figures in the front matter, and the hub's names of these metrics.
_HUB_METRICS = {"bleu-4 (char, corpus)": "bleu", "rouge-l (char)": "rouge", "exact match": "exact_match"}


def is_users_own(path: Path) -> bool:
    """Whether there is a file that no training run wrote, or that its user took over."""
    return path.is_file() and MARKER not in path.read_text(encoding="utf-8", errors="replace")


def write_model_card(
    folder: Path,
    provenance: Provenance,
    *,
    figures: Mapping[str, float],
    signatures: Mapping[str, str],
    data: Mapping[str, str],
    warnings: Sequence[str] = (),
) -> bool:
    """Writes `README.md` beside a model, unless the user wrote or took over the file there.

    Args:
        figures: figures of the final evaluation, by name; empty if there was none.
        signatures: signatures of these figures.
        data: by split, what was read.
        warnings: what is wrong with the model or its data, in words.

    Returns:
        Whether it was written.
    """
    if is_users_own(folder / CARD_NAME):
        return False
    start = str(provenance.settings["model_name_or_path"])
    is_path = start.startswith((".", "/", "~")) or start.endswith(".json") or Path(start).exists()
    published = start if "/" in start and not is_path else None
    template = Template(
        TEMPLATE.read_text(encoding="utf-8"), trim_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    card = template.render(
        front_matter=_front_matter(folder.name, provenance.settings, figures, base_model=published).to_yaml(),
        marker=MARKER,
        name=folder.name,
        start=start,
        from_random_weights=start.endswith(".json"),
        figures=figures,
        figure_text=figure_text,
        signatures=signatures,
        data=data,
        warnings=warnings,
        provenance=provenance,
        written=now(),
    )
    write_file(folder / CARD_NAME, card.encode("utf-8", "replace"))
    return True


def _front_matter(
    name: str, settings: Mapping[str, Any], figures: Mapping[str, float], *, base_model: str | None
) -> ModelCardData:
    task = str(settings.get("task_name", "several"))
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=_joined(settings.get("dev_file", task)),
            metric_type=metric,
            metric_name=figure,
            metric_value=round(figures[figure], 2),
        )
        for figure, metric in _HUB_METRICS.items()
        if figure in figures
    ]
    return ModelCardData(
        language="zh",
        library_name="paddlenlp",
        pipeline_tag="text-generation",
        tags=["glm", "paddlepaddle", task],
        base_model=base_model,
        model_name=name,
        eval_results=results or None,
    )


def _joined(files: str | list[str]) -> str:
    return files if isinstance(files, str) else " ".join(files)
