"""`python -m glm merge`: merges a LoRA adapter and its model into one model folder."""

import shutil
from pathlib import Path

from glm.commands.parser import Parser
from glm.errors import InputError


def main(argv: list[str]) -> None:
    """Reads the adapter's folder and writes the merged model to another.

    Raises:
        InputError: the folder has no LoRA adapter, or the output folder holds something.
    """
    parser = Parser(prog="python -m glm merge", description=__doc__)
    parser.add_argument("--adapter", required=True, metavar="FOLDER", help="folder of a run with --lora")
    parser.add_argument("--output_dir", required=True, metavar="FOLDER", help="folder for the model; new or empty")
    arguments = parser.parse_args(argv)
    merge(Path(arguments.adapter), Path(arguments.output_dir))


def merge(adapter: Path, output_dir: Path) -> None:
    """Writes the model of an adapter with the adapter merged in; the folder appears when it is complete."""
    from glm.adapters.files import read_adapter_config
    from glm.adapters.schema import PrefixSettings
    from glm.checkpoint.loading import find_family, load_config, load_model
    from glm.checkpoint.tokenizers import load_tokenizer
    from glm.options.run_config import RUN_CONFIG_NAME
    from glm.runtime.atomic import new_folder
    from glm.runtime.device import prepare

    settings = read_adapter_config(adapter)
    if isinstance(settings, PrefixSettings):
        raise InputError(
            f"adapter {adapter}: a prefix is keys and values of its own, which no weight of a model can take up; "
            "prediction and evaluation use the folder as it is"
        )
    if settings is None:
        raise InputError(
            f"adapter {adapter}: the folder has no lora_config.json; give one that a run with --lora left"
        )
    prepare("cpu")
    with new_folder(output_dir) as folder:
        family = find_family(str(adapter))
        tokenizer = load_tokenizer(family, str(adapter))
        model = load_model(family, str(adapter), load_config(family, str(adapter), tokenizer))
        model.save_pretrained(str(folder), safe_serialization=True, max_shard_size="1024GB")
        family.save_tokenizer(tokenizer, folder)
        if (adapter / RUN_CONFIG_NAME).is_file():  # prediction takes lengths and decoding options from it
            shutil.copyfile(adapter / RUN_CONFIG_NAME, folder / RUN_CONFIG_NAME)
    print(f"{output_dir}: the model of {adapter}, the adapter merged in")
