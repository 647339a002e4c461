"""Run folders: settings, log and status, and which run of a study is used."""

import json
from pathlib import Path

import pytest

from knowhue.errors import ConfigError, DamagedError, RunError
from knowhue.presets import edit, load_config
from knowhue.runs import (
    STUDY_SCHEMA,
    damaged_files,
    finished_run,
    has_ended,
    has_finished,
    hashed_settings,
    images_in_use,
    model_file,
    named_path,
    read_config,
    read_frozen,
    read_log,
    read_status,
    remove_if_empty,
    require_no_run,
    run_folder,
    training_settings,
    write_config,
    write_log,
    write_status,
)
from knowhue.storage import RUN_FILES, read_json, require_writable_folder, write_json
from knowhue.training.run import evaluate_run


def test_writable_folder_is_left_as_it_was(tmp_path):
    require_writable_folder(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Cannot write"):
        require_writable_folder(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("status", "ended"),
    [(None, False), ("running", False), ("finished", True), ("diverged", True)],
)
def test_a_run_has_ended_when_its_status_says_so(tmp_path, status, ended):
    if status:
        write_json(tmp_path / "status.json", {"state": status})
    assert has_ended(tmp_path) is ended


def test_log_reads_back(tmp_path):
    assert read_log(tmp_path) == []
    epochs = [
        {"phase": phase, "epoch": n, "train": {"l1": 0.1 + n}}
        for n, phase in enumerate(["heads", "finetune"])
    ]
    write_log(tmp_path, epochs)
    assert read_log(tmp_path) == epochs
    assert read_log(tmp_path, "finetune") == epochs[1:]
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == epochs


def test_configuration_reads_back(tmp_path):
    config = load_config("demo", settings=["seed=3", "class.label_smoothing=0.1"])
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": {"name": "knowhue-run", "version": 1}}, "written by another version"),
        ({"schema": {"name": "knowhue-run", "version": 3}}, "written by another version"),
        ({"schema": None}, "written by another version"),
        ({"task_weights": {"class": 3.0}}, "damaged at `task_weights`"),
    ],
)
def test_settings_of_another_version_are_refused_in_one_line(tmp_path, change, message):
    write_config(tmp_path, load_config("demo"))
    write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | change)
    with pytest.raises(RunError, match=message) as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["training.cache_gib=0", "evaluation.every_epochs=0"])
def test_the_disk_to_use_and_what_is_measured_are_no_part_of_a_run(tmp_path, change):
    first, second = load_config("demo"), load_config("demo", settings=[change])
    assert run_folder(tmp_path, "multi", first) == run_folder(tmp_path, "multi", second)


@pytest.mark.parametrize("change", ["training.precision=float32", "colour.l1_weight=99", "seed=1"])
def test_what_trains_is_part_of_a_run_defaults_too(tmp_path, change):
    first, second = load_config("demo"), load_config("demo", settings=[change])
    assert run_folder(tmp_path, "multi", first) != run_folder(tmp_path, "multi", second)
    assert training_settings(first)["colour"] == first.colour.model_dump(
        mode="json", exclude={"logit_adjustment"}
    )


def test_a_setting_that_came_after_studies_were_sealed_counts_only_where_it_is_not_as_there(tmp_path):
    first, same, other = (
        load_config("demo", settings=settings)
        for settings in ([], ["colour.logit_adjustment=0"], ["colour.logit_adjustment=0.5"])
    )
    assert "logit_adjustment" not in hashed_settings(first)["colour"]
    assert hashed_settings(other)["colour"]["logit_adjustment"] == 0.5
    assert run_folder(tmp_path, "multi", first) == run_folder(tmp_path, "multi", same)
    assert run_folder(tmp_path, "multi", first) != run_folder(tmp_path, "multi", other)


def test_runs_of_other_settings_have_other_folders(tmp_path):
    first, second = load_config("demo"), load_config("demo", settings=["training.shift_px=1"])
    assert run_folder(tmp_path, "multi", first) == run_folder(tmp_path, "multi", load_config("demo"))
    assert run_folder(tmp_path, "multi", first) != run_folder(tmp_path, "multi", second)
    assert run_folder(tmp_path, "multi", first).name.startswith("seed-0-")


@pytest.mark.parametrize("line", ["{", "[]", "1", "null", '{"epoch": 1}', "\xff", "[" * 100_000])
def test_damaged_log_is_named(tmp_path, line):
    write_log(tmp_path, [{"phase": "heads", "epoch": 1}])
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(line.encode("latin-1"))
    with pytest.raises(DamagedError, match=r"log\.jsonl` is damaged"):
        read_log(tmp_path)


