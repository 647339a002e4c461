"""Scores by networks: features, LPIPS, distances and recognition; caching, and missing networks."""

import json
import weakref

import numpy as np
import pytest
import torch
from score_folders import colourings, true_images, write_images

from knowhue.errors import ConfigError
from knowhue.evaluation.features import (
    LPIPS,
    ImageNetwork,
    Unavailable,
    frechet,
    kernel_distance,
)
from knowhue.scoring import networks as module
from knowhue.scoring import parts
from knowhue.scoring.files import to_json
from knowhue.scoring.networks import (
    ScoreNetworks,
    open_scorers,
    run_networks,
)
from knowhue.scoring.page import render
from knowhue.scoring.pairing import ALWAYS, GRAY, TRUTH, pair
from knowhue.scoring.parts import measure_rows
from knowhue.scoring.protocols import PROTOCOLS, NetworkOptions
from knowhue.scoring.table import make_scores

DEEP = PROTOCOLS["original"]


def means(rgb):
    """Six features: mean and spread of each channel."""
    return torch.cat((rgb.mean((2, 3)), rgb.std((2, 3))), 1).float()


def fake(asked="lite0,lpips", recognised=False):
    features = {
        "lite0": ImageNetwork(means, {"network": "means", "weights": "0123"}),
        "inception": Unavailable("not asked"),
    }
    lpips = ImageNetwork(lambda one, two: (one - two).abs().mean((1, 2, 3)), {"weights": "4567"})
    return ScoreNetworks(asked, features | {LPIPS: lpips}, recognised)


@pytest.fixture
def asked(folders, tmp_path):
    pairs = pair(folders.truth, [str(folders.ours), str(folders.theirs)])
    measured = measure_rows(pairs, DEEP, tmp_path / "cache", 1)
    return pairs, measured, run_networks(pairs, DEEP, measured, fake(), None, tmp_path / "cache")


def tensors(images):
    return (
        torch.from_numpy(np.stack([images[name] for name in sorted(images)])).permute(0, 3, 1, 2).double()
        / 255
    )


def test_distances_and_lpips_are_those_of_the_images_themselves(asked):
    pairs, measured, found = asked
    true = true_images()
    made = colourings(true, 0.8)
    both = tensors(made), tensors(true)
    features = [means(each).numpy() for each in both]
    assert set(found.values) == {"ours", "theirs", *ALWAYS}
    assert found.values["ours"]["fd_lite0"] == pytest.approx(frechet(*features), rel=1e-4)
    assert found.values["ours"]["kd_lite0"] == pytest.approx(kernel_distance(*features), abs=1e-6)
    assert found.values[TRUTH]["fd_lite0"] == pytest.approx(0, abs=1e-6)
    expected = (both[0] - both[1]).abs().mean((1, 2, 3))
    np.testing.assert_allclose(found.columns["ours"][LPIPS], expected, rtol=1e-5)
    scores = make_scores(pairs, DEEP, measured, None, found)
    assert scores.values["ours"][LPIPS] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert scores.values[GRAY]["fd_lite0"] > scores.values["ours"]["fd_lite0"]
    assert "fid" not in scores.measures
    assert {each.measure for each in scores.differences} >= {LPIPS}


def test_numbers_are_quoted_with_their_weights(asked):
    about = asked[2].about
    assert (about["asked"], about[LPIPS]["weights"], about["fd_lite0"]["weights"]) == (
        "lite0,lpips",
        "4567",
        "0123",
    )
    assert "fewer than 2048" in about["fd_lite0"]["warning"]


def test_what_was_asked_is_not_asked_again_but_of_another_network(asked, folders, tmp_path, monkeypatch):
    pairs, measured, first = asked
    calls = []
    ask = module._run_network
    monkeypatch.setattr(module, "_run_network", lambda *given: calls.append(1) or ask(*given))
    again = run_networks(pairs, DEEP, measured, fake(), None, tmp_path / "cache")
    assert calls == []
    assert again[1:] == first[1:]
    other = fake()
    other.networks["lite0"].provenance["weights"] = "89ab"
    run_networks(pairs, DEEP, measured, other, None, tmp_path / "cache")
    assert len(calls) == 6 * 7  # the other network's answers alone
    calls.clear()
    with monkeypatch.context() as patch:  # another version of what resizes images for them
        patch.setattr(module, "TOOLS", {"timm": "0"})
        run_networks(pairs, DEEP, measured, other, None, tmp_path / "cache")
    assert len(calls) >= 6 * 7
    calls.clear()
    run_networks(pairs, DEEP, measured, fake(), None, tmp_path / "cache")
    fewer = fake("lite0")
    del fewer.networks[LPIPS]
    run_networks(pairs, DEEP, measured, fewer, None, tmp_path / "cache")
    assert calls == []
    for kept in (tmp_path / "cache").rglob("*.npz"):
        kept.write_bytes(b"")
    assert run_networks(pairs, DEEP, measured, fake(), None, tmp_path / "cache")[1:] == first[1:]


def test_the_pixels_of_one_image_are_held_at_a_time(asked, tmp_path, monkeypatch):
    pairs, measured, _ = asked
    shown, held = [], []
    row_pixels, ask = parts.row_pixels, module._run_network

    def watched(*given):
        for truth, samples in row_pixels(*given):
            shown.extend(map(weakref.ref, (truth, *samples)))
            yield truth, samples

    def counting(*given):
        held.append(sum(each() is not None for each in shown))
        return ask(*given)

    monkeypatch.setattr(parts, "row_pixels", watched)
    monkeypatch.setattr(module, "_run_network", counting)
    run_networks(pairs, DEEP, measured, fake(), None, tmp_path / "anew")
    assert len(held) == 6 * 7 * 2
    assert max(held) == 2  # a true image and its colouring


