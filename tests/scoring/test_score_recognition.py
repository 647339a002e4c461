"""Recognition of colourings by a probe and by classifiers of timm; McNemar's test between systems."""

import re

import numpy as np
import pytest
import timm
import torch
from scipy import stats
from score_folders import colourings, true_images, write_images
from tiny_classifier import NAME, PREPROCESSING, network, preprocess, write_network

from knowhue.errors import ConfigError
from knowhue.evaluation.recognition import open_classifier
from knowhue.images.image import Pixels
from knowhue.report.text import p_text
from knowhue.scoring.files import require_same_networks, to_json
from knowhue.scoring.networks import (
    CrossValidatedProbe,
    open_folder_classifier,
    open_scorers,
    run_networks,
)
from knowhue.scoring.page import render, to_latex, with_ends
from knowhue.scoring.pairing import GRAY, TRUTH, Pairs, Stored, pair
from knowhue.scoring.parts import measure_rows
from knowhue.scoring.protocols import PROTOCOLS, NetworkOptions
from knowhue.scoring.table import make_scores, paired_differences
from knowhue.statistics.crossed import variance_of_two_more
from knowhue.storage import write_json

DEEP = PROTOCOLS["original"]


def in_folders(folders, tmp_path) -> Pairs:
    """Pairs of files that nobody opens."""
    names = [f"{folder}/{number}" for number, folder in enumerate(folders)]
    stored = Stored(tmp_path / "x", "0", "PNG")
    clusters = tuple(folders) if len(set(folders)) > 1 else ()
    return Pairs({name: stored for name in names}, (), clusters, ())


def test_a_probe_recognises_what_it_was_not_fitted_to_and_nothing_in_noise(tmp_path):
    pairs = in_folders([f"class{number % 4}" for number in range(200)], tmp_path)
    random, labels = np.random.default_rng(0), np.arange(200) % 4
    true = np.eye(4)[labels] * 6 + random.normal(size=(200, 4))
    noise = random.normal(size=(200, 30))
    probe = CrossValidatedProbe(pairs, true)
    assert probe.recognised(true).mean() > 0.95
    assert probe.recognised(true.mean() + random.normal(size=(200, 4))).mean() < 0.5
    # a probe that had seen these images would know many of them
    assert CrossValidatedProbe(pairs, noise).recognised(noise).mean() < 0.4


def noise(side: tuple[int, int], seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (*side, 3)).astype(np.uint8)


@pytest.mark.parametrize("side", [(160, 160), (37, 52), (300, 171)])
@pytest.mark.parametrize("name", PREPROCESSING)
def test_a_classifier_sees_images_as_timm_shows_them(tmp_path, side, name):
    """At the size at which it is tested, which may be another than it was trained at."""
    found = open_classifier(f"timm:{name}={write_network(tmp_path / 'net.safetensors', 9, name=name)}")
    own, seen = network(9, name=name), set()
    for seed in range(4):
        pixels = noise(side, seed)
        scores = own(preprocess(pixels, name))[0]
        expected = scores.topk(5).indices.tolist()
        assert found.predict(pixels).tolist() == expected
        assert found.predict(pixels.astype(np.uint16) * 257).tolist() == expected
        seen.add(expected[0])
    assert (found.name, found.outputs, found.synsets) == (f"timm:{name}", 9, ())
    sides = f"{PREPROCESSING[name].side} x {PREPROCESSING[name].side}"
    assert found.provenance["input"].startswith(
        f"the pixels that the protocol compares, in 8 bits: {sides} of a"
    )


