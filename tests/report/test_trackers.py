"""Runs logged to trackers and read back with the trackers; logging twice adds nothing."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from logged_study import DIAGNOSED, HASH, entry, write_logged_study, write_run

from knowhue.errors import DamagedError, RunError
from knowhue.report.trackers import LoggedNumber, LoggedRun, log_runs, read_logged
from knowhue.runs import read_config, read_log, write_log, write_status

NAMES = ["colour/seed-0-0011aabb", "multi/seed-0-0011aabb"]


@pytest.fixture
def runs(tmp_path) -> list[LoggedRun]:
    return read_logged(write_logged_study(tmp_path / "study"))


def grown(folder: Path) -> list[LoggedRun]:
    """A run, and an epoch more of it."""
    write_log(folder, [entry(each, **(DIAGNOSED if each == 2 else {})) for each in range(1, 5)])
    write_status(folder, {"state": "finished"})
    return read_logged(folder)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    assert found.Tags()["tensors"] == ["_hparams_/session_start_info"]
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_every_number_at_its_step(runs, tmp_path):
    found = log_runs("tensorboard", runs, tmp_path, None)
    assert (found.written, found.already) == (NAMES, [])
    assert found.see == f"tensorboard --logdir {tmp_path / 'tensorboard'}"
    read = scalars(tmp_path / "tensorboard" / "photos" / NAMES[1])
    assert read["validation/ab_l1"] == [(1, 19), (2, 18), (3, 17)]
    assert read["train/l1"] == [(1, 1), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert read["diagnostics/cosine_colour"] == [(10, 0.5), (15, -0.5)]
    assert read["score/ab_l1"] == [(3, 12.25)]
    assert len(read) == 6


def test_tensorboard_gets_a_run_once_and_anew_when_it_has_gone_on(runs, tmp_path):
    for already in (False, True):
        found = log_runs("tensorboard", runs, tmp_path, "mine")
        assert (found.already if already else found.written) == NAMES
    folder = tmp_path / "tensorboard" / "mine" / NAMES[0]
    assert len(list(folder.glob("events*"))) == 1
    found = log_runs("tensorboard", grown(tmp_path / "study" / NAMES[0]), tmp_path, "mine")
    assert found.written == NAMES[:1]
    assert len(list(folder.glob("events*"))) == 1
    assert [step for step, _ in scalars(folder)["train/l1"]] == [1, 2, 3, 4]
    assert sorted(each.name for each in (tmp_path / "tensorboard").iterdir()) == ["mine"]


def test_files_of_others_are_never_replaced(runs, tmp_path):
    folder = tmp_path / "tensorboard" / "photos" / NAMES[0]
    folder.mkdir(parents=True)
    (folder / "precious").touch()
    with pytest.raises(RunError, match="should hold what `knowhue log` writes"):
        log_runs("tensorboard", runs, tmp_path, None)
    assert (folder / "precious").exists()


@pytest.fixture
def sqlite_without_fsync():
    """Don't wait for the disk at each of the hundred transactions with which MLflow creates its database."""
    alchemy = pytest.importorskip("sqlalchemy")

    def relax(connection, _):
        connection.execute("PRAGMA synchronous = OFF")

    alchemy.event.listen(alchemy.Engine, "connect", relax)
    yield
    alchemy.event.remove(alchemy.Engine, "connect", relax)


