"""The options that choose model and tokenizer, common to training and prediction."""

from dataclasses import dataclass

from glm.generation.config import option


@dataclass
class ModelArguments:
    """Which model and tokenizer."""

    model_name_or_path: str = option(
        "THUDM/glm-large-chinese",
        "A folder, a published name, or a configuration file ending in .json (or the name of one in configs/model) to "
        "start from random weights.",
    )
    tokenizer_name_or_path: str | None = option(
        None, "A folder, a published name, or a SentencePiece .model file; the model's own if not given."
    )