def test_status_vouches_for_the_files_beside_it(tmp_path):
    for name in ("scores.json", "model.safetensors", ".hidden", "colorizer.safetensors"):
        (tmp_path / name).write_text(name)
    write_status(tmp_path, {"state": "finished", "seconds": {"heads": 1.5}})
    assert read_status(tmp_path) == {"state": "finished", "seconds": {"heads": 1.5}}
    assert damaged_files(tmp_path) == []
    for name in (".hidden", "colorizer.safetensors"):
        (tmp_path / name).unlink()
    assert damaged_files(tmp_path) == []
    (tmp_path / "scores.json").write_text("scores.jsoN")
    (tmp_path / "model.safetensors").unlink()
    assert damaged_files(tmp_path) == [tmp_path / "model.safetensors", tmp_path / "scores.json"]
    assert damaged_files(tmp_path, ["scores.json"]) == [tmp_path / "scores.json"]


@pytest.mark.parametrize("state", ["running", "diverged"])
def test_only_a_finished_run_is_put_to_work(tmp_path, state):
    runs = [tmp_path / "multi" / f"seed-{n}-1a2b3c4d" for n in (0, 1)]
    for run, its in zip(runs, (state, "finished"), strict=True):
        write_json(run / "config.json", {})
        write_status(run, {"state": its})
    assert finished_run(tmp_path) == runs[1]
    write_status(runs[1], {"state": state})
    with pytest.raises(RunError, match="diverged" if state == "diverged" else "Found no finished run"):
        finished_run(tmp_path)


def test_of_a_study_the_first_run_of_its_plan_is_put_to_work_whatever_was_tried_beside_it(tmp_path):
    shared = load_config("demo")
    runs = {}
    for name, seed, changes in (
        ("planned", 10, {}),
        ("first", 2, {}),
        *((f"tried {epochs}", 2, {"training": {"finetune": {"epochs": epochs}}}) for epochs in range(1, 5)),
        ("other seed", 1, {}),
        ("measured", 3, {"evaluation": {"recognition": True}}),
    ):
        config = edit(shared, {**changes, "seed": seed, "tasks": {"weights": {"class": 3}}})
        runs[name] = run_folder(tmp_path, "multi", config)
        write_config(runs[name], config)
        write_status(runs[name], {"state": "finished"})
    assert finished_run(tmp_path) == runs["other seed"]  # of runs without a plan the first seed's
    arms = {"multi": {"tasks": {"weights": {"class": 3}}}}
    study = {"config": shared.model_dump(mode="json"), "arms": arms, "seeds": [10, 2, 3]}
    write_json(tmp_path / "study.json", {**STUDY_SCHEMA, **study})
    assert finished_run(tmp_path) == runs["first"]
    write_status(runs["first"], {"state": "diverged"})
    assert finished_run(tmp_path) == runs["measured"]
    write_status(runs["measured"], {"state": "running"})
    assert finished_run(tmp_path) == runs["planned"]


def test_a_run_one_folder_deeper_is_named_and_a_folder_without_any_gets_the_command(tmp_path):
    with pytest.raises(RunError, match=r"Found no finished run there\. Train one with `knowhue study`\.$"):
        finished_run(tmp_path)
    with pytest.raises(RunError, match=r"Found nothing there\. Is the path right\?$"):
        finished_run(tmp_path / "nowhere")
    run = tmp_path / "multi" / "seed-0-1a2b3c4d"
    write_config(run, load_config("demo"))
    write_status(run, {"state": "finished"})
    with pytest.raises(RunError, match=rf"finished runs only of multi \(.*\)\. Name one, such as {run}$"):
        finished_run(run.parent)
    assert finished_run(run) == run


@pytest.mark.parametrize("task", ["colour", "class"])
@pytest.mark.parametrize("state", ["running", "finished"])
@pytest.mark.parametrize("named", [".", "..", "../.."])
def test_a_head_is_no_model_and_is_named_to_nobody(tmp_path, task, state, named):
    head = tmp_path / "heads" / task / "seed-0-1a2b3c4d"
    for name in ("config.json", "scores.json"):
        write_json(head / name, {})
    write_status(head, {"state": state})
    for refuse in (finished_run, evaluate_run):
        with pytest.raises(RunError, match=rf"not a model\. Name a run of an arm in `{tmp_path}`\.$"):
            refuse((head / named).resolve())


def test_a_study_and_a_folder_of_studies_may_be_called_heads(tmp_path):
    (tmp_path / "heads" / "images").mkdir(parents=True)
    runs = [tmp_path / "heads" / place / "seed-0-1a2b3c4d" for place in ("colour", "study/multi")]
    for run in runs:
        write_json(run / "config.json", {})
        write_status(run, {"state": "finished"})
    assert [finished_run(run.parent.parent) for run in runs] == runs


@pytest.fixture
def finish(tmp_path):
    """Write a finished run of some tasks."""

    def write(arm, seed, tasks, state="finished"):
        run = tmp_path / arm / f"seed-{seed}-1a2b3c4d"
        write_config(run, edit(load_config("demo"), {"tasks": {"names": tasks}}))
        write_status(run, {"state": state})
        return run

    return write


