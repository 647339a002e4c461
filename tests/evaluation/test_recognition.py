"""A linear probe trained on true-colour images and applied to colourings."""

import numpy as np
import pytest
import torch

from knowhue.evaluation.recognition import Probe, fit_probe, fitted_images, recognised
from knowhue.storage import read_arrays, write_arrays


@pytest.fixture
def blobs():
    """Three clouds in five dimensions that overlap."""
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    return generator.normal(size=(90, 5)) + 1.5 * np.eye(3, 5)[labels], labels


def test_far_blobs_are_all_told_apart(blobs):
    features, labels = blobs[0] + 20 * np.eye(3, 5)[blobs[1]], blobs[1]
    found = recognised(fit_probe(features, labels, 3), features, labels)
    assert found == {"accuracy": 1.0, "balanced_accuracy": 1.0, "labelled": 90}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
def test_torch_finds_the_same_probe(blobs, penalty, classes):
    """Another optimiser on the textbook formula."""
    features, labels = (each[blobs[1] < classes] for each in blobs)
    probe = fit_probe(features, labels, classes, penalty)
    x = torch.from_numpy((features - features.mean(0)) / features.std(0))
    weight, bias = (
        torch.zeros(*shape, dtype=torch.float64, requires_grad=True) for shape in ((5, classes), (classes,))
    )
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, torch.from_numpy(labels))
        loss = loss + penalty * weight.square().sum() / (2 * len(x))
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(probe.weight, weight.detach().numpy(), atol=1e-4)


def test_of_very_many_images_a_sample_with_every_class_is_fitted():
    generator = np.random.default_rng(0)
    labels = np.append(generator.choice([-1, 0, 1, 2], 4000, p=[0.1, 0.6, 0.29, 0.01]), 3)
    chosen = fitted_images(labels, 500)
    assert len(chosen) == len(set(chosen.tolist())) == 500
    assert (np.diff(chosen) > 0).all()
    assert set(labels[chosen].tolist()) == {0, 1, 2, 3}  # one of them has a single image
    np.testing.assert_array_equal(chosen, fitted_images(labels, 500))
    np.testing.assert_allclose(np.bincount(labels[chosen])[:2] / 500, [0.667, 0.322], atol=0.06)
    # few are fitted whole, as they always were
    np.testing.assert_array_equal(fitted_images(labels, 4001), np.flatnonzero(labels >= 0))
    assert set(labels[fitted_images(labels, 2)].tolist()) == {0, 1, 2, 3}


def test_units_of_the_features_do_not_count(blobs):
    features, labels = blobs
    other = features * np.array([1.0, 100.0, 0.01, 1.0, 5.0]) + 7
    here, there = fit_probe(features, labels, 3), fit_probe(other, labels, 3)
    np.testing.assert_array_equal(here.predict(features), there.predict(other))


def test_unknown_labels_and_the_order_of_images_do_not_count(blobs):
    features, labels = blobs
    shuffled = np.random.default_rng(2).permutation(90)
    more = np.vstack((features, 1e3 * np.ones((4, 5))))[np.r_[shuffled, 90:94]]
    probe = fit_probe(more, np.r_[labels, -np.ones(4, np.int64)][np.r_[shuffled, 90:94]], 3)
    np.testing.assert_allclose(probe.weight, fit_probe(features, labels, 3).weight, atol=1e-4)
    found = recognised(probe, more, np.full(94, -1))
    assert found == {"accuracy": None, "balanced_accuracy": None, "labelled": 0}


def test_a_feature_that_never_varies_is_harmless(blobs):
    features = np.hstack((blobs[0], np.full((90, 1), 3.0)))
    assert np.isfinite(fit_probe(features, blobs[1], 3).weight).all()


def test_a_kept_probe_answers_alike(blobs, tmp_path):
    probe = fit_probe(*blobs, classes=3)
    write_arrays(tmp_path / "probe.npz", probe._asdict())
    kept = Probe(**read_arrays(tmp_path / "probe.npz", sealed=True))
    np.testing.assert_array_equal(kept.predict(blobs[0]), probe.predict(blobs[0]))


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_nothing_pulls_at_the_solution(blobs, penalty):
    """The optimality conditions by the textbook formula, with classes of unequal size; the bias is free."""
    features, labels = blobs[0][:70], np.where(np.arange(70) < 20, 0, blobs[1][:70])
    probe = fit_probe(features, labels, 3, penalty)
    x = (features - features.mean(0)) / features.std(0)
    odds = np.exp(x @ probe.weight + probe.bias)
    excess = odds / odds.sum(1, keepdims=True) - np.eye(3)[labels]
    np.testing.assert_allclose(x.T @ excess + penalty * probe.weight, 0, atol=1e-4)
    np.testing.assert_allclose(excess.sum(0), 0, atol=1e-4)


def test_the_order_of_training_images_leaves_answers(blobs):
    features, labels = blobs
    shuffled = np.random.default_rng(3).permutation(90)
    asked = np.random.default_rng(4).normal(size=(200, 5))
    here, there = fit_probe(features, labels, 3), fit_probe(features[shuffled], labels[shuffled], 3)
    np.testing.assert_array_equal(here.predict(asked), there.predict(asked))


def test_classes_weigh_alike_in_balanced_accuracy_and_unknown_images_do_not():
    """A probe of what is above 10: 3 of 4 right in one class, 0 of 1 in the other, two images unknown."""
    probe = Probe(np.zeros(1), np.ones(1), np.array([[-1.0, 1.0]]), np.array([20.0, 0.0]))
    features = np.array([[9.0], [8.0], [7.0], [14.0], [5.0], [16.0], [3.0]])
    found = recognised(probe, features, np.array([0, 0, 0, 0, 1, -1, -1]))
    assert found == {"accuracy": 0.6, "balanced_accuracy": 0.375, "labelled": 5}
