"""Blocks with different arithmetic or a failed gate are left out of all comparisons and reported."""

from pathlib import Path
from typing import Any

import pytest
from synthetic_study import change, run_of, write_study

from knowhue.config import digest
from knowhue.errors import RunError
from knowhue.plan import read_plan
from knowhue.report.contrasts import primary
from knowhue.report.findings import verdicts
from knowhue.report.integrity import cells_sentence, gate_sentence
from knowhue.report.page import write_report
from knowhue.report.reading import read_study
from knowhue.runs import training_settings
from knowhue.statistics.verdicts import Word
from knowhue.storage import write_json

SEEDS = tuple(range(8))
pytestmark = pytest.mark.usefixtures("without_figures")


def part(*differ: str, tensors: int = 60) -> dict[str, Any]:
    return {"steps": 3, "tensors": tensors, "differ": list(differ)}


PASSED = {"heads": part(), "finetune_colour": part(tensors=178), "finetune_class": part(tensors=122)}


def write_gate(folder: Path, seed: int, **found: Any) -> None:
    """A gate of the study's own settings, images and machine, with what it found."""
    plan = read_plan(folder)
    environment = {"images": "0a1b2c3d", "golden_step": "a" * 64}
    settings = digest(training_settings(plan.run_config(plan.gate_arm or "", seed)))
    write_json(
        folder / "gate" / f"seed-{seed}.json",
        {"proved": environment | {"settings": settings}, **PASSED, **found},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight seeds, each computed with one golden step, their gates passed."""
    write_study(tmp_path, seeds=SEEDS)
    for path in tmp_path.glob("*/seed-*/environment.json"):
        change(path, lambda found: found.update(golden_step="a" * 64, images="0a1b2c3d"))
    for seed in SEEDS:
        write_gate(tmp_path, seed)
    return tmp_path


def other_machine(folder: Path, arm: str, seed: int) -> None:
    change(run_of(folder, arm, seed) / "environment.json", lambda found: found.update(golden_step="b" * 64))


def test_whole_blocks_are_compared_and_said(folder: Path):
    study = read_study(folder)
    assert (study.faults, sorted(study.gates)) == ({}, list(SEEDS))
    assert verdicts(study)["colour"].word != Word.NO_VERDICT
    page = write_report(folder).read_text()
    assert "seeds 0 to 7 with golden step aaaaaaaaaaaa" in page
    assert "The A/A gate passed for seeds 0 to 7" in page


@pytest.mark.parametrize("arm", ["colour", "multi"])
def test_runs_of_a_seed_with_different_golden_steps_are_not_paired(folder: Path, arm: str):
    other_machine(folder, arm, 3)
    study = read_study(folder)
    assert list(study.faults) == [3]
    found = primary(study, "colour")
    assert found is not None
    assert found.seeds == (0, 1, 2, 4, 5, 6, 7)
    assert {each.word for each in verdicts(study).values()} == {Word.NO_VERDICT}
    page = write_report(folder).read_text()
    assert "computed in 2 ways" in page
    assert "3 not to be compared" in cells_sentence(study)


def test_a_run_of_another_study_of_other_images_is_not_paired(folder: Path):
    change(run_of(folder, "multi", 3) / "environment.json", lambda found: found.update(images="ffff"))
    study = read_study(folder)
    assert list(study.faults) == [3]
    assert {each.word for each in verdicts(study).values()} == {Word.NO_VERDICT}
    assert "trained on other images than the plan was frozen with" in write_report(folder).read_text()


def test_blocks_of_several_machines_are_said_and_compared(folder: Path):
    for arm in ("class", "colour", "multi"):
        other_machine(folder, arm, 7)
    study = read_study(folder)
    page = write_report(folder).read_text()
    assert study.faults == {}
    assert "seeds 0 to 6 with golden step aaaaaaaaaaaa" in page
    assert "seed 7 with golden step bbbbbbbbbbbb" in page
    assert sorted(study.gates) == list(SEEDS[:-1])  # that of seed 7 was tried on the other machine


@pytest.mark.parametrize("where", PASSED)
def test_a_block_whose_gate_failed_has_no_verdict_and_it_is_said_aloud(folder: Path, where: str):
    write_gate(folder, 2, **{where: part("encoder.body.conv1.weight", "colour.out.weight")})
    study = read_study(folder)
    assert list(study.faults) == [2]
    assert {each.word for each in verdicts(study).values()} == {Word.NO_VERDICT}
    page = write_report(folder).read_text()
    assert "The A/A gate FAILED for seed 2" in page
    assert "encoder.body.conv1.weight" in page
    assert "Seed 2" in page[page.index('id="warnings"') :]


@pytest.mark.parametrize(
    "edit",
    [
        lambda gate: gate["proved"].update(settings="0" * 64),
        lambda gate: gate["proved"].update(images="11111111"),
        lambda gate: gate["proved"].update(golden_step="b" * 64),
        lambda gate: gate.pop("proved"),
    ],
    ids=["settings", "images", "golden step", "nothing"],
)
def test_a_gate_that_proved_something_else_does_not_count(folder: Path, edit: Any):
    change(folder / "gate" / "seed-1.json", edit)
    study = read_study(folder)
    assert 1 not in study.gates
    assert "It was not run for seed 1." in gate_sentence(study.gates, SEEDS)


def test_a_damaged_gate_is_named(folder: Path):
    (folder / "gate" / "seed-2.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"seed-2\.json"):
        read_study(folder)


def test_the_gate_is_said_to_have_passed_failed_or_not_been_run():
    passed = gate_sentence({seed: PASSED for seed in (0, 1, 2, 9)}, (0, 1, 2))
    assert passed == (
        "The A/A gate passed for seeds 0 to 2, bit for bit after 3 steps of each phase: all 60 tensors of the heads "
        "trained together are those of the heads trained alone, and fine-tuning with a vanishing weight of the other "
        "task is fine-tuning without it (178 tensors for colour, 122 for class)."
    )
    assert gate_sentence({}, (0, 1)).startswith("The A/A gate was not run")
    assert gate_sentence({1: PASSED}, (0, 1, 2)).endswith(" It was not run for seeds 0, 2.")
    failed = {0: PASSED, 1: PASSED | {"heads": part(*"abcdefg")}, 3: PASSED | {"finetune_class": part("b")}}
    said = gate_sentence(failed, (0, 1, 3))
    assert said.startswith(
        "The A/A gate FAILED for seeds 1, 3 (heads trained together against alone; fine-tuning of"
    )
    assert "a, b, c, d, e and 2 more differ" in said
