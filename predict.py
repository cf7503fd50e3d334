"""Generates text with a fine-tuned GLM, and scores it where the data holds references.

python predict.py --model_name_or_path runs/demo --test_file data/dev.json --output_file o.jsonl --metrics_file m.json
cat records.jsonl | python predict.py --model_name_or_path runs/demo > out.jsonl
python predict.py --model_name_or_path runs/demo --fill "扬州位于[MASK]，著名景点是[MASK]。"
python predict.py --model_name_or_path runs/demo --serve
"""

import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from glm.data.mixed_records import NO_NAME, TASK, MixedFile
from glm.data.tasks import GENERATE
from glm.errors import InputError, shown
from glm.evaluation.scored_file import references_of
from glm.evaluation.table import print_headlines, print_samples, print_sets, print_warnings
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
from glm.prediction.sets import sets_of
from glm.report.curves import find_log, read_log
from glm.report.files import REPORT_PAGE
from glm.report.provenance import Provenance, command_of
from glm.report.rows import ReportRows
from glm.runtime.device import hush, prepare
from glm.runtime.entry import INCOMPLETE, run
from glm.runtime.paths import published, published_command, published_values
from glm.runtime.watchdog import watching

if TYPE_CHECKING:  # `generate_rows` imports what needs PaddleNLP, after the options were checked
    from glm.data.frames import Encoder
    from glm.evaluation.metrics import Scores
    from glm.prediction.input import PredictionInput
    from glm.prediction.scoring import Tally, TaskTallies
    from glm.prediction.setup import OpenedTasks

# Options that do not change a text, or that `command_options` always includes.
NOT_REPEATED = {*SERVING_OPTIONS, *FILES_OPTIONS, "serve", "model_name_or_path", "per_device_eval_batch_size"}
WINDOW = 1024  # records read and decoded together; they are written in order when all of them are done


def main(argv: list[str]) -> int:
    """Parses, joins the other processes, then serves or generates."""
    options = parse_predict_arguments(argv)
    arguments = options.prediction
    taken = [f"--{name} {shown(str(value))}" for name, value in options.inherited.items()]
    if options.model.tokenizer_name_or_path is None:
        taken.insert(0, "the tokenizer")
    if taken:
        print(f"from {options.model.model_name_or_path}: {' '.join(taken)}", file=sys.stderr)
    for _, of_set in sets_of(options):
        check_files(of_set.prediction)
    if isinstance(arguments.report, str):
        check_report_folder(Path(arguments.report), replaces=arguments.overwrite_output or arguments.resume)
    hush()
    prepare(arguments.device)
    rank = join(arguments.tensor_parallel_degree, arguments.device)
    if arguments.serve:
        from glm.serving.server import serve  # the web framework takes a second to import

        return serve(options, command_options(options))
    with watching("With --resume the same command goes on"):
        return generate_rows(options, rank=rank)


def generate_rows(options: PredictOptions, *, rank: int) -> int:
    """Reads, generates, writes and scores each data set; returns the exit code."""
    # Imported here because they load PaddleNLP: a wrong option is reported seconds earlier.
    from glm.prediction.kinds import with_encoder
    from glm.prediction.setup import build_mixed_writer, build_writer, open_tasks

    tasks = open_tasks(options) if options.prediction.adapters is not None else None
    sets = [open_set(name, of_set, tasks) for name, of_set in sets_of(options)]
    kinds = {found.encoder.kind for found in sets}
    if len(kinds) > 1:
        raise InputError(f"test_file: its data sets are of tasks that {' and '.join(sorted(kinds))}; one kind a run")
    if tasks is None:
        writer = build_writer(options, sets[0].encoder, rank=rank)
    else:
        writer = build_mixed_writer(options, tasks, rank=rank)
    if options.prediction.report is not None and kinds == {GENERATE}:
        writer = writer.with_all_beams()
    wait_for_all()  # every process has checked the output before the first one changes it
    tallies = {found.name: run_set(found, with_encoder(writer, found.encoder), rank=rank) for found in sets}
    if rank:
        return 0
    conclude_sets(options, sets, tallies)
    return INCOMPLETE if any(tally.failed for tally in tallies.values()) else 0


