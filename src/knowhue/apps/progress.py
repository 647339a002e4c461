"""Progress of long work: live bars in a terminal, plain lines elsewhere."""

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from knowhue.apps.program import printable
from knowhue.config import TRAIN_LOSSES
from knowhue.errors import few, minus
from knowhue.locks import is_first_process
from knowhue.pace import Pace
from knowhue.plan import Cell
from knowhue.runs import ENDED, OTHER_SETTINGS, Report

STARTING = "starting: loading libraries"
PLAIN_SECONDS = 3.0, 15.0
"""Seconds from the first to the second line of a stage, and the longest pause; each pause doubles the one before."""
LIVE_SECONDS = 0.2
SHORT = {
    **{name: name.upper() for name in TRAIN_LOSSES["colour"]},
    "colour_loss": "colour",
    "generator": "G",
    "discriminator": "D",
    "cross_entropy": "CE",
}
STAGES = {
    "open": ("loading the encoder", ""),
    "prepare": ("preparing images", "images"),
    "golden": ("computing a fingerprint of this machine's arithmetic", ""),
    "baselines": ("scoring the baselines", "images"),
    "truth": ("features of the true images", "images"),
    "features": ("features of the frozen encoder", "images"),
    "evaluate": ("scoring the trained model", "images"),
    "costs": ("timing predictions", ""),
    "report": ("writing the report", ""),
    "deploy": ("preparing the model for use", ""),
    "album": ("predicting the album's mean colour", "images"),
    "folder": ("colouring", "images"),
    "video": ("colouring", "frames"),
    "score": ("measuring", "images"),
}
"""Title and unit of each stage that may take longer than a few seconds; `title_of` names heads, gates and arms."""
_STATES = {"missing": "·", "finished": "done", "diverged": "diverged", OTHER_SETTINGS: "other"}


@contextmanager
def showing_progress() -> Iterator[Report]:
    """Yield a function that shows progress events, and clean up the screen afterwards; other processes show none.

    Commands enter it before they import torch, which takes seconds, so that something is shown meanwhile.
    """
    # standard output is for results and may be piped
    console = Console(stderr=True)
    if not is_first_process():
        yield lambda _: None
        return
    bars = LiveProgress(console) if console.is_terminal else nullcontext(PlainProgress(console))
    with bars as shown, _announcing_interruption(console):
        yield shown


@contextmanager
def _announcing_interruption(console: Console) -> Iterator[None]:
    """Print at once that Ctrl-C was received, because finishing the work at hand may take seconds."""
    # only the main thread can set handlers; signals that are ignored, or end the process, stay so
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM) if is_main}
    usual = {each: handler for each, handler in handlers.items() if callable(handler)}

    def stop(number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError, OSError):  # it came while a line was printed, or the terminal is closed
            console.print("stopping ...", highlight=False)
        usual[signal.Signals(number)](number, frame)

    for each in usual:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in usual.items():
            signal.signal(each, handler)


