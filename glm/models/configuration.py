"""The base of all families' configurations: fields by name, and a `config.json` that PaddleNLP reads too."""

import copy
import json
from pathlib import Path
from typing import Any, Self

from glm.errors import InputError
from glm.runtime.settings_file import read_object

CONFIG_NAME = "config.json"
FILES_OF = "3.0.0b4"  # The PaddleNLP whose files these are; the toolkit trains with it.

# How a run splits and computes a model; it is never written to a file.
OF_A_RUN: dict[str, Any] = {
    "use_flash_attention": False,
    "use_fused_rms_norm": False,
    "use_fused_rope": False,
    "use_fused_linear": False,
    "use_fused_dropout_add": False,
    "use_fused_linear_cross_entropy": False,
    "tensor_parallel_degree": 1,
    "tensor_parallel_rank": 0,
    "tensor_parallel_output": True,
    "pipeline_parallel_degree": 1,
    "virtual_pp_degree": 1,
    "no_recompute_layers": None,
    "pp_recompute_interval": 1,
    "sep_parallel_degree": 1,
    "context_parallel_degree": 1,
    "sequence_parallel": False,
    "fuse_sequence_parallel_allreduce": False,
    "recompute": False,
    "recompute_granularity": "full",
    "recompute_use_reentrant": False,
    "refined_recompute": "",
    "offload_recompute_inputs": False,
}
# Fields of every PaddleNLP configuration, most of them for other models; written only where they differ from these.
OF_ALL_MODELS: dict[str, Any] = {
    "dtype": "float32",
    "architectures": None,
    "tie_word_embeddings": True,
    "is_encoder_decoder": False,
    "is_decoder": False,
    "cross_attention_hidden_size": None,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
    "return_dict": False,
    "output_hidden_states": False,
    "output_attentions": False,
    "use_cache": False,
    "fuse_attention_qkv": False,
    "fuse_attention_ffn": False,
    "pruned_heads": {},
    "finetuning_task": None,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "num_choices": None,
    "classifier_dropout": None,
    "tokenizer_class": None,
    "prefix": None,
    "bos_token_id": None,
    "pad_token_id": None,
    "eos_token_id": None,
    "sep_token_id": None,
    "decoder_start_token_id": None,
    "task_specific_params": None,
    "problem_type": None,
    # for PaddleNLP's own decoding
    "max_length": 20,
    "min_length": 0,
    "do_sample": False,
    "early_stopping": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "num_return_sequences": 1,
    "output_scores": False,
    "return_dict_in_generate": False,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}


class ModelConfig:
    """The size and shape of a model. A family's class sets its own fields; other names are kept as they are given.

    Args:
        tensor_parallel_degree, tensor_parallel_rank: over how many processes the model is split, and which of them
            this is; not saved.
        kwargs: any other field, see `OF_ALL_MODELS`.

    Attributes:
        attribute_map: other names of fields.
        pretrained_init_configuration: the fields of published models, by their names.

    Raises:
        InputError: a name is that of a property or a method.
    """

    model_type = ""
    attribute_map: dict[str, str] = {}
    pretrained_init_configuration: dict[str, dict[str, Any]] = {}

    def __init__(self, **kwargs):
        for name in ("model_type", "transformers_version", "paddlenlp_version"):  # the class's, and of other programs
            kwargs.pop(name, None)
        for name, value in {**OF_A_RUN, **copy.deepcopy(OF_ALL_MODELS), **kwargs}.items():
            if name not in self.attribute_map and hasattr(type(self), name):
                raise InputError(f"{name}: is no field of a configuration")
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        """Looks a field up by its other name."""
        if (field := type(self).attribute_map.get(name)) is None:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return getattr(self, field)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(self.attribute_map.get(name, name), value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields by name, those of a run included."""
        return {**vars(self), "model_type": self.model_type, "paddlenlp_version": FILES_OF}

    def to_json_string(self) -> str:
        """Returns the text of `config.json`: the family's fields, and PaddleNLP's that differ from their defaults."""
        saved = {
            name: value
            for name, value in self.to_dict().items()
            if name not in OF_A_RUN and (name not in OF_ALL_MODELS or value != OF_ALL_MODELS[name])
        }
        return json.dumps(saved, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes `config.json` into a folder, which is created if needed."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).write_text(self.to_json_string(), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **kwargs) -> Self:
        """Reads the configuration of a folder or of a published name.

        Args:
            kwargs: fields that replace those of the file.

        Raises:
            InputError: the folder has none, or it cannot be read.
            Exception: whatever stops the download of a name that is not known; PaddleNLP fetches it.
        """
        if (found := cls.pretrained_init_configuration.get(str(name_or_path))) is None:
            if Path(name_or_path).is_dir():
                found = read_object(Path(name_or_path) / CONFIG_NAME)
            else:
                from paddlenlp.transformers import PretrainedConfig

                found, _ = PretrainedConfig.get_config_dict(str(name_or_path))
        return cls(**{**found, **kwargs})
