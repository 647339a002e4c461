"""Named streams: the same name gives the same numbers, and global generators are unchanged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knowhue.randomness import drawing_from, initialised_by, stream, stream_seed

purposes = st.lists(st.text("abc-", min_size=1, max_size=6) | st.integers(0, 99), max_size=3).map(tuple)


@given(st.integers(0, 2**31 - 1), purposes)
def test_seed_fits_and_is_repeatable(seed, purpose):
    assert 0 <= stream_seed(seed, *purpose) < 2**63
    assert stream_seed(seed, *purpose) == stream_seed(seed, *purpose)
    assert stream(seed, *purpose).random() == stream(seed, *purpose).random()


def test_every_part_of_the_name_counts():
    names = [(0, "order", 1), (1, "order", 1), (0, "order", 2), (0, "augmentation", 1), (0, "order")]
    assert len({stream_seed(*name) for name in names}) == len(names)


def test_streams_are_unrelated():
    first, second = stream(0, "order", 1).random(4000), stream(0, "order", 2).random(4000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_streams_stay_the_same_in_every_version():
    # A changed value here means that no study can be resumed.
    assert stream_seed(0, "order", 1) == 4489457307835839548


@pytest.mark.parametrize("in_use", [False, True])
def test_initialising_leaves_the_generators_of_gpus_as_they_are(monkeypatch, in_use):
    """`torch.manual_seed` would seed them all; to ask for the state of one that is not in use would start it."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
    for name in ("manual_seed_all", "manual_seed", "get_rng_state", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: pytest.fail(f"called {name}"))
    with initialised_by(0, "head"):
        drawn = torch.rand(3)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(stream_seed(0, "head"))))


def test_initialising_leaves_the_global_generator_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with initialised_by(0, "head"):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(99)
    with initialised_by(0, "head"):
        assert torch.equal(torch.rand(2), first)


@pytest.mark.parametrize(("kind", "seeds_all"), [("cpu", False), ("mps", True), ("xpu", True)])
def test_draws_on_every_kind_of_device_are_seeded(monkeypatch, kind, seeds_all):
    seeded = []
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    with drawing_from(torch.device(kind), 0, "heads"):
        drawn = torch.rand(3)
    seed = stream_seed(0, "draws", "heads")
    assert seeded == [seed] * seeds_all
    on_cpu = torch.rand(3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(drawn, on_cpu) != seeds_all  # the stand-in seeds nothing