@dataclasses.dataclass
class PredictionSet:
    """A data set that rows are generated for.

    Args:
        name: empty where there is one without.
        options: as if there were no other.
        settings: that decide what is generated.
        tasks: scores of each task, where its records are of several.
    """

    name: str
    options: PredictOptions
    source: "PredictionInput | MixedFile"
    encoder: "Encoder"
    output: PredictionsFile | PrintedRows
    settings: dict[str, Any]
    records_per_second: float = 0.0
    tasks: "TaskTallies | None" = None

    @property
    def is_mixed(self) -> bool:
        """Whether its rows are of several tasks, whose texts and scores stand side by side."""
        return self.tasks is not None and len(self.tasks.of_tasks) > 1


def open_set(name: str, options: PredictOptions, tasks: "OpenedTasks | None") -> PredictionSet:
    """Reads and checks a data set, before a model is loaded.

    Args:
        tasks: tasks of adapters, which its records are of; None without such.
    """
    from glm.data.task_table import in_language
    from glm.prediction.input import PredictionInput
    from glm.prediction.setup import build_prediction_encoder, family_of

    arguments, family = options.prediction, family_of(options)
    source = (
        MixedFile(
            arguments.test_file,
            tasks.forms,
            default=options.given.get("task_name", ""),
            reserved=family.reserved,
            most=arguments.max_predict_samples,
        )
        if tasks is not None
        else PredictionInput(
            arguments.input_file,
            text=arguments.fill,
            fills=arguments.fills,
            template=in_language(options.data.find_template(family.templates), name),
            columns=dataclasses.replace(options.data.columns, keep_columns=arguments.keep_columns),
            need_target=arguments.metrics_file is not None,
            most=arguments.max_predict_samples,
            reserved=family.reserved,
            pattern_id=options.data.pattern_id,
        )
    )
    settings = settings_of_rows(options) | {"sha256 of the input": source.sha256}
    output = open_output(arguments, settings)
    encoder = build_prediction_encoder(options, name) if tasks is None else tasks.encoders[""]
    if found := source.check(encoder):
        print(*found.notices(), sep="\n", file=sys.stderr)
    output.check_length(source.count)
    for note in encoder.notes:
        print(note, file=sys.stderr)
    return PredictionSet(name, options, source, encoder, output, settings)


def run_set(found: PredictionSet, writer: Any, *, rank: int) -> "Tally | None":
    """Generates for the records of a set, and writes rows and report; returns None in all processes but the first."""
    from glm.prediction.filling import fill
    from glm.prediction.kinds import KINDS
    from glm.prediction.scoring import Tally, TaskTallies, more_figures

    arguments, output, encoder = found.options.prediction, found.output, found.encoder
    predict = fill if arguments.fills else KINDS[encoder.kind].predict
    generate = partial(predict, writer, token_scores=arguments.token_scores)
    if rank:
        return follow(generate, found.source, output)
    output.begin()
    more = more_figures(found.options.data.task_name, encoder)
    # A named set may be one of several, whose table is printed in any case.
    scores = arguments.metrics_file is not None or arguments.report is not None or found.name != ""
    tally = Tally(encoder.kind, more=more, scores=scores)
    shown = rows_of_report(encoder.kind)
    takers = [tally.add] if arguments.report is None else [tally.add, shown.add]
    if isinstance(found.source, MixedFile):
        found.tasks = TaskTallies(found.source.forms)
        takers.append(found.tasks.add)
    for row in output.rows_done():
        take(row, takers)
    already, start = tally.rows, time.perf_counter()
    what = f"generating {found.name}".strip()
    with tqdm(total=found.source.count, initial=already, desc=what, unit="record", disable=None) as bar:
        for end, window in windows(found.source, output):
            for number, row in generate(window):
                output.add(number, first_texts(row, found.options.generation.num_return_sequences))
                take(row, takers)
                bar.update()
            output.close_window(end)
    output.finish()
    if arguments.output_format == "unilm":
        write_paraphrases(Path(arguments.output_file), output.rows_done())
    if not tally.rows:
        raise InputError("standard input: no record in it; one JSON object per line is expected")
    found.records_per_second = (tally.rows - already) / (time.perf_counter() - start)
    if arguments.report is not None:
        write_page(found.options, found.settings, shown, tally)
    return tally