def test_imagenets_classes_are_known_by_their_number(tmp_path):
    found = open_classifier("timm:tf_efficientnet_lite0=package")
    assert (found.outputs, len(found.synsets), found.synsets[281]) == (1000, 1000, "n02123045")
    few = open_classifier(f"timm:{NAME}={write_network(tmp_path / 'net.safetensors', 3)}")
    assert len(few.predict(noise((20, 20), 0))) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("resnet18", "`--classifier` should be timm:NAME, timm:NAME=FILE"),
        ("timm:", "`--classifier` should be timm:NAME"),
        ("timm:resnt18", "Did you mean `resnet18`?"),
        ("timm:resnet18=package", "only of tf_efficientnet_lite0"),
        ("timm:resnet18=none.pth", "`none.pth` should be a .safetensors or .pth file"),
        ("timm:resnet18=net.safetensors", "The weights should be those of `resnet18`. Found others"),
        ("timm:resnet18.none=net.safetensors", "timm has no weights of that name for `resnet18`"),
        (f"timm:{NAME}=headless.pth", "should hold the last layer"),
    ],
)
def test_what_is_no_classifier_is_refused_in_one_line(tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "net.safetensors", 4)
    torch.save({"conv.weight": torch.zeros(1)}, "headless.pth")
    with pytest.raises(ConfigError) as refused:
        open_classifier(given)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_several_outputs_may_stand_for_a_folder_and_some_for_none(tmp_path):
    pairs = in_folders(["cat", "dog", "cat"], tmp_path)
    net = write_network(tmp_path / "net.safetensors", 7)
    classes = tmp_path / "classes.txt"
    classes.write_text("cat\n\ncat\ndog\n\n\n\n")
    judge = open_folder_classifier(f"timm:{NAME}={net}", classes, pairs)
    answers = np.array([[2, 1, 3, 4, 5], [1, 3, 0, 4, 5], [1, 4, 5, 6, 3]])
    found = judge.columns(answers, np.array([[2], [1], [0]]))
    assert {name: each.tolist() for name, each in found.items()} == {
        "top1_agreement": [1, 1, 0],
        "top1_accuracy": [1, 0, 0],
        "top5_accuracy": [1, 1, 0],
    }


def test_of_five_outputs_all_are_the_likeliest_and_nothing_is_said_by_that(tmp_path):
    net = write_network(tmp_path / "net.safetensors", 5)
    (tmp_path / "classes.txt").write_text("cat\ncat\ndog\n\n\n")
    judge = open_folder_classifier(
        f"timm:{NAME}={net}", tmp_path / "classes.txt", in_folders(["cat", "dog"], tmp_path)
    )
    found = judge.columns(np.array([[0, 1, 2, 3, 4]] * 2), np.array([[0]] * 2))
    assert found.keys() == {"top1_agreement", "top1_accuracy"}


def test_folders_called_by_wordnet_ids_need_no_file(tmp_path):
    pairs = in_folders(["n02123045", "n02085620"], tmp_path)
    judge = open_folder_classifier("timm:tf_efficientnet_lite0=package", None, pairs)
    found = judge.columns(np.array([[281, 0, 1, 2, 3], [281, 151, 1, 2, 3]]), np.array([[281], [151]]))
    assert {name: each.tolist() for name, each in found.items()} == {
        "top1_agreement": [1, 0],
        "top1_accuracy": [1, 0],
        "top5_accuracy": [1, 1],
    }


def test_folders_of_no_class_leave_agreement_alone_and_some_are_refused(tmp_path):
    judge = open_folder_classifier(
        "timm:tf_efficientnet_lite0=package", None, in_folders(["", "", "beach"], tmp_path)
    )
    assert judge.columns(np.array([[3] * 5] * 3), np.array([[3]] * 3)).keys() == {"top1_agreement"}
    assert "no folder of images is called by the WordNet id" in judge.notes[0]
    with pytest.raises(ConfigError, match=r"Found none for beach \(1 in all\): give --classes"):
        open_folder_classifier(
            "timm:tf_efficientnet_lite0=package", None, in_folders(["n02123045", "beach"], tmp_path)
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat\ndog\n", "a line for each of the 4 outputs of timm:test_resnet, empty where"),
        ("cat\ncat\ncat\n\n", "Found none for dog (1 in all)"),
        ("cat\ndgo\ndog\n\n", "Found `dgo` in line 2 of"),
        ("cat\ndgo\ndog\n\n", "Did you mean `dog`? Leave the line of an output empty that stands for none."),
        (None, "`--classes` should be a text file in UTF-8"),
    ],
)
def test_classes_that_do_not_fit_are_refused(tmp_path, text, said):
    net, classes = write_network(tmp_path / "net.safetensors", 4), tmp_path / "classes.txt"
    if text is not None:
        classes.write_text(text)
    with pytest.raises(ConfigError) as refused:
        open_folder_classifier(f"timm:{NAME}={net}", classes, in_folders(["cat", "dog"], tmp_path))
    assert said in str(refused.value)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    true = true_images(24, 4)
    made = {"truth": true, "ours": colourings(true, 0.8), "theirs": colourings(true, 0.1, seed=50)}
    truth, *systems = [write_images(folder / name, each) for name, each in made.items()]
    net = write_network(folder / "net.safetensors", 12)
    (folder / "classes.txt").write_text("\n".join(f"class{number % 4}" for number in range(12)))
    pairs = pair(truth, [str(each) for each in systems])
    wanted = NetworkOptions(classifier=f"timm:{NAME}={net}", classes=folder / "classes.txt")
    opened = open_scorers(wanted, pairs, "top1_accuracy")
    measured = measure_rows(pairs, DEEP, folder / "cache", 1)
    found = run_networks(pairs, DEEP, measured, opened, None, folder / "cache")
    return made, pairs, make_scores(pairs, DEEP, measured, None, found)


