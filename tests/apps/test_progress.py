"""Progress in plain lines: the remaining time follows from the speed."""

import io
import signal
from itertools import pairwise
from types import SimpleNamespace

import pytest
from rich.console import Console

from knowhue.apps.progress import (
    CurrentStage,
    LiveProgress,
    PlainProgress,
    cell_lines,
    showing_progress,
    time_left,
    title_of,
)
from knowhue.plan import Cell
from knowhue.runs import OTHER_SETTINGS


@pytest.fixture
def told():
    def tell(*events):
        stream = io.StringIO()
        plain = PlainProgress(Console(file=stream, width=200))
        for event in events:
            plain._last = -1e9  # as if the last line were a while ago
            plain(event)
        return stream.getvalue().splitlines()[1:]  # after what says that it starts

    return tell


def video(done, total, per_second, seconds_left):
    counts = {"done": done, "total": total, "per_second": per_second}
    return {"stage": "video", "seconds_left": seconds_left, **counts}


def test_what_is_left_goes_with_the_rate(told):
    """Progress of a video whose first frames took long, and of one that an earlier run had begun."""
    lines = told(video(1, 24, 0.05, 460.0), video(23, 24, 0.8, 1.25), video(24, 24, 0.8, 0.0))
    assert "1/24 frames, 3.0 a minute  about 8 min left" in lines[0]
    assert "23/24 frames, 0.8 a second  about 1 s left" in lines[1]
    assert lines[2].endswith("24/24 frames, 0.8 a second")
    (line,) = told(video(501, 1000, 2.0, 249.5))
    assert line.endswith("501/1000 frames, 2.0 a second  about 4 min left")


@pytest.mark.parametrize(("per_second", "pace"), [(12.34, "12.3 a second"), (0.02, "1.2 a minute")])
def test_a_pace_is_told_in_the_unit_that_leaves_a_number(told, per_second, pace):
    assert told(video(1, 0, per_second, None))[0].endswith(f"1 frames, {pace}")


def test_nothing_is_promised_of_a_video_of_unknown_length(told):
    assert told(video(1, 0, 2.0, None))[0].endswith("colouring  1 frames, 2.0 a second")


def test_what_scores_images_is_titled_before_and_while_it_counts(told):
    counts = [{"done": done, "total": 900} for done in (64, 900)]
    lines = told({"stage": "baselines"}, *({"stage": "baselines", **each} for each in counts))
    title = "  scoring the baselines"
    assert lines[0].endswith(title)
    assert f"{title}  64/900 images" in lines[1]
    assert lines[2].endswith(f"{title}  900/900 images")


def folder(done, per_second, seconds_left):
    counts = {"done": done, "total": 100, "per_second": per_second}
    return {"stage": "folder", "failed": 0, "seconds_left": seconds_left, **counts}


def test_a_resumed_folder_is_titled_and_promises_nothing_before_work(told):
    lines = told(folder(6, 0.0, None), folder(7, 2.0, 46.5))
    assert lines[0].endswith("colouring  6/100 images")
    assert lines[1].endswith("colouring  7/100 images, 2.0 a second  about 46 s left")


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_answered_at_once(capsys, monkeypatch, is_terminal, number):
    """The line comes before running work has ended, which is after the line that raises."""
    monkeypatch.setattr(Console, "is_terminal", is_terminal)

    said = []

    def end(*_):
        raise KeyboardInterrupt

    def work():
        with showing_progress():
            try:
                signal.raise_signal(number)
            finally:
                said.append(capsys.readouterr().err)

    usual = signal.signal(number, end)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert "stopping ..." in said[0]
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, usual)


def test_an_interruption_that_nobody_can_be_told_ends_the_work_all_the_same(monkeypatch):
    def print_nothing(*_, **__):
        raise BrokenPipeError

    def work():
        with showing_progress():
            monkeypatch.setattr(Console, "print", print_nothing)
            signal.raise_signal(signal.SIGINT)

    # background processes ignore Ctrl-C
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, usual)


