"""PaddleNLP's PretrainedModel that runs no pickle and takes no weights that do not fit."""

from pathlib import Path

from paddlenlp.transformers import PretrainedModel

from glm.errors import InputError

WEIGHTS_NAME = "model.safetensors"  # what the toolkit saves


class SafePretrainedModel(PretrainedModel):
    """What a family's model derives from, to be loaded and saved by PaddleNLP too."""

    model_config_file = "config.json"
    resource_files_names = {"model_state": "model_state.pdparams"}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As PaddleNLP's, but of a folder with safetensors only: with a pickle PaddleNLP runs what the file asks for.

        `glm.checkpoint.loading.load_model` reads every format, and published names.

        Raises:
            InputError: the folder has no model.safetensors, or the weights do not fit.
        """
        if not (Path(pretrained_model_name_or_path) / WEIGHTS_NAME).is_file():
            raise InputError(
                f"{pretrained_model_name_or_path}: no folder with {WEIGHTS_NAME}; use load_model of "
                "glm.checkpoint.loading, or import it: python -m glm checkpoint import"
            )
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def _load_pretrained_model(cls, model, state_dict, loaded_keys, *args, **kwargs):
        """PaddleNLP leaves a missing weight random and drops an unknown one, with a warning; here both are errors."""
        result = super()._load_pretrained_model(model, state_dict, loaded_keys, *args, **kwargs)
        _, missing, unexpected, _ = result
        if missing or unexpected:
            raise InputError(
                "the weights do not fit the configuration: "
                + "; ".join(
                    f"{label} {', '.join(sorted(names)[:5])}{' ...' if len(names) > 5 else ''}"
                    for label, names in (("missing", missing), ("unknown", unexpected))
                    if names
                )
            )
        return result
