"""Weights of published models, which PaddleNLP downloads and caches."""

from pathlib import Path


def fetch_weights(model_class: type, name: str) -> Path:
    """Returns the file with a published model's weights, downloading it if it is not cached.

    Args:
        model_class: knows with `pretrained_resource_files_map` where the family's models are.
        name: name of the model.

    Raises:
        Exception: whatever stops the download.
    """
    from paddlenlp.transformers import PretrainedModel

    class Published(PretrainedModel):
        pretrained_resource_files_map = model_class.pretrained_resource_files_map
        pretrained_init_configuration = model_class.config_class.pretrained_init_configuration

    file, *_ = Published._resolve_model_file_path(name)
    return Path(file)
