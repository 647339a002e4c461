"""The A/A gate passes as the arms are, and fails where they would share more than they should."""

import pytest
import torch

from knowhue.storage import read_json
from knowhue.training import gate
from knowhue.training.gate import check_gate


def test_heads_of_a_block_agree_bit_for_bit(tiny, make_work):
    work = make_work(tiny())
    found = check_gate(work, tiny(seed=4))
    assert found["differ"] == []
    assert found["tensors"] > 10
    assert read_json(work.root / "gate" / "seed-4.json") == found


def test_gate_is_tried_once(tiny, make_work, monkeypatch):
    work = make_work(tiny())
    first = check_gate(work, tiny())
    monkeypatch.setattr(gate, "_train", lambda *_: pytest.fail("tried again"))
    assert check_gate(work, tiny()) == first


def test_gate_notices_what_couples_the_heads(tiny, make_work, monkeypatch):
    """Clipping by the norm over both heads is what breaks the equality in practice."""
    step = gate.train_step

    def clipped(engine, players, batch, config):
        losses = step(engine, players, batch, config)
        parameters = [p for p in players.model.parameters() if p.grad is not None]
        norm = sum(p.grad.square().sum() for p in parameters).sqrt()
        with torch.no_grad():
            for p in parameters:
                p.sub_(1e-3 * p.grad / norm)
        return losses

    monkeypatch.setattr(gate, "train_step", clipped)
    assert "class.linear.weight" in check_gate(make_work(tiny()), tiny())["differ"]
