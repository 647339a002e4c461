"""Runs of a seed are compared only where all were computed with one golden step."""

import pytest

from knowhue.comparison.collect import _comparable


def run(method, seed, step, regime="images", state="finished"):
    scores = {} if state == "missing" else {"ab_l1": 1.0}
    return {
        "method": method,
        "regime": regime,
        "seed": seed,
        "state": state,
        "scores": scores,
        "golden_step": step,
    }


@pytest.mark.parametrize("state", ["finished", "diverged"])
def test_a_seed_computed_in_several_ways_is_not_compared(state):
    runs = [
        run("l1", 0, "a"), run("gan", 0, "b", state=state), run("unet", 0, "", state="missing"),
        run("l1", 1, "b"), run("gan", 1, "b"), run("l1", 0, "b", "clock"), run("gan", 0, "b", "clock"),
    ]  # fmt: skip
    found = _comparable(runs)
    assert [each["state"] for each in found] == ["unpaired", "unpaired", "missing", *["finished"] * 4]
    assert [bool(each["scores"]) for each in found] == [False, False, False, *[True] * 4]