def rows_of_report(kind: str) -> Any:
    """Makes the collector of report data for the rows of a kind of task."""
    if kind == GENERATE:
        return ReportRows()
    from glm.prediction.kinds import KINDS  # imported here because it loads PaddleNLP
    from glm.report.task_page import TaskRows  # and this Jinja and Pillow

    return TaskRows(KINDS[kind].reference)


def follow(generate: Callable, source: "PredictionInput", output: PredictionsFile | PrintedRows) -> None:
    """Does this process's part of every text, in all processes but the first, which writes and counts."""
    for _, window in windows(source, output):
        for _ in generate(window):
            pass


def windows(source: "PredictionInput", output: PredictionsFile | PrintedRows) -> Iterator[tuple[int, dict[int, Any]]]:
    """Yields windows of WINDOW records: the number behind them, and the records that are not done, by number."""
    numbered = enumerate(source)
    while window := dict(islice(numbered, WINDOW)):
        yield max(window) + 1, {number: item for number, item in window.items() if not output.is_done(number)}


def command_options(options: PredictOptions) -> list[str]:
    """Returns the options with which this program would generate the same texts, except those of decoding."""
    name = options.model.model_name_or_path
    own, command = trained_with(name), [f"--model_name_or_path={name}"]
    for group in (options.model, options.data, options.prediction):
        for item in dataclasses.fields(group):
            value = getattr(group, item.name)
            if item.name not in NOT_REPEATED and value != own.get(item.name, item.default):
                command.append(f"--{item.name}={value}")
    return command


def open_output(arguments: PredictArguments, settings: dict[str, Any]) -> PredictionsFile | PrintedRows:
    """Opens the output of rows."""
    if arguments.output_file is None:
        return PrintedRows()
    return PredictionsFile(
        rows_file(arguments), settings, resume=arguments.resume, overwrite=arguments.overwrite_output
    )


def rows_file(arguments: PredictArguments) -> str:
    """Returns the file of JSON lines: output_file, or a file beside it if that has another format."""
    return arguments.output_file + (ROWS_SUFFIX if arguments.output_format == "unilm" else "")


def take(row: dict[str, Any], takers: Sequence[Callable[[dict[str, Any]], None]]) -> None:
    """Passes a row to everything that counts rows."""
    for taker in takers:
        taker(row)


def first_texts(row: dict[str, Any], count: int) -> dict[str, Any]:
    """Keeps as many texts of a row as its file has: for a report all beams are computed."""
    return row | {"predictions": row["predictions"][:count]} if "predictions" in row else row


def settings_of_rows(options: PredictOptions) -> dict[str, Any]:
    """Returns the options that decide what is generated; a run can be resumed only with equal ones."""
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
    """Raises InputError before a file would be overwritten, or if none can be written."""
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
    """Raises InputError if no report can be written, or an earlier one would be overwritten."""
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise InputError(f"report {folder}: is a file or lies in one; give a folder")
    if folder.suffix == ".html":
        raise InputError(f"report {folder}: give a folder; the page in it is {REPORT_PAGE}")
    if (folder / REPORT_PAGE).exists() and not replaces:
        raise InputError(f"report {folder}: holds {REPORT_PAGE}; choose another folder, or add --overwrite_output")