def test_a_study_without_the_arms_that_stand_for_it_names_those_that_it_has(tmp_path, finish):
    """For example a comparison of methods."""
    classes = finish("class", 0, ("class",))
    with pytest.raises(
        RunError,
        match=rf"finished runs only of class \(learns class\)\. Name one, such as {classes}, which "
        r"classifies and does not colour$",
    ):
        finished_run(tmp_path)
    finish("l1", 1, ("colour",))
    first = finish("l1", 0, ("colour",))
    with pytest.raises(RunError) as refused:
        finished_run(tmp_path)
    assert "should be the folder of a finished run or study, one with `multi` or `colour`" in str(
        refused.value
    )
    assert str(refused.value).endswith(
        f"only of class (learns class), l1 (learns colour). Name one, such as {first}"
    )


def test_arms_that_diverged_are_named_where_another_has_finished(tmp_path, finish):
    for arm, tasks in {"multi": ("colour", "class"), "colour": ("colour",)}.items():
        finish(arm, 0, tasks, "diverged")
    other = finish("class", 0, ("class",))
    with pytest.raises(RunError) as refused:
        finished_run(tmp_path)
    assert str(refused.value).endswith(
        "only of class (learns class). Training of colour and multi diverged; train with other settings, such as a "
        f"lower learning rate. Name one, such as {other}, which classifies and does not colour"
    )


def test_a_run_is_found_from_within_its_study(tmp_path, finish, monkeypatch):
    run = finish("multi", 0, ("colour", "class"))
    monkeypatch.chdir(run.parent)
    assert finished_run(Path(run.name)) == run
    with pytest.raises(RunError, match=r"only of multi \(learns colour and class\)"):
        finished_run(Path())
    monkeypatch.chdir(run)
    assert finished_run(Path()) == finished_run(Path("..", run.name)) == run
    assert model_file("model.safetensors") == run / "model.safetensors"
    (tmp_path / "linked").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    assert named_path(Path("linked")) == tmp_path / "linked"


def test_a_diverged_run_is_called_by_its_arm_from_within(tmp_path, monkeypatch):
    run = tmp_path / "multi" / "seed-0-1a2b3c4d"
    write_status(run, {"state": "diverged"})
    monkeypatch.chdir(run)
    with pytest.raises(RunError, match="Training of multi diverged"):
        finished_run(Path())


@pytest.mark.parametrize("state", [None, "running", "finished", "diverged"])
def test_a_run_has_finished_only_when_it_came_to_its_end_well(tmp_path, state):
    if state:
        write_status(tmp_path, {"state": state})
    assert has_finished(tmp_path) is (state == "finished")
    assert damaged_files(tmp_path) == []


def test_a_folder_without_a_study_is_said_and_single_runs_in_it_are_pointed_out(tmp_path):
    with pytest.raises(RunError, match=r"Found no study\.json there\.$"):
        read_frozen(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")  # there, but of no use
    with pytest.raises(RunError, match=r"Found no study\.json there\.$"):
        read_frozen(tmp_path / "gone")
    write_json(tmp_path / "multi" / "seed-0-1a2b3c4d" / "config.json", {})
    with pytest.raises(RunError, match=r"It holds single runs: see them with `knowhue evaluate`\.$"):
        read_frozen(tmp_path)


@pytest.mark.parametrize("version", [1, 2, 3, 5, None, "4"])
def test_a_study_of_another_version_is_refused_in_one_line(tmp_path, version):
    write_json(tmp_path / "study.json", {**STUDY_SCHEMA, "hash": "0"})
    assert read_frozen(tmp_path)["hash"] == "0"
    write_json(tmp_path / "study.json", {"schema": {"name": "knowhue-study", "version": version}})
    with pytest.raises(
        RunError, match=r"study\.json: written by another version .* another folder and train again\.$"
    ):
        read_frozen(tmp_path)


@pytest.mark.parametrize("name", RUN_FILES)
def test_the_folder_of_a_run_or_a_study_takes_no_other_files(tmp_path, name):
    require_no_run(tmp_path)
    require_no_run(tmp_path / "new")
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=rf"holds a run or a study \({name}\); name another folder$"):
        require_no_run(tmp_path)


def test_images_that_runs_and_heads_were_trained_on_are_in_use(tmp_path):
    assert images_in_use(tmp_path) == set()
    for place, images in {"multi": "a", "heads/colour": "b", "class": "a"}.items():
        write_json(tmp_path / place / "seed-0-1a2b3c4d" / "environment.json", {"images": images})
    assert images_in_use(tmp_path) == {"a", "b"}


def test_only_an_empty_folder_is_removed(tmp_path):
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "file").touch()
    for name in ("empty", "full", "nowhere"):
        remove_if_empty(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize("content", ["null", '"text"', "[]"])
def test_a_status_that_is_damaged_is_named_by_all_who_read_it(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    for read in (read_status, has_ended, has_finished, damaged_files):
        with pytest.raises(DamagedError, match=r"status\.json` is damaged"):
            read(tmp_path)