class PlainProgress:
    """Prints a line now and then, for files and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = CurrentStage()
        self._last = 0.0
        self._pause = PLAIN_SECONDS[0]
        self._states: list[str] = []
        self._started = time.monotonic()
        self._print(STARTING, self._started)

    def __call__(self, event: dict[str, Any]) -> None:
        """Print an event if a stage begins or ends with it, or if the last line is some time ago."""
        now = time.monotonic()
        if event["stage"] == "cells":
            states = [cell.state for cell in event["cells"]]
            if states != self._states:
                self._states = states
                self._print(cell_lines(event["cells"])[-1] + running_cells(event["cells"]), now)
            return
        begins = self._stage.begins_with(event)
        done, total = count_of(event)
        is_late = total and now - self._last > self._pause
        if event["stage"] == "note" or begins or is_late or 0 < done == total:
            self._last = now
            self._pause = PLAIN_SECONDS[0] if begins else min(2 * self._pause, PLAIN_SECONDS[1])
            seconds = event.get("seconds_left")
            if seconds is None and done / max(total, 1) > 0.02:  # once there is enough to estimate from
                seconds = self._stage.seconds_left
            left = f"  about {time_left(seconds)} left" if seconds and done < total else ""
            self._print(f"{self._stage.title}  {describe_event(event)}{left}".rstrip(), now)

    def _print(self, text: str, now: float) -> None:
        # file and class names may look like rich's markup or emoji codes
        line = printable(f"{now - self._started:6.0f} s  {text}")
        self._console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)


class CurrentStage:
    """The current stage: its title, the count at which this process began it, and the time left.

    Work that was done before this process started counts as done, but not towards the pace.
    """

    def __init__(self) -> None:
        self.title = ""
        self.done_before = 0
        self.seconds_left: float | None = None
        self._pace = Pace()
        self._name = ""
        self._done = 0
        self._run = ""

    def begins_with(self, event: Mapping[str, Any]) -> bool:
        """Update the stage by an event; returns whether a titled stage begins with it."""
        done, total = count_of(event)
        name, title = event["stage"], title_of(event)
        counts = name == "train" or unit_of(event) != ""
        if not title and not counts:
            return False
        # a falling count means that the stage began again
        is_new = name != self._name or done < self._done or not counts
        if name == "run":
            self._run = title
        if is_new:
            # features may be computed between the start of a run and its first step
            self.title, self.done_before, self._name, self._pace = title or self._run, done, name, Pace()
        self._done = done
        self.seconds_left = self._pace.after(done - self.done_before, total, self.done_before)["seconds_left"]
        return is_new and bool(title)


class LiveProgress(Progress):
    """Live display: the current stage with losses and a bar, and a bar of all cells, or a table of parallel cells."""

    def __init__(self, console: Console) -> None:
        self._table = Text()
        self._stage = CurrentStage()
        self._losses = ""
        self._are_cells_at_work = False
        super().__init__(
            BarColumn(bar_width=24),
            TextColumn("{task.description}", table_column=Column(overflow="fold")),
            TimeElapsedColumn(),
            TimeLeftColumn(),
            console=console,
            transient=True,
        )
        self._cells: TaskID | None = None
        self._now = self.add_task("", total=None)
        self._shown = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        if event["stage"] == "cells":
            self._table = Text("\n".join(cell_lines(event["cells"])))
            self._are_cells_at_work = True
            return
        if event["stage"] == "cell":
            if self._cells is None:
                self._cells = self.add_task("", total=event["total"], of="arms: ")
            done, total = event["done"], event["total"]
            self.update(self._cells, total=total, completed=done, description=f"{done}/{total} arms x seeds")
        if self._stage.begins_with(event):
            self._are_cells_at_work = False
            self._losses = ""
            # starting the bar at earlier work makes rich estimate the time left from this process's pace
            self.remove_task(self._now)
            self._now = self.add_task("", total=None, completed=self._stage.done_before)
        if event["stage"] == "note":
            self.console.print(printable(describe_event(event)), markup=False, emoji=False)
        done, total = count_of(event)
        if total and (done == total or time.monotonic() - self._shown > LIVE_SECONDS):
            self._shown = time.monotonic()  # not too often, because reading a loss waits for the device
            text = describe_event(event)
            # `describe_event` counts images and frames, but not steps
            if not unit_of(event):
                self._losses, text = text, f"{done}/{total} steps"
            self.update(self._now, total=total, completed=done, description=text)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what rich draws: bars, or the table while cells run in parallel."""
        if self._table:
            yield self._table
        if not self._are_cells_at_work:
            lines = (printable(self._stage.title) or STARTING, self._losses)
            yield Text("\n".join(filter(None, lines)))
            # the bar of the cells last
            yield self.make_tasks_table(sorted(self.tasks, key=lambda task: task.id == self._cells))


class TimeLeftColumn(ProgressColumn):
    """The time left for the work of a bar, if known."""

    def render(self, task: Task) -> Text:
        """Return the time left; for cells it is that of the arms, because gates and the report are not counted."""
        seconds = task.time_remaining
        return Text(f"{task.fields.get('of', '')}about {time_left(seconds)} left" if seconds else "")


