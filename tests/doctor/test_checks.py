"""The doctor finds what is planted: a fault in each of the things that it compares, in each of the ways it tries."""

import math
from dataclasses import replace

import numpy as np
import pytest

from glm.doctor import runs
from glm.doctor.checks import TOLERANCES, Finding, checks_of, differences, findings
from glm.doctor.ranks import run_split
from glm.doctor.runs import Outcome, Way, run, tried_family

# As if the CPU were a GPU that can do everything: what is computed there is float32 whatever is asked for.
ALL_CHECKS = [replace(check, missing="") for check in checks_of("cpu", has_flash=True, processes=2)]
NAMES = [check.name for check in ALL_CHECKS]


def alone(way: Way) -> Outcome:
    """In place of several processes."""
    return compute(tried_family(), replace(way, degree=1))


def compute(family, way: Way) -> Outcome:
    """A run, computed once for each way that differs on a CPU."""
    if way not in OUTCOMES:
        OUTCOMES[way] = run(family, replace(way, dtype="float32"))
    return OUTCOMES[way]


OUTCOMES: dict[Way, Outcome] = {}


@pytest.fixture(scope="module")
def family():
    return tried_family()


def test_a_cpu_agrees_with_itself_in_every_way():
    found = list(findings(ALL_CHECKS, split=alone, compute=compute))
    assert [finding.name for finding in found] == NAMES
    assert all(finding.was_made and finding.holds for finding in found)
    for finding in found:
        assert {*finding.differences} == {"losses", "gradients", "updates", "texts"}
    fast = found[NAMES.index("fast attention against the plain one")]
    assert 0 < fast.differences["gradients"] < 1e-4  # they are two computations


# -- planted faults, each in the model or the optimizer of one way


def wrong_loss(patch, way):
    """A loss that is a few per cent off, as of a head in the wrong precision."""
    model_class = tried_family().model_class()
    forward = model_class.forward
    patch.setattr(model_class, "forward", lambda self, **batch: forward(self, **batch) * 1.05)


def lost_gradient(patch, way):
    """One weight of a layer gets no gradient, as of an operator whose backward pass is wrong."""
    make = runs._model

    def without(*arguments):
        model, start = make(*arguments)
        weights = dict(model.named_parameters())
        name = next(name for name in weights if ".1." in name and name.endswith("weight") and weights[name].ndim == 2)
        weights[name].register_hook(lambda gradient: gradient * 0.0)
        return model, start

    patch.setattr(runs, "_model", without)


def wrong_update(patch, way):
    """The optimizer takes steps that are too large, as of a fused one that reads another learning rate."""
    patch.setattr(runs, "LEARNING_RATE", runs.LEARNING_RATE * 1.6)


def wrong_decoding(patch, way):
    """Logits of later tokens come from the state of another beam, as of a cache that is not reordered."""
    model_class = tried_family().model_class()
    step = model_class.step
    patch.setattr(model_class, "step", lambda self, *given: np.roll(step(self, *given), 1, axis=1))


def not_a_number(patch, way):
    """An overflow."""
    model_class = tried_family().model_class()
    forward = model_class.forward
    patch.setattr(model_class, "forward", lambda self, **batch: forward(self, **batch) * float("nan"))


FAULTS = {
    "losses": wrong_loss,
    "gradients": lost_gradient,
    "updates": wrong_update,
    "texts": wrong_decoding,
}


@pytest.fixture(scope="module")
def faulty() -> dict[str, Outcome]:
    """What a run gives under each fault; computed once, for the ways differ by nothing on a CPU."""
    found = {}
    for name, plant in {**FAULTS, "nan": not_a_number}.items():
        with pytest.MonkeyPatch.context() as patch:
            plant(patch, Way("cpu"))
            found[name] = run(tried_family(), Way("cpu"))
    return found


@pytest.mark.parametrize("check", ALL_CHECKS, ids=NAMES)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_check_finds_each_planted_fault(faulty, check, fault):
    def second(family, way: Way) -> Outcome:
        return faulty[fault] if way == check.second and way != check.first else compute(family, way)

    check = replace(check, first=replace(check.first, device="gpu")) if check.first == check.second else check
    (finding,) = findings([check], split=lambda way: second(None, way), compute=second)
    assert fault in finding.wrong and not finding.holds
    if fault == "texts":
        assert finding.wrong == ["texts"]  # training is well


@pytest.mark.parametrize("check", ALL_CHECKS, ids=NAMES)
def test_numbers_that_are_none_are_found(faulty, check):
    check = replace(check, first=Way("cpu"), second=replace(check.second, device="gpu"))
    both = {check.first: compute(tried_family(), Way("cpu")), check.second: faulty["nan"]}
    (finding,) = findings([check], split=lambda way: both[way], compute=lambda _, way: both[way])
    assert "losses" in finding.wrong and finding.differences["losses"] == math.inf


def test_a_run_that_fails_is_wrong_and_the_others_are_made():
    def broken(family, way: Way) -> Outcome:
        if way.recompute:
            raise RuntimeError("(External) CUDNN error\n  what happened")
        return compute(family, way)

    found = {finding.name: finding for finding in findings(ALL_CHECKS, split=alone, compute=broken)}
    assert [name for name, finding in found.items() if not finding.holds] == ["recompute"]
    assert found["recompute"].note == "RuntimeError: what happened"


def test_what_cannot_be_tried_is_said_and_wrong_of_nobody():
    found = {finding.name: finding for finding in map_findings(checks_of("cpu", has_flash=False, processes=1))}
    assert [name for name, finding in found.items() if not finding.was_made] == [
        "float16",
        "bfloat16",
        "tensor parallelism 2 against 1",
    ]
    assert all(finding.holds for finding in found.values())


def map_findings(checks) -> list[Finding]:
    return list(findings(checks, split=alone, compute=compute))


def test_every_way_of_a_gpu_is_tried():
    checks = checks_of("gpu", has_flash=True, processes=2)
    assert not [check for check in checks if check.missing]
    assert {check.second.dtype for check in checks} == {*TOLERANCES}
    assert any(check.second.recompute for check in checks) and any(check.first.plain for check in checks)
    assert [check.name for check in checks_of("gpu", has_flash=False, processes=1) if check.missing] == [
        "fast attention against the plain one",
        "tensor parallelism 2 against 1",
    ]


def test_differences_by_hand():
    gradients = {"a": np.array([3.0, 4.0]), "b": np.array([1e-9])}
    first = Outcome([2.0, 1.0], gradients, {"a": np.ones(1)}, [((1, 2), -1.0)])
    second = replace(first, losses=[2.0, 1.1], gradients={"a": np.array([3.0, 4.5]), "b": np.array([5e-4])})
    found = differences(first, second, same_texts=True)
    assert found == pytest.approx({"losses": 0.1, "gradients": 0.1, "updates": 0.0, "texts": 0.0})
    other = replace(first, texts=[((1, 3), -1.25)])
    assert differences(first, other, same_texts=True)["texts"] == math.inf
    assert differences(first, other, same_texts=False)["texts"] == 0.25
    assert differences(first, replace(first, gradients={}), same_texts=True)["gradients"] == math.inf


@pytest.mark.skipif("not __import__('os').environ.get('GLM_LONG_TESTS')", reason="starts two processes")
def test_two_processes_agree_with_one():
    checks = [check for check in checks_of("cpu", has_flash=False, processes=2) if check.second.degree == 2]
    (finding,) = findings(checks, split=run_split, compute=compute)
    assert finding.holds, finding
    assert 0 < finding.differences["gradients"] < 1e-4
