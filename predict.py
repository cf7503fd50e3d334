"""Generates text with a fine-tuned GLM, and scores it where the data holds references.

python predict.py --model_name_or_path runs/demo --test_file data/dev.json --output_file o.jsonl --metrics_file m.json
cat records.jsonl | python predict.py --model_name_or_path runs/demo > out.jsonl
"""

import json
import sys
import time
from pathlib import Path

from glm.arguments import PredictArguments, parse_predict_arguments
from glm.checkpoint.loading import load_config, load_model, load_tokenizer
from glm.data.records import Record, parse_records, read_records
from glm.device import hush, prepare
from glm.entry import run
from glm.errors import InputError
from glm.evaluation.table import print_samples, print_scores
from glm.prediction import (
    Prediction,
    build_encoder,
    check_positions,
    predict,
    score_predictions,
    write_predictions,
    write_scores,
)


def main(argv: list[str]) -> None:
    """Parse, load, generate, write, score."""
    model_arguments, data, generation, arguments, inherited = parse_predict_arguments(argv)
    if inherited:
        taken = " ".join(f"--{name} {value}" for name, value in inherited.items())
        print(f"from {model_arguments.model_name_or_path}: {taken}", file=sys.stderr)
    hush()
    prepare(arguments.device)
    check_output_files(arguments)
    records = load_records(arguments.test_file, need_question=arguments.metrics_file is not None)

    name = model_arguments.model_name_or_path
    tokenizer = load_tokenizer(model_arguments.tokenizer_name_or_path or name)
    config = load_config(name, tokenizer)
    check_positions(config, data, generation)
    encoder = build_encoder(tokenizer, data, generation)
    model = load_model(name, config)

    start = time.perf_counter()
    predictions = predict(model, encoder, records, generation, batch_size=arguments.per_device_eval_batch_size)
    seconds = time.perf_counter() - start
    if arguments.output_file is None:
        for prediction in predictions:
            print(json.dumps(prediction.as_row(), ensure_ascii=False))
    else:
        write_predictions(Path(arguments.output_file), predictions)
        show_samples(predictions[: arguments.show])
    if arguments.metrics_file is not None:
        scores = score_predictions(predictions) | {"samples per second": round(len(records) / seconds, 2)}
        write_scores(Path(arguments.metrics_file), scores)
        print_scores(scores, title=f"scores of {len(records)} records", to_stderr=arguments.output_file is None)


def load_records(test_file: str | None, *, need_question: bool) -> list[Record]:
    """The records of a file, or of standard input."""
    if test_file is not None:
        return read_records(test_file, need_question=need_question)
    if sys.stdin.isatty():
        print("reading records from standard input, one JSON object per line", file=sys.stderr)
    return parse_records(sys.stdin.buffer, name="standard input", need_question=need_question)


def check_output_files(arguments: PredictArguments) -> None:
    """Raises InputError rather than write over a file, or where none can be written."""
    paths = {name: Path(path) for name in ("output_file", "metrics_file") if (path := getattr(arguments, name))}
    if len({path.resolve() for path in paths.values()}) < len(paths):
        raise InputError(f"metrics_file {arguments.metrics_file}: is output_file too; choose another name")
    for name, path in paths.items():
        if arguments.test_file is not None and path.resolve() == Path(arguments.test_file).resolve():
            raise InputError(f"{name} {path}: is test_file too; choose another name")
        if path.is_dir() or any(parent.exists() and not parent.is_dir() for parent in path.parents):
            raise InputError(f"{name} {path}: no file can be written there")
        if path.exists() and not arguments.overwrite_output:
            raise InputError(f"{name} {path}: exists; choose another name, or add --overwrite_output")


def show_samples(predictions: list[Prediction]) -> None:
    """Prints passage, answer, reference and best text."""
    rows = []
    for prediction in predictions:
        record = prediction.record
        rows.append((shortened(record.context), record.answer, record.question or "", prediction.best))
    headings = ("passage", "answer", "gold question", "generated question")
    print_samples(rows, headings, title=f"the first {len(predictions)} records")


def shortened(text: str, most: int = 120) -> str:
    """A text that fits a cell of the table."""
    return text if len(text) <= most else text[: most - 1] + "…"


if __name__ == "__main__":
    sys.exit(run(main))