def test_shares_are_those_of_the_network_itself(judged):
    made, pairs, scores = judged
    own = network(12)
    tops = {
        name: np.array([own(preprocess(images[image]))[0].argmax().item() for image in pairs.truth])
        for name, images in made.items()
    }
    folders = np.array([int(name[5]) for name in pairs.truth])
    for row, name in ((TRUTH, "truth"), ("ours", "ours"), ("theirs", "theirs")):
        assert scores.columns[row]["top1_accuracy"].tolist() == (tops[name] % 4 == folders).tolist()
        assert scores.columns[row]["top1_agreement"].tolist() == (tops[name] == tops["truth"]).tolist()
    assert 0 < scores.values["theirs"]["top1_agreement"] < 1 == scores.values[TRUTH]["top1_agreement"]
    assert {"top1_accuracy", "top1_agreement"} <= {each.measure for each in scores.differences}
    assert scores.about["classifier"]["classes"].startswith("folders, by a file (")


def test_every_pair_is_tested_and_adjusted_for_all(judged):
    scores = judged[2]
    rows = {("theirs", "ours"), ("ours", GRAY), ("theirs", GRAY)}
    shares = ("top1_accuracy", "top5_accuracy", "top1_agreement")
    assert {(each.first, each.second, each.measure) for each in scores.tests} == {
        (*two, name) for two in rows for name in shares
    }
    for each in scores.tests:
        one, other = (scores.columns[row][each.measure] for row in (each.first, each.second))
        assert (each.only_first, each.only_second) == ((one > other).sum(), (other > one).sum())
        assert each.p_adjusted == min(1, 9 * each.p)
    assert any(each.p < 1 for each in scores.tests)


def test_page_file_and_latex_hold_the_tests(judged):
    scores = judged[2]
    page = render(scores, "")
    table = page.partition("Images recognised in only one of two systems</h2>")[2].partition("</section>")[0]
    found = next(each for each in scores.tests if each.measure == "top1_agreement" and each.second == GRAY)
    assert f"{found.first}, gray" in table
    assert f"{found.only_first} : {found.only_second}" in table
    assert "p adjusted for all 9 tests" in table
    assert "top-1\N{NO-BREAK SPACE}↑" in page
    row = table.partition(f"as the truth: {found.first}, gray")[2].partition("</tr>")[0]
    expected = [f"{found.only_first} : {found.only_second}", p_text(found.p_adjusted)]
    expected += [with_ends(found.difference, found.interval), p_text(found.p_clustered_adjusted)]
    assert re.findall(r"<td[^>]*>\s*(.*?)\s*</td>", row, re.DOTALL)[:4] == expected
    stored = to_json(scores)["mcnemar"][0]
    assert stored == scores.tests[0]._asdict()
    tables = to_latex(scores).split(r"\begin{table}")
    (own,) = [each for each in tables if "McNemar" in each]
    assert r"& first : second & p, exact & difference & p, folders" in own
    assert "over 4 folders" in own


def test_the_interval_of_two_shares_is_over_folders_and_written_out(judged):
    """Liang and Zeger's variance by hand, and two more images that change (Bonett and Price)."""
    _, pairs, scores = judged
    folders = np.array([int(name[5]) for name in pairs.truth])
    for each in scores.tests:
        one, other = (scores.columns[row][each.measure] for row in (each.first, each.second))
        gap, count = one - other, len(pairs.truth)
        sums = np.array([(gap - gap.mean())[folders == folder].sum() for folder in range(4)])
        change = max(abs(gap[folders == folder].sum()) for folder in range(4))
        variance = (sums**2).sum() * 4 / 3 / count**2 + variance_of_two_more(change, count)
        half = stats.t.ppf(1 - 0.05 / 9 / 2, 3) * variance**0.5
        assert each.difference == pytest.approx(gap.mean(), abs=1e-12)
        assert each.interval == pytest.approx((gap.mean() - half, gap.mean() + half))
        p = 2 * stats.t.sf(abs(gap.mean()) / variance**0.5, 3)
        assert (each.p_clustered, each.p_clustered_adjusted) == pytest.approx((p, min(1, 9 * p)))


