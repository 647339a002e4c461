"""The training engine: device, precision, processes, and the description of the machine."""

import pytest
import torch

from knowhue.errors import ConfigError
from knowhue.training.engine import Engine, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_precision_asked_for_is_given(tiny, wanted):
    assert resolve_precision(wanted, CPU) == wanted
    engine = Engine(tiny(training__precision=wanted).training)
    with engine.autocast():
        product = torch.ones(2, 2, device=engine.device) @ torch.ones(2, 2, device=engine.device)
    assert product.dtype == getattr(torch, wanted)


@pytest.mark.parametrize(("has_it", "resolved"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_what_the_processor_multiplies(monkeypatch, has_it, resolved):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    assert resolve_precision("auto", CPU) == resolved


def test_one_process_averages_and_gathers_nothing_away(tiny):
    engine = Engine(tiny().training)
    assert engine.average({}) == {}
    assert engine.average({"a": torch.tensor(1.5), "b": torch.tensor(-2.0)}) == {"a": 1.5, "b": -2.0}
    assert engine.gather([{"index": 1}]) == [{"index": 1}]
    assert (engine.is_main, engine.share.rank, engine.share.world) == (True, 0, 1)


def test_batch_that_processes_cannot_share_is_refused(tiny, monkeypatch):
    monkeypatch.setattr("knowhue.training.engine.Accelerator.num_processes", 3)
    with pytest.raises(ConfigError, match=r"multiple of the 3 processes\. Found `training\.batch_size = 4`"):
        Engine(tiny(training__batch_size=4).training)


def test_machine_is_described(tiny):
    environment = Engine(tiny().training).environment()
    assert environment["torch"] == torch.__version__
    assert (environment["precision"], environment["processes"]) == ("float32", 1)
