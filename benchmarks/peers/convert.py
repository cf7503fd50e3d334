"""Writes Hugging Face's GPT-2 of a shape in CTranslate2's format, before anything is measured."""

import json
import sys
import tempfile
from pathlib import Path

from ctranslate2.converters import TransformersConverter
from huggingface import random_model
from work import VOCABULARY, Work


def main() -> None:
    """Saves, adds a vocabulary of made-up words, which the converter asks for, and converts."""
    work = Work(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        random_model(work).save_pretrained(folder)
        words = {"<|endoftext|>": 0} | {f"t{word}": word for word in range(1, VOCABULARY)}
        (Path(folder) / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        TransformersConverter(folder).convert(work.folder)
    print("{}")


if __name__ == "__main__":
    main()
