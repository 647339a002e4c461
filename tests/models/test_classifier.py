"""Heads from features to class: where attention starts, and what it may and may not depend on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from knowhue.models.classifier import CLASSIFIERS, AttentionClassifier, Classifier
from knowhue.randomness import initialised_by


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(kind, channels=16, classes=3):
    with initialised_by(0, "class-head"):
        return CLASSIFIERS[kind](channels, classes)


def trained(channels=16):
    """An attention head with every parameter away from its start."""
    head = make("attention", channels)
    for seed, parameter in enumerate(head.parameters()):
        parameter.data = noise(*parameter.shape, seed=seed)
    return head


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (8, 8)])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_logits_of_maps_of_any_size(kind, size):
    logits = make(kind)((noise(2, 4, 16, 16), noise(2, 16, *size)))
    assert logits.shape == (2, 3)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_the_linear_head_keeps_its_names():
    assert list(make("linear").state_dict()) == ["linear.weight", "linear.bias"]
    assert isinstance(make("linear"), Classifier)


def test_attention_starts_at_the_linear_heads_answer():
    maps = (noise(2, 16, 3, 4),)
    assert torch.equal(make("attention").linear.weight, make("linear").linear.weight)
    torch.testing.assert_close(make("attention")(maps), make("linear")(maps))


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_order_of_positions_does_not_matter(kind):
    head = trained() if kind == "attention" else make(kind)
    maps = noise(2, 16, 3, 4)
    mixed = maps.flatten(2)[..., torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(head((maps,)), head((mixed.unflatten(2, (4, 3)),)), rtol=1e-4, atol=1e-4)


def test_equal_positions_count_as_one():
    head, one = trained(), noise(2, 16, 1, 1)
    torch.testing.assert_close(head((one,)), head((one.expand(-1, -1, 4, 4),)), rtol=1e-4, atol=1e-4)


def test_an_image_does_not_depend_on_its_batch():
    head, maps = trained().train(), noise(3, 16, 3, 4)
    torch.testing.assert_close(head((maps,))[:1], head((maps[:1],)), rtol=1e-4, atol=1e-4)


def test_every_parameter_learns_once_the_last_is_not_zero():
    head = trained()
    head((noise(2, 16, 3, 4),)).square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("channels", "heads"), [(16, 8), (12, 4), (10, 2), (7, 1), (512, 8), (320, 8)])
def test_heads_divide_the_channels(channels, heads):
    assert make("attention", channels).heads == heads


def test_it_is_torchs_attention_with_one_fixed_query():
    head, maps = trained(), noise(2, 16, 3, 4)
    theirs = nn.MultiheadAttention(16, head.heads, batch_first=True)
    width = 16 // head.heads
    query, key = torch.zeros(16), torch.zeros(16, 16)
    query[::width] = width**0.5  # undoes their scale; each head reads the first of its channels
    key[::width] = head.question.weight.data
    theirs.in_proj_weight.data = torch.cat((torch.zeros(16, 16), key, head.value.weight.data))
    theirs.in_proj_bias.data = torch.cat((query, torch.zeros(16), head.value.bias.data))
    theirs.out_proj.load_state_dict(head.out.state_dict())
    positions = maps.flatten(2).mT
    seen = head.norm(positions)
    found, _ = theirs(torch.zeros(2, 1, 16), seen, seen)
    expected = head.linear(positions.mean(1) + found[:, 0])
    torch.testing.assert_close(head((maps,)), expected, rtol=1e-4, atol=1e-4)


def marked(count, seed):
    """Maps in which the one marked position of 16 says the class, and the others say anything."""
    maps = noise(count, 8, 4, 4, seed=seed)
    label = (noise(count, seed=seed + 1) > 0).long()
    maps[:, 0] = maps[:, 0].sign()
    maps[:, 1] = 0
    maps[:, 0, 1, 2] = 2.0 * label - 1
    maps[:, 1, 1, 2] = 3
    return (maps,), label


def test_attention_finds_what_the_mean_drowns():
    right = {}
    for kind in CLASSIFIERS:
        head = make(kind, 8, 2)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
        maps, label = marked(256, seed=0)
        for _ in range(120):
            optimizer.zero_grad()
            F.cross_entropy(head(maps), label).backward()
            optimizer.step()
        maps, label = marked(256, seed=5)
        right[kind] = (head(maps).argmax(1) == label).float().mean().item()
    assert right["linear"] < 0.8
    assert right["attention"] > 0.9


def test_the_table_makes_what_it_names():
    assert isinstance(make("attention"), AttentionClassifier)
    assert list(CLASSIFIERS) == ["linear", "attention"]
