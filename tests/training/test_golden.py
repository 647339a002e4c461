"""The golden step is the same again, and another one where the arithmetic is."""

import pytest
import torch

from knowhue.config import Training
from knowhue.training import golden
from knowhue.training.engine import Engine
from knowhue.training.golden import golden_step


@pytest.fixture
def engine():
    return Engine(Training(precision="float32"))


def test_the_same_again(engine, monkeypatch):
    first = golden_step(engine)
    monkeypatch.setattr(golden, "_found", {})
    assert (golden_step(engine), len(first)) == (first, 64)


def test_it_is_computed_once_a_process(engine, monkeypatch):
    first = golden_step(engine)
    monkeypatch.setattr(golden, "_train", lambda _: pytest.fail("computed again"))
    assert golden_step(engine) == first


def test_another_precision_is_another_step(engine):
    assert golden_step(Engine(Training(precision="bfloat16"))) != golden_step(engine)


def test_other_code_is_another_step(engine, monkeypatch):
    first = golden_step(engine)
    step = golden.train_step

    def slower(state, batch):
        for group in state.optimizer.param_groups:
            group["lr"] *= 1 - 1e-6
        return step(state, batch)

    monkeypatch.setattr(golden, "train_step", slower)
    monkeypatch.setattr(golden, "_found", {})
    assert golden_step(engine) != first


def test_threads_are_those_that_are_asked_for_and_then_as_before(engine, monkeypatch):
    seen = []
    monkeypatch.setattr(golden, "_found", {})
    monkeypatch.setattr(golden, "_train", lambda _: seen.append(torch.get_num_threads()) or str(len(seen)))
    assert golden_step(engine, threads=2) != golden_step(engine)
    assert (seen, torch.get_num_threads()) == ([2, 1], 1)


def test_nothing_else_is_drawn_otherwise(engine, monkeypatch):
    monkeypatch.setattr(golden, "_found", {})
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    golden_step(engine)
    assert torch.equal(torch.rand(4), expected)
