"""Checkpoints appear complete or not at all, and damage is reported."""

import pytest
import torch
from torch import nn

from knowhue.errors import RunError
from knowhue.training import checkpoint

STEP = "a" * 64


@pytest.fixture
def trained():
    """A layer and its optimizer after two steps."""

    def make(steps=2):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
        for _ in range(steps):
            optimizer.zero_grad()
            layer(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        return {"layer": layer}, {"optimizer": optimizer}

    return make


def step(modules, optimizers):
    modules["layer"](torch.ones(1, 3)).square().sum().backward()
    optimizers["optimizer"].step()
    return modules["layer"].weight.detach().clone()


def test_restored_goes_on_as_if_nothing_had_happened(tmp_path, trained):
    saved = trained()
    log = [{"phase": "heads", "epoch": 5, "train": {"l1": 0.1}}]
    checkpoint.save_checkpoint(tmp_path, 5, *saved, STEP, log)
    restored = trained(steps=0)
    assert checkpoint.restore_checkpoint(tmp_path, *restored, STEP) == (5, log)
    assert restored[1]["optimizer"].param_groups[0]["lr"] == 0.1
    for _, optimizer in (saved, restored):
        optimizer["optimizer"].zero_grad()
    assert torch.equal(step(*saved), step(*restored))


def test_nothing_there_is_epoch_0(tmp_path, trained):
    assert checkpoint.restore_checkpoint(tmp_path / "nothing", *trained(), STEP) == (0, [])


def test_only_the_newest_is_kept(tmp_path, trained):
    for epoch in (1, 2, 10):
        checkpoint.save_checkpoint(tmp_path, epoch, *trained(), STEP)
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    assert checkpoint.restore_checkpoint(tmp_path, *trained(), STEP)[0] == 10


@pytest.mark.parametrize("at", ["training.checkpoint.torch.save", "storage.os.replace", "storage.os.fsync"])
def test_crash_leaves_the_older_state_whole(tmp_path, trained, monkeypatch, at):
    checkpoint.save_checkpoint(tmp_path, 1, *trained(), STEP)

    class PowerCut(BaseException):
        pass

    def cut(*_):
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(f"knowhue.{at}", cut)
        with pytest.raises(PowerCut):
            checkpoint.save_checkpoint(tmp_path, 2, *trained(), STEP)
    assert checkpoint.restore_checkpoint(tmp_path, *trained(), STEP)[0] == 1
    checkpoint.save_checkpoint(tmp_path, 2, *trained(), STEP)
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    assert checkpoint.restore_checkpoint(tmp_path, *trained(), STEP)[0] == 2


@pytest.mark.parametrize("room", [0, 500, 1500])
def test_full_disk_is_said_whichever_library_writes(tmp_path, trained, room):
    """torch reports a full disk as a RuntimeError about positions in its file."""
    checkpoint.save_checkpoint(tmp_path, 1, *trained(), STEP)
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(RunError, match=r"Cannot write .*\. Free some space"):
            checkpoint.save_checkpoint(tmp_path, 2, *trained(), STEP)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert checkpoint.restore_checkpoint(tmp_path, *trained(), STEP)[0] == 1


def test_other_version_is_said(tmp_path, trained, monkeypatch):
    checkpoint.save_checkpoint(tmp_path, 1, *trained(), STEP)
    monkeypatch.setattr(checkpoint, "_VERSION", 99)
    with pytest.raises(RunError, match=r"another version of knowhue. Remove"):
        checkpoint.restore_checkpoint(tmp_path, *trained(), STEP)


def flip(path, place=None):
    data = bytearray(path.read_bytes())
    data[place or len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "flipped in its checksum": lambda path: flip(path, 5),
    "flipped in what it says of itself": lambda path: flip(path, 100),
    "flipped in its tensors": flip,
    "other": lambda path: path.write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_state_is_said(tmp_path, trained, damage):
    checkpoint.save_checkpoint(tmp_path, 1, *trained(), STEP)
    DAMAGES[damage](tmp_path / "state.pt")
    assert checkpoint.computed_with(tmp_path) is None
    with pytest.raises(RunError, match=r"is damaged: .*Remove") as error:
        checkpoint.restore_checkpoint(tmp_path, *trained(), STEP)
    assert "\n" not in str(error.value)


def test_state_of_another_shape_is_said(tmp_path, trained):
    checkpoint.save_checkpoint(tmp_path, 1, *trained(), STEP)
    _, optimizers = trained()
    with pytest.raises(RunError, match="is damaged"):
        checkpoint.restore_checkpoint(tmp_path, {"layer": nn.Linear(5, 2)}, optimizers, STEP)


def test_state_that_another_golden_step_computed_is_refused(tmp_path, trained):
    checkpoint.save_checkpoint(tmp_path, 1, *trained(), STEP)
    assert checkpoint.computed_with(tmp_path) == STEP
    modules, optimizers = trained(steps=0)
    before = modules["layer"].weight.detach().clone()
    with pytest.raises(
        RunError,
        match=r"golden step aaaaaaaaaaaa, not bbbbbbbbbbbb.* Continue there, or remove",
    ):
        checkpoint.restore_checkpoint(tmp_path, modules, optimizers, "b" * 64)
    assert torch.equal(modules["layer"].weight, before)
