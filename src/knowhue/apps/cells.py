"""The table of a study's cells as text: one line a seed, one column an arm."""

from collections.abc import Sequence

from knowhue.plan import ENDED, Cell

MARKS = {"missing": "·", "finished": "done", "diverged": "diverged"}


def cell_lines(cells: Sequence[Cell]) -> list[str]:
    """Lines of the table, a summary last.

    >>> for line in cell_lines([Cell("colour", 0, "finished", 2, 2, 9.0), Cell("multi", 0, "running", 1, 2, 5.0)]):
    ...     print(line)
     seed  colour  multi
        0    done    1/2
    1 of 2 cells have ended
    """
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    widths = {arm: max(len(arm), 5) for arm in arms}
    lines = [" seed  " + "  ".join(arm.rjust(widths[arm]) for arm in arms)]
    for seed in dict.fromkeys(cell.seed for cell in cells):
        row = {cell.arm: _mark(cell) for cell in cells if cell.seed == seed}
        lines.append(f"{seed:>5}  " + "  ".join(row.get(arm, "").rjust(widths[arm]) for arm in arms))
    ended = sum(cell.state in ENDED for cell in cells)
    return [*lines, f"{ended} of {len(cells)} cells have ended"]


def _mark(cell: Cell) -> str:
    return MARKS.get(cell.state, f"{cell.epochs}/{cell.of}")
