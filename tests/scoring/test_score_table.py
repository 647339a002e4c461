"""The table of scores: differences, verdicts, warnings, files and the page."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from score_folders import colourings, paler, picture, true_images, write_images

from knowhue.csv_text import from_csv, to_csv
from knowhue.errors import ConfigError, DamagedError
from knowhue.report.latex import fill_latex, tex
from knowhue.scoring.files import (
    compare_json,
    image_rows,
    read_earlier_scores,
    read_score_file,
    shown_value,
    to_json,
)
from knowhue.scoring.measures import MEASURES
from knowhue.scoring.page import render, sentence, to_latex
from knowhue.scoring.pairing import ALWAYS, GRAY, TRUTH, Pairs, Stored, System, pair
from knowhue.scoring.parts import measure_rows
from knowhue.scoring.protocols import MARGINS, PROTOCOLS, Protocol
from knowhue.scoring.table import make_scores, paired_differences, paired_shares
from knowhue.statistics.clustered import Nearness
from knowhue.storage import SEAL, write_json

SMALL = Protocol.model_validate(PROTOCOLS["stretch-256"].model_dump() | {"size_px": 32})


def scored(truth, systems, cache, reference=None, protocol=SMALL):
    pairs = pair(truth, [str(each) for each in systems])
    return make_scores(pairs, protocol, measure_rows(pairs, protocol, cache, 1), reference)


@pytest.fixture
def scores(folders, tmp_path):
    return scored(folders.truth, [folders.ours, folders.theirs], tmp_path / "cache")


def enough(folder, images=20, classes=2):
    """A truth, ours and theirs of as many images as intervals need."""
    true = true_images(images, classes)
    made = {"truth": true, "ours": colourings(true, 0.8), "theirs": colourings(true, 0.4, seed=50)}
    return [write_images(folder / name, each) for name, each in made.items()]


def test_swapping_systems_flips_signs_exactly(tmp_path):
    truth, ours, theirs = enough(tmp_path)
    scores = scored(truth, [ours, theirs], tmp_path / "cache")
    swapped = scored(truth, [theirs, ours], tmp_path / "cache")
    other = {each.measure: each for each in swapped.differences}
    assert len(other) == len(scores.differences) == 7
    flipped = {
        Nearness.NEARER: Nearness.FARTHER, Nearness.FARTHER: Nearness.NEARER,
        Nearness.NEARER_LITTLE: Nearness.FARTHER_LITTLE, Nearness.FARTHER_LITTLE: Nearness.NEARER_LITTLE,
    }  # fmt: skip
    for each in scores.differences:
        back = other[each.measure]
        assert (each.system, back.system) == ("theirs", "ours")
        assert back.estimate == -each.estimate
        assert back.interval == tuple(-end for end in reversed(each.interval))
        assert (back.p, back.p_adjusted, back.word) == (
            each.p,
            each.p_adjusted,
            flipped.get(each.word, each.word),
        )


def test_swapping_systems_flips_tests_of_shares_exactly():
    random = np.random.default_rng(5)
    shares = {"a": 0.4, "b": 0.8, GRAY: 0.5}
    columns = {
        name: {"top1_accuracy": (random.random(40) < share).astype(float)} for name, share in shares.items()
    }
    pairs, columns = made_up(40, columns, tuple(f"folder{number % 7}" for number in range(40)))
    pairs = pairs._replace(systems=pairs.systems[:2])
    ahead = paired_shares(pairs, SMALL, columns, "a")[0]
    back = paired_shares(pairs, SMALL, columns, "b")[0]
    assert (ahead.first, ahead.second, back.first, back.second) == ("b", "a", "a", "b")
    assert (ahead.only_first, ahead.only_second) == (back.only_second, back.only_first)
    assert ahead.only_first != ahead.only_second
    assert (ahead.difference, ahead.interval) == (
        -back.difference,
        tuple(-end for end in reversed(back.interval)),
    )
    assert (ahead.p, ahead.p_clustered) == (back.p, back.p_clustered)


def made_up(images: int, columns: dict[str, dict[str, np.ndarray]], clusters: tuple[str, ...] = ()):
    """Pairs of files that are not there, and values of their images."""
    stored = (Stored(Path("x"), "0", "PNG"),)
    names = [str(number) for number in range(images)]
    systems = tuple(System(name, dict.fromkeys(names, stored)) for name in columns)
    return Pairs(dict.fromkeys(names, stored[0]), systems, clusters, ()), columns


def test_two_systems_that_do_not_differ_are_called_otherwise_at_the_nominal_rate():
    random, wrong, equal = np.random.default_rng(0), 0, 0
    margins = {"ciede2000": 0.25, "psnr_rgb": 0.25}
    protocol = Protocol.model_validate(SMALL.model_dump() | {"margins": margins})
    measures = {name: MEASURES[name] for name in margins}
    # one system's images, their scores split at random between two names: neither is better
    for _ in range(1000):
        both = random.normal(8, 1, (2, 400, 2))
        columns = {
            name: dict(zip(margins, each.T, strict=True)) for name, each in zip("ab", both, strict=True)
        }
        pairs, columns = made_up(400, columns)
        words = [each.word for each in paired_differences(pairs, protocol, columns, "a", measures)]
        wrong += any(word not in (Nearness.AS_NEAR, Nearness.CANNOT_TELL) for word in words)
        equal += words[0] is Nearness.AS_NEAR
    # over both measures together, within four standard errors
    assert wrong / 1000 < 0.05 + 4 * (0.05 * 0.95 / 1000) ** 0.5
    assert equal > 500  # and most are called as near


def test_a_difference_at_the_margin_is_called_as_near_at_most_at_the_nominal_rate():
    random, said = np.random.default_rng(1), 0
    protocol = Protocol.model_validate(SMALL.model_dump() | {"margins": {"ciede2000": 0.25}})
    for _ in range(1000):
        one = random.normal(8, 1, 400)
        columns = {"a": {"ciede2000": one}, "b": {"ciede2000": one + 0.25 + random.normal(0, 1, 400)}}
        pairs, columns = made_up(400, columns)
        (found,) = paired_differences(pairs, protocol, columns, "a", {"ciede2000": MEASURES["ciede2000"]})
        said += found.word is Nearness.AS_NEAR
    assert said / 1000 < 0.05 + 4 * (0.05 * 0.95 / 1000) ** 0.5


def test_a_table_of_differences_at_the_margin_and_none_holds_a_false_claim_at_most_at_the_nominal_rate():
    random, wrong, margin = np.random.default_rng(2), 0, 0.25
    protocol = Protocol.model_validate(SMALL.model_dump() | {"margins": {"ciede2000": margin}})
    names = ["a", "none", *(f"at{number}" for number in range(9))]
    # each system's differences are its own: a is where all others start
    for _ in range(1000):
        own = {name: {"ciede2000": random.normal(margin * ("at" in name), 1, 400)} for name in names[1:]}
        pairs, columns = made_up(400, {"a": {"ciede2000": np.zeros(400)}, **own})
        found = paired_differences(pairs, protocol, columns, "a", {"ciede2000": MEASURES["ciede2000"]})
        words = {each.system: each.word for each in found}
        none = words.pop("none")
        is_wrong = any(word not in (Nearness.FARTHER, Nearness.CANNOT_TELL) for word in words.values())
        wrong += is_wrong or none not in (Nearness.AS_NEAR, Nearness.CANNOT_TELL)
    assert wrong / 1000 < 0.05 + 4 * (0.05 * 0.95 / 1000) ** 0.5


def test_nothing_is_said_of_few_images(tmp_path):
    few = made_up(
        19, {name: {"ciede2000": np.arange(19) / 1e5 + level} for name, level in (("a", 9), ("b", 1))}
    )
    (found,) = paired_differences(few[0], SMALL, few[1], "a", {"ciede2000": MEASURES["ciede2000"]})
    assert (found.word, found.interval, found.p_adjusted) == (Nearness.UNKNOWN, None, 1.0)
    assert found.estimate == pytest.approx(-8)


def test_a_system_is_as_near_as_its_own_copy(tmp_path):
    truth, ours, _ = enough(tmp_path)
    copy = write_images(tmp_path / "copy", colourings(true_images(20), 0.8))
    found = scored(truth, [ours, copy], tmp_path / "cache")
    assert {each.word for each in found.differences} == {Nearness.AS_NEAR}
    same = found.differences[0]
    assert sentence(found, same).startswith("copy and ours score the same on every image")
    alike = same._replace(interval=(-0.01, 0.01))
    assert sentence(found, alike).startswith("copy is as near as ours on images like these")


def test_values_are_means_over_images_and_differences_of_means(scores):
    own, true = scores.columns["theirs"], scores.columns[TRUTH]
    values = scores.values["theirs"]
    for name in MARGINS:
        if name in values:
            assert values[name] == own[name].mean()
    gap = abs(own["colourfulness"].mean() - true["colourfulness"].mean())
    assert values["colourfulness_difference_of_means"] == gap
    assert scores.values[TRUTH]["colourfulness_difference_of_means_absolute"] == 0
    assert 0 < values["ab_auc_balanced"] < 1 == scores.values[TRUTH]["ab_auc_balanced"]


@pytest.mark.parametrize("primary", ["ab_auc", "mean_colourfulness_difference", "psnr_rgb"])
def test_images_that_differ_most_do_so_by_the_primary_measure_whichever_it_is(folders, tmp_path, primary):
    protocol = SMALL.model_copy(update={"primary": primary})
    scores = scored(folders.truth, [folders.ours, folders.theirs], tmp_path / "cache", protocol=protocol)
    ours, theirs = (scores.columns[name][primary] for name in ("ours", "theirs"))
    measure = scores.measures[primary]
    gain = ours - theirs if measure.better == "lower" else theirs - ours
    most = int(np.argmax(np.abs(gain)))
    page = render(scores, "")
    assert all(shown_value(measure, float(column[most])) in page for column in (ours, theirs))


def test_sentences_never_speak_of_help(tmp_path):
    truth, ours, theirs = enough(tmp_path, 24, 6)
    scores = scored(truth, [ours, theirs], tmp_path / "cache")
    for each in scores.differences:
        said = sentence(scores, each)
        assert "help" not in said
        assert "hurt" not in said
    primary = next(each for each in scores.differences if each.measure == "ciede2000")
    assert sentence(scores, primary).startswith(
        "ours is nearer than theirs on images like these, from folders like these: CIEDE2000 +"
    )


def test_notes_tell_of_lightness_gray_and_few_images(tmp_path):
    true = {"a": picture(0), "b": np.full((24, 24, 3), 90, np.uint8)}
    truth = write_images(tmp_path / "truth", true)
    lighter = write_images(tmp_path / "lighter", {name: each // 2 for name, each in true.items()})
    pale = write_images(tmp_path / "pale", {name: paler(each, 0.0) * 0 + 90 for name, each in true.items()})
    notes = " ".join(scored(truth, [lighter, pale], tmp_path / "cache").notes)
    assert "1 of 2 true images are near-gray, colourfulness below 4 (b)" in notes
    assert re.search(
        r"lighter: L\* is not the true image's: it changed by \d+\.\d\d on average, by more than 1 in", notes
    )
    assert "pale: 1 colouring near-gray where the true image is not" in notes
    assert "2 images are too few for intervals (20 are needed)" in notes


def test_gray_photos_that_were_coloured_hide_none_that_were_left_gray(tmp_path):
    gray = np.full((24, 24, 3), 90, np.uint8)
    truth = write_images(tmp_path / "truth", {"a": picture(0), "b": gray})
    swapped = write_images(tmp_path / "swapped", {"a": gray, "b": picture(0)})
    notes = scored(truth, [swapped], tmp_path / "cache").notes
    assert "swapped: 1 colouring near-gray where the true image is not" in notes


def test_a_page_of_few_images_speaks_of_no_interval(scores):
    assert scores.notes[0] == "6 images are too few for intervals (20 are needed)"
    page = render(scores, "")
    assert page.count("too few images to tell") == len(scores.differences) + 1  # and the sentence
    head, _, rest = page.partition("</header>")
    assert "over folders" not in head
    assert "The interval, at" not in rest
    assert "Bonferroni" not in rest
    assert "Fewer than 20 images are too few" in rest


def test_json_is_whole_sealed_and_computed_again_alike(scores, folders, tmp_path):
    path = tmp_path / "score.json"
    write_json(path, to_json(scores))
    found = read_score_file(path)
    again = scored(folders.truth, [folders.ours, folders.theirs], tmp_path / "other")
    assert compare_json(found, to_json(again))[1] == []
    assert {row["protocol"] for row in found["rows"].values()} == {SMALL.digest}
    assert list(found["rows"]) == ["ours", "theirs", *ALWAYS]
    write_images(folders.ours, {"class0/image0": picture(30)})
    anew = scored(folders.truth, [folders.ours, folders.theirs], tmp_path / "other")
    _, changed = compare_json(found, to_json(anew))
    assert any(line.startswith("systems.0.sha256 is stored as ") for line in changed)
    assert any(line.startswith("rows.ours.values.ciede2000 is stored as ") for line in changed)
    assert not any(line.startswith("rows.theirs") for line in changed)


def test_what_is_no_score_is_not_called_damaged(tmp_path):
    """Nobody is to remove it."""
    path = tmp_path / "score.json"
    for other in ({"schema": {"name": "knowhue-study", "version": 1}}, {}):
        write_json(path, other)
        with pytest.raises(
            ConfigError, match=r"a \.json file of `knowhue score`, which carries .*knowhue-score"
        ):
            read_score_file(path)
    path.write_text('{"name": "package"}')
    with pytest.raises(ConfigError, match="which carries null"):
        read_score_file(path)
    with pytest.raises(
        ConfigError, match=r"Found `.*note\.txt`\. Name the \.json file that `knowhue score --out` wrote next"
    ):
        read_score_file(tmp_path / "note.txt")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found.pop("protocol"),
        lambda found: found["protocol"]["settings"].update(geometry="round"),
        lambda found: found["rows"].pop("theirs"),
        lambda found: found["rows"]["ours"].update(values={"psnr_rgb": "high"}),
        lambda found: found.update(networks=[]),
        lambda found: found.update(reference=None),
        lambda found: found.pop("files"),
        lambda found: found.update(files=[1]),
        lambda found: found["networks"].update(classifier=5),
        lambda found: found["networks"].update(classifier={}),
        lambda found: found["networks"].update(lite0=[1]),
    ],
)
def test_a_score_of_another_content_is_damaged(scores, tmp_path, spoil):
    path = tmp_path / "score.json"
    write_json(path, to_json(scores))
    found = json.loads(path.read_text())
    spoil(found)
    for content in (found, {name: each for name, each in found.items() if name != SEAL}):
        path.write_text(json.dumps(content))
        with pytest.raises(DamagedError):
            read_score_file(path)


def test_a_number_of_another_processor_is_no_difference_and_a_count_is():
    stored = {"values": {"ssim_rgb": 0.9, "ciede2000": 12.0}, "images": 10_000_000}
    near = {"values": {"ssim_rgb": 0.9 + 2e-7, "ciede2000": 12.000001}, "images": 10_000_000}
    assert compare_json(stored, near) == (3, [])
    assert compare_json({"d": {"p": 0.0037884}}, {"d": {"p": 0.0037898}}) == (1, [])
    assert len(compare_json({"d": {"p": 0.0037}}, {"d": {"p": 0.0039}})[1]) == 1
    made = {"values": {"ssim_rgb": 0.90001, "ciede2000": 12.0}, "images": 10_000_001}
    assert [line.split()[0] for line in compare_json(stored, made)[1]] == ["values.ssim_rgb", "images"]


def test_other_protocols_and_truths_do_not_share_a_table(scores, folders, tmp_path):
    path = tmp_path / "theirs.json"
    alone = scored(folders.truth, [folders.theirs], tmp_path / "cache")
    write_json(path, to_json(alone))
    ours = scored(folders.truth, [folders.ours], tmp_path / "cache")
    rows, notes = read_earlier_scores([path], SMALL, ours.pairs)
    assert (rows, notes) == ({"theirs": alone.values["theirs"]}, [])
    assert (
        ours._replace(beside=rows)
        .all_remarks[-1]
        .startswith("from earlier scores, and so not compared with other systems: theirs. Give their")
    )
    with pytest.raises(ConfigError, match=r"should have other systems\. Found `theirs` again"):
        read_earlier_scores([path], SMALL, scores.pairs)
    with pytest.raises(
        ConfigError, match="have the same protocol: numbers with different ones are not comparable"
    ):
        read_earlier_scores([path], PROTOCOLS["original"], ours.pairs)
    write_images(folders.truth, {"class0/image0": picture(30)})
    with pytest.raises(ConfigError, match="have the same true images"):
        read_earlier_scores([path], SMALL, pair(folders.truth, [str(folders.ours)]))


def test_an_earlier_system_of_the_same_files_is_named(folders, tmp_path):
    path = tmp_path / "earlier.json"
    write_json(path, to_json(scored(folders.truth, [folders.ours], tmp_path / "cache")))
    again = scored(folders.truth, [f"again={folders.ours}", folders.theirs], tmp_path / "cache")
    rows, notes = read_earlier_scores([path], SMALL, again.pairs)
    assert notes == ["again and ours are the same files, byte for byte: their comparison says nothing"]
    both = again._replace(beside=rows, beside_notes=notes)
    page = render(both, "")
    assert notes[0] in page
    assert both.all_remarks[-1] in page


def test_what_cannot_be_told_quotes_an_interval_that_holds_0():
    """As it decides: an interval of one difference alone would leave out 0 here."""
    random = np.random.default_rng(3)
    noise = random.normal(0, 1, 60)
    gap = (noise - noise.mean()) / noise.std(ddof=1) + 0.3  # t is about 2.3
    measures = ("ciede2000", "ab_l1", "psnr_rgb", "ssim_rgb")
    pairs, columns = made_up(
        60, {"a": dict.fromkeys(measures, np.zeros(60)), "b": dict.fromkeys(measures, gap)}
    )
    found = paired_differences(pairs, SMALL, columns, "a", {name: MEASURES[name] for name in measures})
    assert {each.word for each in found} == {Nearness.CANNOT_TELL}
    for each in found:
        assert each.p < 0.05 < each.p_adjusted
        assert each.interval[0] < 0 < each.interval[1]


def test_the_table_of_images_has_a_line_for_each_and_the_hash_beside_it(scores):
    rows = [row for _, row in from_csv(to_csv(image_rows(scores)))]
    assert len(rows) == 6 * 7
    assert {row["protocol"] for row in rows} == {SMALL.digest[:12]}
    assert rows[0]["image"] == "class0/image0"
    assert (rows[0]["folder"], rows[0]["row"]) == ("class0", "ours")
    assert [float(row["ab_l1"]) for row in rows[:6]] == scores.columns["ours"]["ab_l1"].tolist()


def test_latex_is_balanced_and_escapes_names(folders, tmp_path):
    found = scored(folders.truth, [f"a_b & 50 %={folders.ours}"], tmp_path / "cache")
    text = to_latex(found)
    assert r"a\_b \& 50~\%" in text
    tables = text.split(r"\begin{table}")[1:]
    assert text.count(r"\begin{") == text.count(r"\end{") == 2 * len(tables)
    for table in tables:
        lines = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(lines) == 1 + 6
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
        assert SMALL.digest[:12] in table
    heads = " ".join(tables)
    assert all(f"& {tex(each.short)}" in heads for each in found.measures.values())


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_fits_the_width_of_a_page(scores, tmp_path):
    document = (
        rf"\documentclass{{article}}{fill_latex('preamble.tex')}\usepackage{{textcomp}}\begin{{document}}"
        f"{to_latex(scores)}\\end{{document}}"
    )
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:]
    assert "Overfull" not in made.stdout


def test_latex_has_no_names_that_are_arguments(folders, tmp_path):
    systems = [f"[糸]={folders.ours}", f"*={folders.theirs}"]
    pairs = pair(folders.truth, systems)
    found = make_scores(pairs, SMALL, measure_rows(pairs, SMALL, tmp_path / "cache", 1))
    text = to_latex(found)
    assert "\n{}[[U+7CF8]] & " in text
    assert "\n{}* & " in text


def test_the_page_shows_hashes_words_and_the_images_that_differ_most(scores, folders):
    page = render(scores, "knowhue score ours theirs")
    assert SMALL.digest in page
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", page, re.DOTALL)
    assert len(rows) == 2 * 7 + 7
    assert all(SMALL.digest[:12] in row for row in rows)
    assert "Where theirs and ours differ most" in page
    assert page.count("data:image/jpeg;base64,") == 3 * 3
    gain = scores.columns["theirs"]["ciede2000"] - scores.columns["ours"]["ciede2000"]
    worst = sorted(true_images())[int(np.argmax(gain))]
    assert re.search(rf'<span class="path">{worst}</span>', page)
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_names_cannot_run_in_the_page(folders, tmp_path):
    found = scored(
        folders.truth, [f"<script>x</script>={folders.ours}", str(folders.theirs)], tmp_path / "cache"
    )
    assert "<script>" not in render(found, "<script>")


def test_one_system_alone_has_a_page_without_differences(folders, tmp_path):
    found = scored(folders.truth, [folders.ours], tmp_path / "cache")
    page = render(found, "")
    assert found.differences == []
    assert "Differences, image by image" not in page
    assert json.loads(json.dumps(to_json(found), allow_nan=False))["reference"] == "ours"
