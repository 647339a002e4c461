"""The state to go on from appears whole or not at all, and says when it is damaged."""

import pytest
import torch
from torch import nn

from knowhue.errors import RunError
from knowhue.training import checkpoint


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
    checkpoint.save(tmp_path, 5, *saved)
    restored = trained(steps=0)
    assert checkpoint.restore(tmp_path, *restored) == 5
    assert restored[1]["optimizer"].param_groups[0]["lr"] == 0.1
    for _, optimizer in (saved, restored):
        optimizer["optimizer"].zero_grad()
    assert torch.equal(step(*saved), step(*restored))


def test_nothing_there_is_epoch_0(tmp_path, trained):
    assert checkpoint.restore(tmp_path / "nothing", *trained()) == 0


def test_only_the_newest_is_kept(tmp_path, trained):
    for epoch in (1, 2, 10):
        checkpoint.save(tmp_path, epoch, *trained())
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0010"]
    assert checkpoint.restore(tmp_path, *trained()) == 10


@pytest.mark.parametrize("at", ["torch.save", "os.replace"])
def test_crash_leaves_the_older_state_whole(tmp_path, trained, monkeypatch, at):
    checkpoint.save(tmp_path, 1, *trained())

    class PowerCut(BaseException):
        pass

    def cut(*_):
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(f"knowhue.training.checkpoint.{at}", cut)
        with pytest.raises(PowerCut):
            checkpoint.save(tmp_path, 2, *trained())
    assert checkpoint.restore(tmp_path, *trained()) == 1
    checkpoint.save(tmp_path, 2, *trained())
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-0002"]


def test_full_disk_is_said(tmp_path, trained, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("knowhue.training.checkpoint.torch.save", full)
    with pytest.raises(RunError, match=r"No space left on device.*Free some space"):
        checkpoint.save(tmp_path, 1, *trained())


def test_other_version_is_said(tmp_path, trained, monkeypatch):
    checkpoint.save(tmp_path, 1, *trained())
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    with pytest.raises(RunError, match=r"another version of knowhue. Remove"):
        checkpoint.restore(tmp_path, *trained())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("optimizers.pt", None),
        ("layer.safetensors", None),
        ("optimizers.pt", b"half"),
        ("layer.safetensors", b"half"),
        ("optimizers.pt", b""),
        ("layer.safetensors", b""),
    ],
)
def test_damaged_state_is_said(tmp_path, trained, name, content):
    checkpoint.save(tmp_path, 1, *trained())
    path = tmp_path / "epoch-0001" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(RunError, match=r"is damaged: .*Remove"):
        checkpoint.restore(tmp_path, *trained())


def test_state_of_another_shape_is_said(tmp_path, trained):
    checkpoint.save(tmp_path, 1, *trained())
    _, optimizers = trained()
    with pytest.raises(RunError, match="is damaged"):
        checkpoint.restore(tmp_path, {"layer": nn.Linear(5, 2)}, optimizers)
