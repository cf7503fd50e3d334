"""`python -m glm distill`: writes training data with a teacher model's texts as targets (Kim and Rush 2016)."""

import json
import sys
from pathlib import Path
from typing import Any

from glm.commands.parser import Parser
from glm.errors import InputError


def main(argv: list[str]) -> None:
    """Decodes greedily and writes a file.

    Raises:
        InputError: the teacher or the records cannot be used, or the file exists.
    """
    parser = Parser(
        prog="python -m glm distill",
        description="Writes what a teacher generates for training records, greedily: a data file for --train_file, "
        "each row of which says who made it. An empty text stays in it, and training refuses its row.",
    )
    parser.add_argument("--teacher", required=True, metavar="FOLDER", help="a model that was fine-tuned on the task")
    parser.add_argument("--train_file", required=True, help="the records whose sources it reads")
    parser.add_argument("--output_file", required=True, help="the new data file")
    parser.add_argument("--task_name", help="the task, if the teacher's folder does not say it")
    parser.add_argument("--tgt_length", type=int, help="most tokens of a text [the teacher's]")
    parser.add_argument("--per_device_eval_batch_size", type=int, default=16)
    parser.add_argument("--device", default="gpu")
    arguments = parser.parse_args(argv)
    output = Path(arguments.output_file)
    if output.exists():
        raise InputError(f"output_file {output}: exists; choose another name")
    given = ["--model_name_or_path", arguments.teacher, "--num_beams", "1", "--device", arguments.device]
    given += ["--per_device_eval_batch_size", str(arguments.per_device_eval_batch_size)]
    for name in ("task_name", "tgt_length"):
        given += [f"--{name}", str(value)] if (value := getattr(arguments, name)) is not None else []
    distill(given, Path(arguments.train_file), output)


def distill(given: list[str], train_file: Path, output: Path) -> None:
    """Writes the file; `given` are the options of `predict.py` for the teacher."""
    from glm.data.records import BadRecord, RecordFile
    from glm.data.templates import Template
    from glm.options.predict import parse_predict_arguments
    from glm.prediction.setup import build_prediction_encoder, build_writer
    from glm.prediction.writer import predict
    from glm.runtime.atomic import write_whole
    from glm.runtime.device import hush, prepare
    from glm.runtime.paths import published

    options = parse_predict_arguments(given)
    hush()
    prepare(options.prediction.device)
    encoder = build_prediction_encoder(options)
    if not isinstance(encoder.template, Template):
        raise InputError(f"task_name {options.data.task_name}: is no task that generates text; name another one")
    # Reads records as training does, in the same order of a persona's sentences.
    reserved = encoder.family.reserved
    records = list(
        RecordFile(train_file, encoder.template, options.data.columns, need_target=False, reserved=reserved)
    )
    if bad := next((record for record in records if isinstance(record, BadRecord)), None):
        raise InputError(bad.error)
    teacher = {
        "teacher": published(options.model.model_name_or_path),
        "num_beams": 1,
        "tgt_length": options.generation.tgt_length,
    }
    rows, empty = [], 0
    for prediction in predict(build_writer(options, encoder), records, description="distilling"):
        if prediction.error is not None:
            raise InputError(prediction.error)
        text = prediction.texts[0].text if prediction.texts else ""
        empty += not text.strip()
        rows.append(_row(prediction.record, encoder.template, text) | {"made by": teacher})
    write_whole(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{output}: {len(rows)} texts of {teacher['teacher']}, {empty} of them empty", file=sys.stderr)


def _row(record: Any, template: Any, text: str) -> dict[str, Any]:
    """Makes a row of data from a record, with the generated text as target."""
    row = {"id": record.id, template.source_name or "source": record.source, **record.extras}
    if record.answer is not None:
        row["answer"] = record.answer
    if record.parts:
        row["parts"] = [list(part) for part in record.parts]
    return row | {"question" if template.needs_answer else "target": text}