def train(step):
    return {"stage": "train", "epoch": 1, "epochs": 1, "step": step, "steps": 100, "losses": {}}


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which a test lets pass."""
    now = [0.0]
    for module in ("pace", "apps.progress"):
        monkeypatch.setattr(f"knowhue.{module}.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_what_is_left_is_told_by_what_this_process_did(clock):
    stream = io.StringIO()
    plain = PlainProgress(Console(file=stream, width=200))
    plain(train(60))
    plain._last = -1e9
    clock[0] = 10.0  # for ten steps
    plain(train(70))
    assert stream.getvalue().rstrip().endswith("about 30 s left")


def test_what_is_left_is_told_by_how_it_goes_now(clock):
    """The first steps of a stage load libraries, compile and fill caches."""
    stream = io.StringIO()
    plain = PlainProgress(Console(file=stream, width=200))
    plain(train(0))
    for step in range(1, 51):
        clock[0] += 20 if step == 1 else 0.5
        plain._last = -1e9
        plain(train(step))
    assert stream.getvalue().rstrip().endswith("about 25 s left")


def test_the_first_seconds_of_a_stage_are_not_silent_and_hours_of_it_not_long(clock):
    stream = io.StringIO()
    plain = PlainProgress(Console(file=stream, width=200))
    for second in range(101):
        clock[0] = float(second)
        plain({"stage": "prepare", "done": second, "total": 1000})
    times = [int(line.split(" s ")[0]) for line in stream.getvalue().splitlines()[1:]]
    assert times[:4] == [0, 4, 11, 24]
    assert {after - before for before, after in pairwise(times[3:])} == {16}


def test_a_stage_begins_with_its_first_event_and_with_its_next_run():
    stage = CurrentStage()
    run = {"stage": "run", "phase": "heads", "arm": "multi", "seed": 0, "tasks": ("class",)}
    events = [folder(6, 0, None), folder(7, 0, None), {"stage": "note", "text": "x"}, folder(8, 0, None)]
    assert [stage.begins_with(event) for event in events] == [True, False, False, False]
    assert (stage.title, stage.done_before) == ("colouring", 6)
    assert [stage.begins_with(event) for event in (run, train(5), train(6), run)] == [
        True,
        False,
        False,
        True,
    ]
    assert stage.title == "multi, seed 0: class head on the frozen encoder"


@pytest.fixture
def live():
    """The bars of a terminal, and what it shows after some events."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with LiveProgress(console) as bars:

        def show(*events, width=120):
            for event in events:
                bars._shown = -1e9  # as if the bars had not moved for a while
                bars(event)
            paper = io.StringIO()
            Console(file=paper, width=width).print(bars.get_renderable())
            return paper.getvalue().splitlines()

        yield show


def test_bars_show_the_work_at_hand_and_the_cells(live):
    run = {"stage": "run", "phase": "finetune", "arm": "multi", "seed": 1}
    lines = live({"stage": "cell", "done": 1, "total": 6, "arm": "multi", "seed": 1}, run, train(20))
    assert lines[0].rstrip() == "multi, seed 1: fine-tuning the whole network"
    assert lines[1].rstrip() == "epoch 1/1"
    assert "20/100 steps" in lines[2]
    assert "1/6 arms x seeds" in lines[3]
    lines = live(run)
    assert "steps" not in lines[1]
    assert "1/6 arms x seeds" in lines[2]


def test_what_is_left_of_cells_is_said_of_the_arms_alone(live, monkeypatch):
    monkeypatch.setattr("knowhue.apps.progress.Task.time_remaining", 5400)
    lines = [line.rstrip() for line in live({"stage": "cell", "done": 1, "total": 6}, train(20), width=80)]
    assert lines[-2].endswith("about 90 min left")
    assert "arms" not in lines[-2]
    assert lines[-1].endswith("arms: about 90 min left")


@pytest.mark.parametrize("width", [80, 120])
def test_bars_cut_nothing(live, width):
    run = {"stage": "run", "phase": "heads", "arm": "multi", "seed": 1, "tasks": ("colour", "class")}
    losses = dict.fromkeys(("l1", "generator", "discriminator", "cross_entropy"), 0.693)
    step = {**train(20), "epoch": 12, "epochs": 30, "losses": losses}
    lines = live({"stage": "cell", "done": 1, "total": 6}, run, step, width=width)
    assert [line.rstrip() for line in lines[:2]] == [
        "multi, seed 1: colour and class head on the frozen encoder",
        "epoch 12/30  L1 0.693  G 0.693  D 0.693  CE 0.693",
    ]
    assert "1120/3000 steps" in lines[2]
    assert len(lines) == 4


def test_the_beginning_shows_at_once(capsys, live):
    with showing_progress():
        assert capsys.readouterr().err.endswith("0 s  starting: loading libraries\n")
    assert live()[0].rstrip() == "starting: loading libraries"


def test_bars_of_the_stage_before_are_gone_in_the_next(live):
    lines = live(folder(6, 0.0, None), {"stage": "report"})
    assert lines[0].rstrip() == "writing the report"
    assert "6/100" not in lines[1]