# how MLflow asks SQLAlchemy is theirs
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
@pytest.mark.usefixtures("sqlite_without_fsync")
def test_mlflow_gives_back_settings_tags_and_every_number_and_has_each_run_once(runs, tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log = partial(log_runs, "mlflow")
    assert (log(runs, tmp_path, None).written, log(runs, tmp_path, None).already) == (NAMES, NAMES)
    client = tracking.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("photos").experiment_id

    def logged():
        return {each.info.run_name: each for each in client.search_runs([experiment])}

    assert sorted(logged()) == NAMES
    run = logged()[NAMES[1]]
    assert (run.info.status, run.data.tags["arm"], run.data.tags["plan"]) == ("FINISHED", "multi", HASH)
    assert run.data.params["training.batch_size"] == "64"
    assert run.data.params == {name: str(value) for name, value in runs[1].parameters.items()}
    history = client.get_metric_history(run.info.run_id, "validation/ab_l1")
    assert [(each.step, each.value) for each in history] == [(1, 19), (2, 18), (3, 17)]
    assert history[1].timestamp - history[0].timestamp == 5000
    assert run.data.metrics["score/ab_l1"] == 12.25
    assert log(grown(tmp_path / "study" / NAMES[1]), tmp_path, None).written == NAMES[1:]
    assert sorted(logged()) == NAMES
    assert len(client.get_metric_history(logged()[NAMES[1]].info.run_id, "train/l1")) == 4

    # a run that was cut has no content yet
    client.delete_tag(logged()[NAMES[0]].info.run_id, "knowhue.content")
    assert log(runs[:1], tmp_path, None).written == NAMES[:1]
    assert sorted(logged()) == NAMES


def test_mlflow_goes_where_its_own_variable_says(runs, tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking")
    where = f"file://{tmp_path / 'elsewhere'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", where)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    found = log_runs("mlflow", runs[:1], tmp_path, "mine")
    assert found.see == f"mlflow ui --backend-store-uri {where}"
    assert not (tmp_path / "mlflow.db").exists()
    assert tracking.MlflowClient(where).get_experiment_by_name("mine") is not None


class FakeWandb:
    """The parts of wandb that are used: `init`, and a run's `log`, `summary`, `define_metric`, `finish`."""

    Error = ConnectionError

    def __init__(self, there: int = 0) -> None:
        self.runs: list[SimpleNamespace] = []
        self.there = there
        self.Settings = SimpleNamespace

    def init(self, **given):
        kind = {"offline": "offline-run", "online": "run"}[given["mode"]]
        place = Path(given["dir"]) / "wandb" / f"{kind}-20261126_{len(self.runs):06}-{given['id']}" / "files"
        place.mkdir(parents=True)
        run = SimpleNamespace(
            given=given, dir=str(place), rows=[], summary={}, step=self.there, axes={}, is_finished=False
        )
        run.log = run.rows.append
        run.define_metric = lambda name, step_metric: run.axes.update({name: step_metric})
        run.finish = lambda: setattr(run, "is_finished", True)
        self.runs.append(run)
        return run


@pytest.fixture
def wandb(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_of_another_project_wandb_has_a_run_of_its_own(runs, tmp_path, wandb):
    for project in ("one", "two"):
        assert len(log_runs("wandb", runs, tmp_path, project).written) == 2
        assert len(log_runs("wandb", runs, tmp_path, project).already) == 2
    assert len(wandb.runs) == 4


def test_a_server_that_does_not_answer_is_one_line_within_seconds(runs, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        RunError, match=r"mlflow does not take .*`MLFLOW_TRACKING_URI` says where it is"
    ) as caught:
        log_runs("mlflow", runs, tmp_path)
    assert "\n" not in str(caught.value)


def test_wandb_stays_on_this_machine_and_has_each_run_once(runs, tmp_path, wandb):
    log = partial(log_runs, "wandb")
    assert (log(runs, tmp_path, None).written, log(runs, tmp_path, None).already) == (NAMES, NAMES)
    assert len(wandb.runs) == 2
    made = wandb.runs[1]
    assert made.is_finished
    wanted = {"mode": "offline", "project": "photos", "id": runs[1].key, "job_type": "multi", "group": HASH}
    assert wanted.items() <= made.given.items()
    assert made.given["config"]["training.batch_size"] == 64
    assert made.axes == {"*": "epoch", "diagnostics/*": "training_step"}
    assert made.rows[0] == {
        "epoch": 1, "train/l1": 1, "validation/ab_l1": 19, "speed/seconds": 5, "speed/images_per_second": 160,
    }  # fmt: skip
    assert made.rows[1] == {"training_step": 10, "diagnostics/cosine_colour": 0.5}
    assert len(made.rows) == 5
    assert made.summary == {"score/ab_l1": 12.25}
    assert log(grown(tmp_path / "study" / NAMES[1]), tmp_path, None).written == NAMES[1:]
    assert len(list((tmp_path / "wandb").iterdir())) == 2  # what the earlier log gave is gone


def test_wandb_online_goes_on_from_the_last_row_that_is_there(runs, tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb.there = 3
    log_runs("wandb", runs[:1], tmp_path, None)
    (made,) = wandb.runs
    assert (made.given["mode"], made.given["resume"]) == ("online", "allow")
    assert [row.get("epoch", row.get("training_step")) for row in made.rows] == [2, 3]


def test_the_real_wandb_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    runs = read_logged(write_run(tmp_path, "colour", 0))
    assert log_runs("wandb", runs, tmp_path, "mine").written == ["colour/seed-0-0011aabb"]
    assert log_runs("wandb", runs, tmp_path, "mine").already == ["colour/seed-0-0011aabb"]


def test_none_is_imported_before_it_is_asked_for():
    program = (
        "import sys, knowhue.apps.cli, knowhue.report.trackers\n"
        "print(sorted({'tensorboard', 'mlflow', 'wandb', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_of_a_study_or_a_single_run_with_what_it_is(tmp_path):
    runs = read_logged(write_logged_study(tmp_path / "study"))
    assert [each.name for each in runs] == ["colour/seed-0-0011aabb", "multi/seed-0-0011aabb"]
    (alone,) = read_logged(tmp_path / "study" / "multi" / "seed-0-0011aabb")
    assert alone == runs[1]
    assert alone.study == "photos"
    assert alone.tags == {"arm": "multi", "seed": "0", "state": "finished", "plan": HASH, "split": "test"}
    assert len({each.key for each in runs}) == 2


def test_every_setting_is_a_parameter_by_the_name_that_set_takes(tmp_path):
    folder = write_run(tmp_path, "colour", 3)
    (run,) = read_logged(folder)
    assert run.parameters["training.batch_size"] == 64
    assert run.parameters["seed"] == 3
    assert run.parameters["tasks.names"] == "[colour]"
    assert run.parameters["colour.width"] == read_config(folder).colour.width
    assert "training.cache_gib" not in run.parameters  # how much disk it may use is no part of a run


def test_numbers_stand_at_their_epoch_and_diagnostics_at_their_step(tmp_path):
    folder = write_run(tmp_path, "multi", 0, epochs=2)
    (run,) = read_logged(folder)
    assert [each for each in run.points if each.metric == "validation/ab_l1"] == [
        LoggedNumber("validation/ab_l1", 1, 5.0, 19.0),
        LoggedNumber("validation/ab_l1", 2, 10.0, 18.0),
    ]
    assert [each for each in run.points if each.metric.startswith("diagnostics/")] == [
        LoggedNumber("diagnostics/cosine_colour", 10, 5.0, 0.5),
        LoggedNumber("diagnostics/cosine_colour", 15, 7.0, -0.5),
    ]
    assert {each.metric for each in run.points} == {
        "train/l1", "validation/ab_l1", "speed/seconds", "speed/images_per_second", "diagnostics/cosine_colour",
    }  # fmt: skip
    assert (run.scores, run.all_points()[-1].step) == ({"ab_l1": 12.25}, 2)
    assert run.began == pytest.approx((folder / "log.jsonl").stat().st_mtime - 10)


def test_a_run_that_goes_on_keeps_its_key_and_has_other_content(tmp_path):
    folder = write_run(tmp_path, "colour", 0, epochs=1, state="running")
    (before,) = read_logged(folder)
    assert before.tags["state"] == "running"
    assert before.scores == {}
    write_log(folder, [*read_log(folder), entry(2)])
    (after,) = read_logged(folder)
    assert (before.key, before.content != after.content) == (after.key, True)


def test_dates_are_no_content(tmp_path):
    folder = write_run(tmp_path, "colour", 0)
    (before,) = read_logged(folder)
    (folder / "log.jsonl").touch()
    (after,) = read_logged(folder)
    assert before.content == after.content


def test_what_is_no_run_or_damaged_is_refused(tmp_path):
    with pytest.raises(RunError, match="Found nothing there"):
        read_logged(tmp_path / "nowhere")
    with pytest.raises(RunError, match="Found no run that has started"):
        read_logged(tmp_path)
    folder = write_run(tmp_path, "colour", 0)
    (folder / "log.jsonl").write_text("{}\n")
    with pytest.raises(DamagedError, match=r"log\.jsonl"):
        read_logged(tmp_path)