def cell_lines(cells: Sequence[Cell]) -> list[str]:
    """Return the lines of a table of the cells, followed by a summary.

    >>> for line in cell_lines([Cell("colour", 0, "finished", 2, 2, 9.0), Cell("multi", 0, "running", 1, 2, 5.0)]):
    ...     print(line)
     seed  colour  multi
        0    done    1/2
    1 of 2 runs are done
    """
    widths = {cell.arm: max(len(cell.arm), 5) for cell in cells}
    rows: dict[int, list[str]] = {}
    for cell in cells:
        text = _STATES.get(cell.state, f"{cell.epochs}/{cell.of}")
        rows.setdefault(cell.seed, []).append(text.rjust(widths[cell.arm]))
    head = "  ".join(arm.rjust(width) for arm, width in widths.items())
    lines = [f" seed  {head}", *(f"{seed:>5}  {'  '.join(row)}" for seed, row in rows.items())]
    ended = sum(cell.state in ENDED for cell in cells)
    exchanged = [f"{cell.arm} of seed {cell.seed}" for cell in cells if cell.state == OTHER_SETTINGS]
    others = f"; in a folder named for other settings: {few(exchanged)}" if exchanged else ""
    legend = ["· not started"] * any(cell.state == "missing" for cell in cells)
    return [*lines, *legend, f"{ended} of {len(cells)} runs are done{others}"]


def running_cells(cells: Sequence[Cell]) -> str:
    """Return a text that names some of the running cells; empty if there are none.

    >>> running_cells([Cell("colour", 0, "finished", 2, 2, 9.0), Cell("multi", 0, "running", 1, 2, 5.0)])
    '; running: multi of seed 0 (1/2 epochs)'
    """
    running = (cell for cell in cells if cell.state == "running")
    found = [f"{cell.arm} of seed {cell.seed} ({cell.epochs}/{cell.of} epochs)" for cell in running]
    return f"; running: {few(found)}" if found else ""


def time_left(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours, at least `1 s`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def title_of(event: Mapping[str, Any]) -> str:
    """Return the title of the event's stage; empty for a stage within another."""
    if event["stage"] == "gate":
        return f"A/A gate, seed {event['seed']}"
    if event["stage"] != "run":
        return STAGES.get(event["stage"], ("", ""))[0]
    what = "fine-tuning the whole network"
    if event["phase"] == "heads":
        what = f"{' and '.join(event['tasks'])} head on the frozen encoder"
    return f"{event['arm']}, seed {event['seed']}: {what}"


def unit_of(event: Mapping[str, Any]) -> str:
    return STAGES.get(event["stage"], ("", ""))[1]


def count_of(event: Mapping[str, Any]) -> tuple[int, int]:
    """Return how much of the current stage is done, and its total; in training, steps over all epochs of a phase."""
    if event["stage"] == "train":
        return (event["epoch"] - 1) * event["steps"] + event["step"], event["epochs"] * event["steps"]
    return (event.get("done", 0), event.get("total", 0)) if unit_of(event) else (0, 0)


def describe_event(event: Mapping[str, Any]) -> str:
    """Return epoch and losses, or counts, or a note."""
    if event["stage"] == "train":
        shown = {SHORT[name]: loss for name, loss in event["losses"].items() if name in SHORT}
        losses = "  ".join(minus(f"{name} {float(loss):.3f}") for name, loss in shown.items())
        return f"epoch {event['epoch']}/{event['epochs']}  {losses}"
    done, total = count_of(event)
    if done or total:
        counts = f"{done}{f'/{total}' if total else ''} {unit_of(event)}"
        if rate := event.get("per_second"):
            counts += f", {rate:.1f} a second" if rate >= 0.5 else f", {60 * rate:.1f} a minute"
        return counts + (f", {event['failed']} failed" if event.get("failed") else "")
    return str(event["text"]) if event["stage"] == "note" else ""