def test_the_page_says_which_table_an_interval_holds_with(judged):
    """A share that stands in both tables is adjusted for the size of each."""
    _, pairs, scores = judged
    margins = {name: DEEP.margins[name] for name in ("ciede2000", "top1_agreement")}
    protocol = DEEP.model_copy(update={"margins": margins})
    found = paired_differences(pairs, protocol, scores.columns, scores.reference, scores.measures)
    page = " ".join(render(scores._replace(protocol=protocol, differences=found), "").split())
    assert "all 2 intervals of the table of differences hold simultaneously at 95 %" in page
    assert "p adjusted for all 9 tests of this table" in page
    assert "The table of differences is adjusted separately, for its own 2 differences." in page
    assert not re.findall(
        r"[a-z]\.[A-Z][a-z]+", re.sub(r"<pre.*?</pre>|<[^>]+>", "", page)
    )  # sentences stand apart
    (one,) = [each for each in found if each.measure == "top1_agreement"]
    (other,) = [
        each for each in scores.tests if (each.measure, each.second) == ("top1_agreement", scores.reference)
    ]
    assert (one.system, one.estimate) == (other.first, other.difference)
    assert one.interval[1] - one.interval[0] < other.interval[1] - other.interval[0]


def test_captions_name_the_network_of_their_columns(judged):
    scores = judged[2]
    said = f"by {NAME}, weights {scores.about['classifier']['weights'][:12]}."
    tables = to_latex(scores).split(r"\begin{table}")[1:]
    for table in tables:
        cells = re.split(r" & |\n", table.partition(r"\toprule")[2])
        is_named = any(cell.startswith(("top-1", "top-5", "as the truth")) for cell in cells)
        assert (said in table.replace(r"\_", "_")) == is_named


def test_versions_of_what_was_asked_stand_in_the_file(judged):
    made = to_json(judged[2])["made_with"]
    assert (made["timm"], made["torch"]) == (timm.__version__, str(torch.__version__).partition("+")[0])
    assert not {"timm", "torch"} & to_json(judged[2]._replace(about={}))["made_with"].keys()


@pytest.mark.parametrize("part", ["weights", "classes"])
def test_no_table_mixes_the_answers_of_two_classifiers(judged, tmp_path, part):
    path, about = tmp_path / "b.json", judged[2].about
    content = to_json(judged[2])
    write_json(path, content)
    require_same_networks("--beside", [path, path], about)
    require_same_networks("--beside", [path], {})
    content["networks"]["classifier"] = {**about["classifier"], part: "another"}
    write_json(path, content)
    with pytest.raises(
        ConfigError, match=f"should have used `classifier` with the same {part}.* Found another, and"
    ):
        require_same_networks("--beside", [path], about)


def test_a_folder_of_decomposed_letters_is_found_in_a_file_of_classes(tmp_path):
    true = {f"caf\u00e9/{number}": image for number, image in enumerate(true_images(2, 1).values())}
    truth = write_images(tmp_path / "truth", true)
    made = write_images(tmp_path / "made", true)
    (tmp_path / "classes.txt").write_text("\n".join(["cafe\u0301"] * 12), encoding="utf-8")
    net = f"timm:{NAME}={write_network(tmp_path / 'net.safetensors', 12)}"
    judge = open_folder_classifier(net, tmp_path / "classes.txt", pair(truth, [str(made)]))
    assert set(judge.stands_for) == {"caf\u00e9"}


def test_a_measure_that_cannot_be_had_is_no_primary_one(tmp_path):
    truth = write_images(tmp_path / "truth", true_images(4, 2))
    made = write_images(tmp_path / "made", colourings(true_images(4, 2), 0.5))
    wanted = NetworkOptions(classifier="timm:tf_efficientnet_lite0=package")
    with pytest.raises(
        ConfigError, match="`primary = top1_accuracy` of the protocol cannot be measured: no folder"
    ):
        open_scorers(wanted, pair(truth, [str(made)]), "top1_accuracy")
