"""Every fault of `benchmarks/mutants.py` can be applied to the current sources."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_fault_can_be_put_in(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import mutants

    for field, old, new in mutants.MUTANTS:
        assert old != new
        assert mutants.place_of(ROOT / "src", field, old).is_file()
