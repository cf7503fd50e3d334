"""Generates text with a fine-tuned GLM, and scores it where the data holds references.

python predict.py --model_name_or_path runs/demo --test_file data/dev.json --output_file o.jsonl --metrics_file m.json
cat records.jsonl | python predict.py --model_name_or_path runs/demo > out.jsonl
python predict.py --model_name_or_path runs/demo --fill "扬州位于[MASK]，著名景点是[MASK]。"
python predict.py --model_name_or_path runs/demo --serve
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from glm.data.mixed_records import MixedFile
from glm.data.tasks import GENERATE
from glm.data.templates import PARAPHRASE
from glm.errors import InputError, shown
from glm.evaluation.scored_file import references_of
from glm.evaluation.table import print_samples, print_scores, print_warnings
from glm.options.predict import (
    FILES_OPTIONS,
    SERVING_OPTIONS,
    PredictArguments,
    PredictOptions,
    parse_predict_arguments,
)
from glm.options.run_config import trained_with
from glm.parallel.launch import join, wait_for_all
from glm.prediction.output import PredictionsFile, PrintedRows
from glm.prediction.paraphrase_file import ROWS_SUFFIX, write_paraphrases
from glm.report.curves import find_log, read_log
from glm.report.files import REPORT_PAGE
from glm.report.provenance import Provenance, command_of
from glm.report.rows import ReportRows
from glm.runtime.device import hush, prepare
from glm.runtime.entry import INCOMPLETE, run
from glm.runtime.paths import published, published_values
from glm.runtime.watchdog import watching

if TYPE_CHECKING:  # `generate_rows` imports what needs PaddleNLP, behind the check of the options
    from glm.prediction.input import PredictionInput
    from glm.prediction.scoring import Tally

# Options that do not change a text, or that `command_options` gives in any case.
NOT_REPEATED = {*SERVING_OPTIONS, *FILES_OPTIONS, "serve", "model_name_or_path", "per_device_eval_batch_size"}
WINDOW = 1024  # records that are read and decoded together; they are written in order when all of them are done


def main(argv: list[str]) -> int:
    """Parse, join the other processes, serve or generate."""
    options = parse_predict_arguments(argv)
    arguments = options.prediction
    taken = [f"--{name} {shown(str(value))}" for name, value in options.inherited.items()]
    if options.model.tokenizer_name_or_path is None:
        taken.insert(0, "the tokenizer")
    if taken:
        print(f"from {options.model.model_name_or_path}: {' '.join(taken)}", file=sys.stderr)
    check_files(arguments)
    hush()
    prepare(arguments.device)
    rank = join(arguments.tensor_parallel_degree, arguments.device)
    if arguments.serve:
        from glm.serving.server import serve  # the web framework takes a second to import

        return serve(options, command_options(options))
    with watching("With --resume the same command goes on"):
        return generate_rows(options, rank=rank)


def generate_rows(options: PredictOptions, *, rank: int) -> int:
    """Reads, generates, writes and scores; returns the exit code."""
    # Here, because they load PaddleNLP: a wrong option is told seconds earlier.
    from glm.prediction.filling import fill
    from glm.prediction.input import PredictionInput
    from glm.prediction.kinds import KINDS
    from glm.prediction.scoring import Tally
    from glm.prediction.setup import (
        build_mixed_writer,
        build_prediction_encoder,
        build_writer,
        family_of,
        open_tasks,
    )

    arguments, family = options.prediction, family_of(options)
    tasks = open_tasks(options) if arguments.adapters is not None else None
    if tasks is not None:
        source = MixedFile(
            arguments.test_file,
            tasks.forms,
            default=options.given.get("task_name", ""),
            reserved=family.reserved,
            most=arguments.max_predict_samples,
        )
    else:
        source = PredictionInput(
            arguments.input_file,
            text=arguments.fill,
            fills=arguments.fills,
            template=options.data.find_template(family.templates),
            columns=dataclasses.replace(options.data.columns, keep_columns=arguments.keep_columns),
            need_target=arguments.metrics_file is not None,
            most=arguments.max_predict_samples,
            reserved=family.reserved,
            pattern_id=options.data.pattern_id,
        )
    settings = settings_of_rows(options) | {"sha256 of the input": source.sha256}
    output = open_output(arguments, settings)
    encoder = build_prediction_encoder(options) if tasks is None else tasks.encoders[""]
    if found := source.check(encoder):
        print(*found.notices(), sep="\n", file=sys.stderr)
    output.check_length(source.count)
    writer = build_writer(options, encoder, rank=rank) if tasks is None else build_mixed_writer(options, tasks)
    for note in encoder.notes:
        print(note, file=sys.stderr)
    if arguments.report is not None and encoder.kind == GENERATE:
        writer = writer.with_all_beams()
    predict = fill if arguments.fills else KINDS[encoder.kind].predict
    generate = partial(predict, writer, token_scores=arguments.token_scores)
    wait_for_all()  # who has looked at the output by now does not see what the first process does to it
    if rank:
        return follow(generate, source, output)

    output.begin()
    of_paraphrases = options.data.task_name == PARAPHRASE
    tally, shown = Tally(encoder.kind, of_paraphrases=of_paraphrases), rows_of_report(encoder.kind)
    takers = [tally.add] if arguments.report is None else [tally.add, shown.add]
    for row in output.rows_done():
        take(row, takers)
    already, start = tally.rows, time.perf_counter()
    with tqdm(total=source.count, initial=already, desc="generating", unit="record", disable=None) as bar:
        for end, window in windows(source, output):
            for number, row in generate(window):
                output.add(number, first_texts(row, options.generation.num_return_sequences))
                take(row, takers)
                bar.update()
            output.close_window(end)
    output.finish()
    if arguments.output_format == "unilm":
        write_paraphrases(Path(arguments.output_file), output.rows_done())
    if not tally.rows:
        raise InputError("standard input: no record in it; one JSON object per line is expected")
    records_per_second = (tally.rows - already) / (time.perf_counter() - start)
    if arguments.report is not None:
        write_page(options, settings, shown, tally)
    conclude(arguments, tally, kind=encoder.kind, records_per_second=records_per_second)
    return INCOMPLETE if tally.failed else 0


def rows_of_report(kind: str) -> Any:
    """What a report needs of the rows of a kind of task."""
    if kind == GENERATE:
        return ReportRows()
    from glm.prediction.kinds import KINDS  # here, because it loads PaddleNLP
    from glm.report.task_page import TaskRows  # and this matplotlib

    return TaskRows(KINDS[kind].reference)


def follow(generate: Callable, source: "PredictionInput", output: PredictionsFile | PrintedRows) -> int:
    """What all processes but the first do: their part of every text. The first one writes and counts."""
    for _, window in windows(source, output):
        for _ in generate(window):
            pass
    return 0


def windows(source: "PredictionInput", output: PredictionsFile | PrintedRows) -> Iterator[tuple[int, dict[int, Any]]]:
    """WINDOW records at a time: the number behind them, and those that are not done, by number."""
    numbered = enumerate(source)
    while window := dict(islice(numbered, WINDOW)):
        yield max(window) + 1, {number: item for number, item in window.items() if not output.is_done(number)}


def command_options(options: PredictOptions) -> list[str]:
    """The options that this program needs to generate the same texts, but for those of decoding."""
    name = options.model.model_name_or_path
    own, command = trained_with(name), [f"--model_name_or_path={name}"]
    for group in (options.model, options.data, options.prediction):
        for item in dataclasses.fields(group):
            value = getattr(group, item.name)
            if item.name not in NOT_REPEATED and value != own.get(item.name, item.default):
                command.append(f"--{item.name}={value}")
    return command


def open_output(arguments: PredictArguments, settings: dict[str, Any]) -> PredictionsFile | PrintedRows:
    """Where rows go."""
    if arguments.output_file is None:
        return PrintedRows()
    return PredictionsFile(
        rows_file(arguments), settings, resume=arguments.resume, overwrite=arguments.overwrite_output
    )


def rows_file(arguments: PredictArguments) -> str:
    """The file of JSON lines: output_file, or beside it where that has another format."""
    return arguments.output_file + (ROWS_SUFFIX if arguments.output_format == "unilm" else "")


def take(row: dict[str, Any], takers: Sequence[Callable[[dict[str, Any]], None]]) -> None:
    """Gives a row to all who count it."""
    for taker in takers:
        taker(row)


def first_texts(row: dict[str, Any], count: int) -> dict[str, Any]:
    """A row with so many texts as its file has: for a report all beams are kept."""
    return row | {"predictions": row["predictions"][:count]} if "predictions" in row else row


def settings_of_rows(options: PredictOptions) -> dict[str, Any]:
    """The options that decide what is generated: a run is resumed with equal ones only."""
    unimportant = {
        "output_file",
        "output_format",
        "metrics_file",
        "report",
        "overwrite_output",
        "resume",
        "show",
        "device",
    }
    unimportant |= {"serve", *SERVING_OPTIONS}
    # Texts do not depend on these.
    unimportant |= {"per_device_eval_batch_size", "tensor_parallel_degree", "max_record_bytes"}
    groups = (options.model, options.data, options.generation, options.prediction)
    settings = {name: value for group in groups for name, value in dataclasses.asdict(group).items()}
    return {name: value for name, value in settings.items() if name not in unimportant}


def check_files(arguments: PredictArguments) -> None:
    """Raises InputError rather than write over a file, or where none can be written."""
    paths = {name: Path(path) for name in ("output_file", "metrics_file") if (path := getattr(arguments, name))}
    if len({path.resolve() for path in paths.values()}) < len(paths):
        raise InputError(f"metrics_file {arguments.metrics_file}: is output_file too; choose another name")
    inputs = [Path(file).resolve() for file in (arguments.input_file, arguments.allowed_outputs_file) if file]
    for name, path in paths.items():
        if path.resolve() in inputs:
            raise InputError(f"{name} {path}: is an input file too; choose another name")
        if path.is_dir() or any(parent.exists() and not parent.is_dir() for parent in path.parents):
            raise InputError(f"{name} {path}: no file can be written there")
    written = paths.get("output_file")
    replaces = arguments.overwrite_output or arguments.resume
    if arguments.output_format == "unilm" and written.exists() and not replaces:
        raise InputError(f"output_file {written}: exists; choose another name, or add --overwrite_output")
    metrics = paths.get("metrics_file")
    if metrics is not None and metrics.exists() and not (arguments.overwrite_output or arguments.resume):
        raise InputError(f"metrics_file {metrics}: exists; choose another name, or add --overwrite_output")
    if arguments.report is not None:
        check_report_folder(Path(arguments.report), replaces=arguments.overwrite_output or arguments.resume)


def check_report_folder(folder: Path, *, replaces: bool) -> None:
    """Raises InputError where no report can be written, or an earlier one would be written over."""
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise InputError(f"report {folder}: is a file or lies in one; give a folder")
    if folder.suffix == ".html":
        raise InputError(f"report {folder}: give a folder; the page in it is {REPORT_PAGE}")
    if (folder / REPORT_PAGE).exists() and not replaces:
        raise InputError(f"report {folder}: holds {REPORT_PAGE}; choose another folder, or add --overwrite_output")


def conclude(arguments: PredictArguments, tally: "Tally", *, kind: str, records_per_second: float) -> None:
    """Samples and scores, and what failed."""
    from glm.prediction.scoring import coverage, write_scores

    if arguments.output_file is not None and not arguments.fills:
        show_samples(rows_file(arguments), arguments.show, kind)
    if arguments.metrics_file is not None:
        scores = tally.scores().with_figures({"records per second": round(records_per_second, 2)})
        if tally.scored < tally.rows - tally.failed:
            print(f"{coverage(tally.scored, tally.rows)}; the scores are of these", file=sys.stderr)
        write_scores(Path(arguments.metrics_file), scores)
        print_scores(
            scores.figures,
            scores.signatures,
            title=f"scores of {tally.scored} records",
            to_stderr=arguments.output_file is None,
        )
    print_warnings(tally.symptoms.lines())
    if tally.failed:
        print(
            f"{tally.failed} of {tally.rows} records failed, their rows say why; the first: {tally.first_error}",
            file=sys.stderr,
        )


def write_page(options: PredictOptions, settings: dict[str, Any], shown: Any, tally: "Tally") -> None:
    """Writes the report, and says where it is."""
    from glm.report.page import write_report  # here, because they load matplotlib
    from glm.report.task_page import TaskRows, write_task_report

    arguments, model = options.prediction, options.model.model_name_or_path
    page = (write_task_report if isinstance(shown, TaskRows) else write_report)(
        Path(arguments.report),
        shown,
        tally.scores() if tally.scored else None,
        Provenance(command_of("predict.py", options.argv), published_values(settings), arguments.device),
        title=published(f"Predictions of {model} for {arguments.test_file or 'standard input'}"),
        log=read_log(find_log(Path(model))),
    )
    print(f"report: {page}", file=sys.stderr)


def show_samples(output_file: str, count: int, kind: str) -> None:
    """Prints passage, answer, reference and best text of the first rows that did not fail."""
    rows = []
    with open(output_file, encoding="utf-8") as lines:
        for row in islice((row for row in map(json.loads, lines) if "error" not in row), count):
            rows.append(tuple(map(shortened, shown_cells(row))))
    headings = ("passage", "answer", "gold question", "generated question")
    if kind != GENERATE:
        headings = ("text", "question", "right", "predicted")
    print_samples(rows, headings, title=f"the first {len(rows)} records")


def shown_cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Source, answer or question, what is right and what was predicted."""
    if "predictions" in row:
        best = row["predictions"][0]["text"] if row["predictions"] else ""
        return row["source"], row.get("answer", ""), " / ".join(references_of(row)), best
    right = row.get("reference", row.get("references", ""))
    right = right if isinstance(right, str) else " / ".join(right)
    return row.get("source", row.get("window_text", "")), row.get("question", ""), right, row["prediction"]


def shortened(text: str, most: int = 120) -> str:
    """A text that fits a cell of the table."""
    return text if len(text) <= most else text[: most - 1] + "…"


if __name__ == "__main__":
    sys.exit(run(main))
