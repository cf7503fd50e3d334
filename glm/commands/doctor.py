"""`python -m glm doctor`: checks a new machine and whether its device computes correctly."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glm.commands.parser import Parser
from glm.errors import InputError, UsageError


def main(argv: list[str]) -> int:
    """Describes the machine, tries its device, and prints a table.

    Returns:
        1 if something does not hold.
    """
    arguments = _parser().parse_args(argv)
    file = None if arguments.output_file is None else Path(arguments.output_file)
    if file is not None and file.exists() and not arguments.overwrite_output:
        raise InputError(f"output_file {file}: exists; choose another name, or add --overwrite_output")
    if arguments.tensor_parallel_degree not in (1, 2, None):
        raise UsageError(f"tensor_parallel_degree {arguments.tensor_parallel_degree}: use 2, or 1 not to try it")
    from glm.doctor.machine import described, surprises
    from glm.runtime.device import hush

    hush()
    machine, odd = described(), surprises()
    _print_machine(machine, odd)
    found = _try_out(arguments)
    is_well = all(finding.holds for finding in found)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine, "surprises": odd, "checks": list(map(_as_json, found)), "holds": is_well}
        file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        print(f"written: {file}", file=sys.stderr)
    print("all that was tried holds" if is_well else "the device does not compute what it should: see `wrong` above")
    return 0 if is_well else 1


def _parser() -> Parser:
    parser = Parser(
        prog="python -m glm doctor",
        description="What the machine is and what of it will surprise; then a small model is trained and decoded on "
        "the device, and losses, gradients, weights and texts are held against the CPU's. Run it first on a new "
        "machine.",
    )
    parser.add_argument("--device", default=None, metavar="D", help="cpu, gpu or gpu:N; a GPU if there is one")
    parser.add_argument(
        "--tensor_parallel_degree",
        type=int,
        metavar="N",
        help="2: try a model over two processes, also on a CPU; 1: do not; left out: with two GPUs",
    )
    parser.add_argument("--output_file", metavar="FILE", help="write the findings as JSON, to send with a report")
    parser.add_argument("--overwrite_output", action="store_true", help="replace an existing file")
    return parser


def _try_out(arguments: Any) -> Sequence[Any]:
    """Runs the checks, printing each as it is done."""
    from glm.doctor.checks import checks_of, findings
    from glm.doctor.device import count, has_flashmask
    from glm.doctor.ranks import run_split
    from glm.runtime.device import choose_device, has_gpu

    device = choose_device(("gpu" if has_gpu() else "cpu") if arguments.device is None else arguments.device)
    degree = arguments.tensor_parallel_degree or (2 if count(device) > 1 else 1)
    checks = checks_of(device, has_flash=has_flashmask(device), processes=degree)
    print(f"\ntried on {device}; differences are relative, largest first among all weights:")
    found = []
    for finding in findings(checks, split=run_split):
        found.append(finding)
        print(_line(finding), flush=True)
    return found


def _print_machine(machine: dict[str, str], odd: list[str]) -> None:
    width = max(map(len, machine))
    for name, value in machine.items():
        print(f"{name:{width}}  {value}")
    for line in odd:
        print(f"warning: {line}")


def _line(finding: Any) -> str:
    """Formats a finding as a line."""
    if not finding.was_made:
        return f"  -      {finding.name}: {finding.note}"
    figures = ", ".join(
        f"{name} {value:.1e} (at most {finding.tolerances[name]:g})" for name, value in finding.differences.items()
    )
    verdict = "holds" if finding.holds else "wrong"
    return f"  {verdict}  {finding.name}: {finding.note or figures}"


def _as_json(finding: Any) -> dict[str, Any]:
    found = asdict(finding) | {"holds": finding.holds if finding.was_made else None}
    found["differences"] = {
        name: value if math.isfinite(value) else "infinite" for name, value in finding.differences.items()
    }
    return found