def conclude_sets(options: PredictOptions, sets: Sequence[PredictionSet], tallies: dict[str, "Tally"]) -> None:
    """Prints samples, scores and failures of each set; for several sets the figures side by side, with their mean
    last."""
    from glm.prediction.scoring import write_set_scores

    metrics_file, scored = options.prediction.metrics_file, {}
    for found in sets:
        scores = conclude(found, tallies[found.name], has_others=len(sets) > 1)
        if scores is not None:
            scored[found.name] = scores
    if len(sets) == 1 and sets[0].is_mixed:
        scored = sets[0].tasks.scores()
    if scored and metrics_file is not None:
        write_set_scores(Path(metrics_file), scored, single=len(scored) == 1)
    if len(scored) > 1:
        figures = {name: scores.figures for name, scores in scored.items()}
        title = f"scores of the {'data sets' if len(sets) > 1 else 'tasks'}"
        print_sets(figures, title=title, to_stderr=options.prediction.output_file is None)
        if options.prediction.report is not None and len(sets) > 1:
            write_page_of_sets(options, figures)
    for found in sets:
        print_what_is_left(found.options.prediction)
    for found in sets:
        tally, subject = tallies[found.name], f"{found.name}: " if len(sets) > 1 else ""
        if tally.failed:
            what = f"{subject}{tally.failed} of {tally.rows} records failed, their rows say why"
            print(f"{what}; the first: {tally.first_error}", file=sys.stderr)


def conclude(found: PredictionSet, tally: "Tally", *, has_others: bool) -> "Scores | None":
    """Prints samples of a set, and writes its scores if wanted; prints them if it is the only set."""
    from glm.prediction.scoring import coverage

    arguments, subject = found.options.prediction, f"{found.name}: " if has_others else ""
    scores = None
    if arguments.output_file is not None and not arguments.fills:
        of_questions = found.options.data.of_questions
        rows = rows_file(arguments)
        if found.is_mixed:
            show_tasks(rows, arguments.show, list(found.tasks.of_tasks))
        else:
            show_samples(rows, arguments.show, found.encoder.kind, of_questions=of_questions)
    if arguments.metrics_file is not None or (has_others and tally.scored):
        scores = tally.scores().with_figures({"records per second": round(found.records_per_second, 2)})
        if tally.scored < tally.rows - tally.failed:
            print(f"{subject}{coverage(tally.scored, tally.rows)}; the scores are of these", file=sys.stderr)
    if scores is not None and not has_others and not found.is_mixed:
        title, to_stderr = f"scores of {tally.scored} records", arguments.output_file is None
        print_headlines(scores.figures, scores.signatures, title=title, to_stderr=to_stderr)
    print_warnings([f"{subject}{line}" for line in tally.symptoms.lines()])
    return scores


def write_page_of_sets(options: PredictOptions, figures: dict[str, dict[str, float]]) -> None:
    """Writes the report of several data sets side by side, with links to each one's, and prints its path."""
    from glm.report.page import write_sets_report  # imported here because it loads Jinja and Pillow

    arguments, model = options.prediction, options.model.model_name_or_path
    settings = published_values(settings_of_rows(options))
    page = write_sets_report(
        Path(arguments.report),
        figures,
        Provenance(command_of("predict.py", options.argv), settings, arguments.device),
        title=published(f"Predictions of {model} for {', '.join(figures)}"),
        address=lambda name: f"{name}/{REPORT_PAGE}",
        log=read_log(find_log(Path(model))),
    )
    print(f"report: {page}", file=sys.stderr)


