"""What a reader must know before trusting a number: runs that are not whole, and what training warned of."""

from collections.abc import Sequence

from knowhue.report.records import ARM_LABELS, Run, Study


def warnings(study: Study) -> list[tuple[str, str]]:
    """Return (who, what): runs that are not whole, and what training warned about, by arm and kind."""
    found = [
        (label, "is not part of this study.") for arm, label in ARM_LABELS.items() if arm not in study.runs
    ]
    for arm in study.runs:
        label = ARM_LABELS.get(arm, arm)
        for run in study.of(arm):
            if not run.finished:
                found.append((f"{label}, seed {run.seed}", _STATES.get(run.state, run.state)))
            if not run.same_settings:
                found.append((f"{label}, seed {run.seed}", _OTHER_SETTINGS))
        found += [(f"{label}, {who}", what) for who, what in _log_warnings(study.of(arm))]
    return found


_OTHER_SETTINGS = "was made with other settings than this study's; train it again."
_STATES = {
    "running": "is not finished: its curves are shown, its scores are not used.",
    "missing": "was not started.",
    "diverged": "diverged: its losses ceased to be numbers; its scores are not used.",
}


def _log_warnings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Join a warning that comes back epoch by epoch and seed by seed into one, in its last words."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for run in runs:
        for line in run.log:
            for text in line.get("warnings") or ():
                found.setdefault(text.split(":")[0], []).append((run.seed, line.get("epoch", 0), text))
    return [
        (
            _span("seed", [seed for seed, _, _ in each]),
            f"{_span('epoch', [at for _, at, _ in each])}: {each[-1][2]}",
        )
        for each in found.values()
    ]


def _span(noun: str, numbers: Sequence[int]) -> str:
    """Return which seeds or epochs.

    >>> _span("epoch", [8]), _span("epoch", [3, 2, 4]), _span("seed", [0, 3])
    ('epoch 8', 'epochs 2 to 4', 'seeds 0, 3')
    """
    several = sorted(set(numbers))
    if len(several) == 1:
        return f"{noun} {several[0]}"
    together = several[-1] - several[0] + 1 == len(several)
    return f"{noun}s {several[0]} to {several[-1]}" if together else f"{noun}s {', '.join(map(str, several))}"
