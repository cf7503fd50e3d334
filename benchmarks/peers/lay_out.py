"""Writes the ids of the sources of records, in batches of like length, for programs without our tokenizer."""

import json
import sys
from pathlib import Path

from ours import options
from work import Work

from glm.checkpoint.tokenizers import load_tokenizer
from glm.data.records import read_records
from glm.models.glm import FAMILY as GLM
from glm.options.data import DataArguments
from glm.prediction.setup import build_encoder


def main() -> None:
    """Lays records out as `predict.py` does; longest first."""
    work = Work(**json.loads(sys.argv[1]))
    encoder = build_encoder(
        GLM, load_tokenizer(GLM, work.tokenizer), DataArguments(src_length=work.source), options(work)
    )
    records = read_records(work.data)[: work.records]
    laid_out = [encoder.lay_out_source(encoded) for encoded in encoder.encode(records)]
    sources = [encoder.prompt(source, []).input_ids.tolist() for source in laid_out]
    sources.sort(key=len, reverse=True)
    batches = [sources[start : start + work.batch] for start in range(0, len(sources), work.batch)]
    Path(work.batches).write_text(json.dumps(batches), encoding="utf-8")
    print("{}")


if __name__ == "__main__":
    main()