def test_steps_after_features_go_on_under_the_title_of_their_run(told):
    run = {"stage": "run", "phase": "heads", "arm": "multi", "seed": 0, "tasks": ("class",)}
    lines = told(run, {"stage": "features", "done": 4, "total": 4}, train(20))
    assert "features of the frozen encoder  4/4 images" in lines[-2]
    assert "multi, seed 0: class head on the frozen encoder  epoch 1/1" in lines[-1]


def test_every_stage_of_a_study_has_its_title():
    stages = ("open", "prepare", "golden", "baselines", "features", "evaluate", "costs", "report", "deploy")
    assert all(title_of({"stage": stage}) for stage in stages)
    assert title_of({"stage": "gate", "seed": 3}) == "A/A gate, seed 3"


def test_the_table_of_cells_takes_the_place_of_the_bars(live):
    cells = [Cell("colour", 0, "finished", 2, 2, 1.0), Cell("multi", 0, "running", 1, 2, 1.0)]
    running_cells = {"stage": "cells", "cells": cells}
    lines = live(folder(6, 0.0, None), running_cells)
    assert [line.rstrip() for line in lines] == [
        " seed  colour  multi",
        "    0    done    1/2",
        "1 of 2 runs are done",
    ]
    lines = live({"stage": "report"})
    assert [line.rstrip() for line in lines[2:4]] == ["1 of 2 runs are done", "writing the report"]


def test_a_run_in_the_folder_of_another_is_named():
    cells = [Cell("colour", 0, "finished", 2, 2, 1.0), Cell("multi", 0, OTHER_SETTINGS, 2, 2, 1.0)]
    table = cell_lines(cells)
    assert (table[1].split(), table[2]) == (
        ["0", "done", "other"],
        "1 of 2 runs are done; in a folder named for other settings: multi of seed 0",
    )


def test_plain_lines_say_once_that_a_cell_has_ended(told):
    cells = [Cell("colour", 0, "diverged", 2, 2, 1.0), Cell("multi", 0, "missing", 0, 2, 0.0)]
    event = {"stage": "cells", "cells": cells}
    (line,) = told(event, event)
    assert line.endswith("1 of 2 runs are done")


def test_plain_lines_name_the_cells_that_have_begun(told):
    began = [Cell("l1", 0, "running", 1, 4, 0.0), Cell("gan", 0, "missing", 0, 4, 0.0)]
    went_on = [began[0]._replace(epochs=2), began[1]]
    both = [went_on[0], began[1]._replace(state="running")]
    lines = told(*({"stage": "cells", "cells": cells} for cells in (began, went_on, both)))
    assert [line.partition("  ")[2].strip().partition("s  ")[2] for line in lines] == [
        "0 of 2 runs are done; running: l1 of seed 0 (1/4 epochs)",
        "0 of 2 runs are done; running: l1 of seed 0 (2/4 epochs), gan of seed 0 (0/4 epochs)",
    ]


def test_of_many_cells_at_work_a_line_names_a_few(told):
    (line,) = told({"stage": "cells", "cells": [Cell(f"w{n}", 0, "running", 1, 4, 0.0) for n in range(10)]})
    assert line.count(" of seed 0") == 6
    assert line.endswith("w5 of seed 0 (1/4 epochs) and 4 more")


def test_a_note_is_printed_whatever_it_holds(told, live):
    note = {"stage": "note", "text": "a\x1b[31mb [bold]c[/]"}
    (line,) = told(note)
    assert line.endswith("a\\x1b[31mb [bold]c[/]")
    assert live(note)  # and the bars go on


def test_losses_are_shown_under_their_short_names(told):
    losses = {"l1": 0.25, "cross_entropy": 1.5, "unknown": 3.0}
    run = {"stage": "run", "phase": "heads", "arm": "multi", "seed": 0, "tasks": ("class",)}
    lines = told(run, train(1) | {"losses": losses})
    assert "epoch 1/1  L1 0.250  CE 1.500" in lines[-1]
    assert "unknown" not in lines[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (0.2, "1 s"), (99, "99 s"), (100, "2 min"), (6000, "1 h 40 min"), (7500, "2 h 5 min")],
)
def test_a_time_is_told_in_its_unit(seconds, text):
    assert time_left(seconds) == text


def test_of_several_processes_the_first_alone_shows(monkeypatch, capsys):
    monkeypatch.setattr("knowhue.apps.progress.is_first_process", lambda: False)
    with showing_progress() as report:
        report(folder(6, 0.0, None))
    assert capsys.readouterr() == ("", "")