def same_answers(found, expected):
    for row, columns in expected.columns.items():
        assert {name: each.tobytes() for name, each in found.columns[row].items()} == {
            name: each.tobytes() for name, each in columns.items()
        }
    assert found[1:] == expected[1:]


def test_parts_change_no_bit_of_an_answer(asked, tmp_path, monkeypatch):
    pairs, measured, expected = asked
    monkeypatch.setattr(parts, "PART_IMAGES", 1)
    same_answers(run_networks(pairs, DEEP, measured, fake(), None, tmp_path / "parts"), expected)


def test_ended_and_resumed_is_uninterrupted(asked, tmp_path, monkeypatch):
    pairs, measured, expected = asked
    monkeypatch.setattr(parts, "PART_IMAGES", 2)
    kept, done = parts.write_arrays, []

    def write_arrays(*given):
        if len(done) == 9:
            raise KeyboardInterrupt
        done.append(1)
        return kept(*given)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "write_arrays", write_arrays)
        with pytest.raises(KeyboardInterrupt):
            run_networks(pairs, DEEP, measured, fake(), None, tmp_path / "ended")
    assert len(list((tmp_path / "ended").rglob("*.npz"))) == 9
    same_answers(run_networks(pairs, DEEP, measured, fake(), None, tmp_path / "ended"), expected)


def test_of_several_samples_lpips_is_the_mean_and_the_best_is_kept(tmp_path):
    true = true_images(3, 1)
    truth = write_images(tmp_path / "truth", true)
    made = [colourings(true, share, seed) for share, seed in ((0.2, 1), (0.9, 2))]
    for number, images in enumerate(made):
        write_images(tmp_path / f"many/sample-{number}", images)
    pairs = pair(truth, [str(tmp_path / "many")])
    measured = measure_rows(pairs, DEEP, tmp_path / "cache", 1)
    found = run_networks(pairs, DEEP, measured, fake(), None, tmp_path / "cache").columns["many"]
    each = np.stack([(tensors(images) - tensors(true)).abs().mean((1, 2, 3)).numpy() for images in made])
    np.testing.assert_allclose(found[LPIPS], each.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[f"best_{LPIPS}"], each.min(0), rtol=1e-5)
    between = (tensors(made[0]) - tensors(made[1])).abs().mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(found["diversity_lpips"], between, rtol=1e-5)


def test_distances_of_enough_images_have_intervals_on_the_page_and_in_the_file(tmp_path):
    true = true_images(24, 1)
    made = {"truth": true, "ours": colourings(true, 0.8), "theirs": colourings(true, 0.4, seed=50)}
    truth, *systems = [write_images(tmp_path / name, each) for name, each in made.items()]
    pairs = pair(truth, [str(each) for each in systems])
    measured = measure_rows(pairs, DEEP, tmp_path / "cache", 1)
    found = run_networks(pairs, DEEP, measured, fake(), "theirs", tmp_path / "cache")
    scores = make_scores(pairs, DEEP, measured, "theirs", found)
    keys = [(each.system, each.minus, each.measure) for each in scores.distances]
    names = ("fd_lite0", "kd_lite0")
    assert sorted(keys[:4], key=lambda key: key[2]) == [
        (*key, name) for name in names for key in (("ours", None), ("ours", "theirs"))
    ]
    assert keys[4:] == [("theirs", None, name) for name in names]
    for each in scores.distances:
        low, high = each.interval
        assert low < each.estimate < high
        assert (each.p is None) == (each.minus is None)
    gap = next(each for each in scores.distances if each.minus)
    values = [found.values[name]["fd_lite0"] for name in ("ours", "theirs")]
    assert gap.estimate == pytest.approx(values[0] - values[1], rel=0.5)
    assert gap.interval[1] < 0  # the paler ones are farther, whatever images are left out
    page = render(scores, "")
    assert "ours − theirs" in page.partition("<h2>Distances of sets")[2]
    assert json.loads(json.dumps(to_json(scores)))["distances"][0]["interval"] == list(
        scores.distances[0].interval
    )
    assert [note for note in scores.notes if "mostly bias" in note] == [
        "FD, Lite0: 24 images are fewer than 2048: mostly bias; compare only with rows of the same sample sizes"
    ]


def test_the_page_quotes_networks(asked):
    pairs, measured, found = asked
    scores = make_scores(pairs, DEEP, measured, None, found)
    page = render(scores, "")
    assert "weights: 0123" in page
    assert "As sets of images" in page


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("lite", "Did you mean `lite0`?"),
        ("recognition", "`class0` with 3"),
        ("lpips", "`--networks lpips` should be of networks that can be opened. lpips: not computed"),
    ],
)
def test_what_cannot_be_said_is_refused_before_work(folders, tmp_path, names, said):
    pairs = pair(folders.truth, [str(folders.ours)])
    (tmp_path / "none.pth").write_bytes(b"")
    with pytest.raises(ConfigError) as refused:
        open_scorers(NetworkOptions(names, lpips_weights=tmp_path / "none.pth"), pairs, "ciede2000")
    assert said in str(refused.value)
    assert len(refused.value.args) == 1


def test_recognition_opens_the_network_whose_features_it_needs(tmp_path):
    truth = write_images(tmp_path / "truth", true_images(10, 2))
    made = write_images(tmp_path / "made", colourings(true_images(10, 2), 0.5))
    found = open_scorers(NetworkOptions("recognition"), pair(truth, [str(made)]), "ciede2000")
    assert (list(found.opened), found.has_probe) == (["lite0"], True)