def print_what_is_left(arguments: PredictArguments) -> None:
    """Prints which files exist now, and what to do with them."""
    if arguments.output_file is None:
        return
    rows = rows_file(arguments)
    left = [f"{rows} (a row for each {'text' if arguments.fills else 'record'})"]
    if arguments.metrics_file is not None:
        left.append(f"{arguments.metrics_file} (all figures)")
    if arguments.report is not None:
        left.append(f"{Path(arguments.report) / REPORT_PAGE} (open it in a browser)")
    print(f"written: {', '.join(left)}", file=sys.stderr)
    if not arguments.fills and arguments.report is None:
        print(f"next: {published_command(shlex.join(['python', '-m', 'glm', 'report', rows]))}", file=sys.stderr)


def write_page(options: PredictOptions, settings: dict[str, Any], shown: Any, tally: "Tally") -> None:
    """Writes the report and prints its path."""
    from glm.report.page import write_report  # imported here because they load Jinja and Pillow
    from glm.report.task_page import TaskRows, write_task_report

    arguments, model = options.prediction, options.model.model_name_or_path
    writes_texts = not isinstance(shown, TaskRows)
    more = {"of_questions": options.data.of_questions} if writes_texts else {}
    page = (write_report if writes_texts else write_task_report)(
        Path(arguments.report),
        shown,
        tally.scores() if tally.scored else None,
        Provenance(command_of("predict.py", options.argv), published_values(settings), arguments.device),
        title=published(f"Predictions of {model} for {arguments.test_file or 'standard input'}"),
        log=read_log(find_log(Path(model))),
        **more,
    )
    print(f"report: {page}", file=sys.stderr)


def show_samples(output_file: str, count: int, kind: str, *, of_questions: bool) -> None:
    """Prints source, answer, reference and best text of the first rows that did not fail."""
    rows = []
    with open(output_file, encoding="utf-8") as lines:
        for row in islice((row for row in map(json.loads, lines) if "error" not in row), count):
            rows.append(tuple(map(shortened, shown_cells(row))))
    headings = ("text", "question", "right", "predicted")
    if kind == GENERATE:
        headings = ("passage", "answer", "gold question", "generated question")
    if kind == GENERATE and not of_questions:
        headings = ("source", "answer", "reference", "generated")
    used = [place for place in range(len(headings)) if any(row[place] for row in rows)]  # columns that are not empty
    cells = [tuple(row[place] for place in used) for row in rows]
    print_samples(cells, tuple(headings[place] for place in used), title=f"the first {len(rows)} records")


def show_tasks(output_file: str, count: int, tasks: Sequence[str]) -> None:
    """Prints what each task writes for the first sources, side by side."""
    sources: dict[tuple[str, str], dict[str, str]] = {}
    with open(output_file, encoding="utf-8") as lines:
        for row in (row for row in map(json.loads, lines) if "error" not in row):
            key = row["source"], row.get("answer", "")
            if key in sources or len(sources) < count:
                sources.setdefault(key, {})[row.get(TASK, NO_NAME)] = shown_cells(row)[-1]
    has_answers = any(answer for _, answer in sources)
    headings = ("source", *(["answer"] if has_answers else []), *tasks)
    cells = [
        tuple(map(shortened, (*(key if has_answers else key[:1]), *(found.get(task, "") for task in tasks))))
        for key, found in sources.items()
    ]
    print_samples(cells, headings, title=f"the first {len(cells)} sources, a column a task")


def shown_cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Returns the cells of a row: source, answer or question, reference and prediction."""
    if "predictions" in row:
        best = row["predictions"][0]["text"] if row["predictions"] else ""
        return row["source"], row.get("answer", ""), " / ".join(references_of(row)), best
    right = row.get("reference", row.get("references", ""))
    right = right if isinstance(right, str) else " / ".join(right)
    return row.get("source", row.get("window_text", "")), row.get("question", ""), right, row["prediction"]


def shortened(text: str, most: int = 120) -> str:
    """Shortens a text to the width of a cell."""
    return text if len(text) <= most else text[: most - 1] + "…"


if __name__ == "__main__":
    sys.exit(run(main))
