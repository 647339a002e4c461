"""The A/A gate passes as the arms are, and fails where they would share more than they should."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from knowhue import cells
from knowhue.cells import check_gate
from knowhue.errors import RunError
from knowhue.models.heads import Classifier, Decoder
from knowhue.storage import read_json
from knowhue.training import golden


@pytest.fixture
def tiny(tiny):
    """On the real encoder: how its arms round is what is tried."""
    return partial(tiny, encoder={"name": "tf_efficientnet_lite0"})


PARTS = ("heads", "finetune_colour", "finetune_class")


def differ(found):
    return {part for part in PARTS if found[part]["differ"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"training__precision": "bfloat16"},
        {"colour__method": "gan", "colour__gan_loss": "hinge"},
        {"colour__method": "feedforward", "colour__loss": "classification"},
        {"tasks__weighting": "gradnorm", "supervision__labelled_share": 0.5},
    ],
)
def test_what_arms_share_agrees_bit_for_bit_in_both_phases(tiny, make_work, changes):
    config = tiny(seed=4, **changes)
    work = make_work(config)
    found = check_gate(work, config)
    assert differ(found) == set()
    counts = [found[part]["tensors"] for part in PARTS]
    assert counts[1] > 100 < counts[2]  # the encoder is among them
    assert read_json(work.root / "gate" / "seed-4.json") == found


def test_the_default_encoder_rounds_alike_beside_a_class_head(tiny, make_work):
    # what `make study` trains; a gradient that lies otherwise in memory takes kernels that round otherwise
    encoder = {"name": "tf_efficientnet_lite0", "weights": "package"}
    config = tiny(
        training__precision="bfloat16", encoder=encoder, images__size_px=64, training__batch_size=32
    )
    assert differ(check_gate(make_work(config, count=96, size_px=64), config)) == set()


def test_a_gate_is_tried_once_for_what_it_proved(tiny, make_work, monkeypatch):
    work = make_work(tiny())
    first = check_gate(work, tiny())
    monkeypatch.setattr(cells, "_train", lambda *_: pytest.fail("tried again"))
    assert check_gate(work, tiny()) == first


def test_a_gate_that_is_damaged_is_tried_again_and_one_that_cannot_be_read_stays(
    tiny, make_work, monkeypatch
):
    work = make_work(tiny())
    path, tried = work.root / "gate" / "seed-0.json", []
    monkeypatch.setattr(cells, "_try", lambda *_: tried.append(_) or {})
    check_gate(work, tiny())
    path.write_text("{")
    check_gate(work, tiny())
    assert len(tried) == 2
    path.unlink()
    path.symlink_to("/proc/self/mem")  # whose beginning is an input/output error
    with pytest.raises(RunError, match=r"Cannot read .*seed-0\.json`"):
        check_gate(work, tiny())


@pytest.mark.parametrize("change", ["settings", "images", "machine"])
def test_a_gate_is_not_taken_for_what_it_did_not_prove(tiny, make_work, monkeypatch, change):
    monkeypatch.setattr(cells, "_try", lambda *_: {})
    first = check_gate(make_work(tiny()), tiny())
    config = tiny(class__label_smoothing=0.1) if change == "settings" else tiny()
    work = make_work(tiny(), seed=1 if change == "images" else 0)
    if change == "machine":
        monkeypatch.setattr(golden, "_found", {})
        monkeypatch.setattr(golden, "_train", lambda _: "another processor")
    again = check_gate(work, config)
    assert again["proved"] != first["proved"]
    assert read_json(work.root / "gate" / "seed-0.json") == again


def test_gate_notices_what_couples_the_heads(tiny, make_work, monkeypatch):
    """Clipping by the norm over both heads is what breaks the equality in practice."""
    step = cells.train_step

    def clipped(state, batch):
        losses = step(state, batch)
        parameters = [p for p in state.model.parameters() if p.grad is not None]
        norm = sum(p.grad.square().sum() for p in parameters).sqrt()
        with torch.no_grad():
            for p in parameters:
                p.sub_(1e-3 * p.grad / norm)
        return losses

    monkeypatch.setattr(cells, "train_step", clipped)
    found = check_gate(make_work(tiny()), tiny())
    assert "class.linear.weight" in found["heads"]["differ"]


class DrawingClassifier(Classifier):
    """Draws a number that nobody needs: all later draws of its arm are others."""

    def forward(self, pyramid):
        torch.rand(1)
        return super().forward(pyramid)


def test_gate_notices_a_random_draw_that_one_arm_has_more(tiny, make_work, monkeypatch):
    forward = Decoder.forward
    monkeypatch.setattr(Decoder, "forward", lambda self, pyramid: forward(self, _dropped(pyramid)))
    config = tiny()
    assert differ(check_gate(make_work(config, "even"), config)) == set()
    monkeypatch.setitem(gate_classifiers(), "linear", DrawingClassifier)
    found = check_gate(make_work(config, "uneven"), config)
    assert "finetune_colour" in differ(found)
    assert any(name.startswith("encoder.") for name in found["finetune_colour"]["differ"])


def _dropped(pyramid):
    return tuple(F.dropout(each, 0.2) for each in pyramid)


def gate_classifiers():
    from knowhue.models.multitask import CLASSIFIERS

    return CLASSIFIERS


def test_gate_notices_an_encoder_that_moves_with_its_batch_statistics_in_one_arm(
    tiny, make_work, monkeypatch
):
    """What only fine-tuning shows: the frozen phase alone would pass."""
    make = cells.make_train_state

    def moving(engine, networks, config, phase):
        if phase == "finetune" and len(config.tasks.names) > 1:
            norm = next(m for m in networks.model.encoder.modules() if isinstance(m, nn.BatchNorm2d))
            norm.running_mean.add_(0.01)
        return make(engine, networks, config, phase)

    monkeypatch.setattr(cells, "make_train_state", moving)
    found = check_gate(make_work(tiny()), tiny())
    assert differ(found) == {"finetune_colour", "finetune_class"}
