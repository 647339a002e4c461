"""Sealed studies: their content, and detection of a changed digit."""

import json
import re
import warnings
import zipfile
from hashlib import sha256

import pytest
from synthetic_study import write_own_scores, write_study

from knowhue import sealing
from knowhue.errors import ConfigError, DamagedError, RunError
from knowhue.plan import read_plan
from knowhue.report.results import compare
from knowhue.runs import FROZEN, read_frozen, read_status, write_config, write_status
from knowhue.sealing import CRATE, check, pack, shown_problems, unpacked
from knowhue.storage import write_json

RUN = r"multi/seed-0-\w+/"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of one seed whose scores agree with its rows; the score of one image is NaN."""
    study = write_study(tmp_path_factory.mktemp("study") / "demo")
    path = next(study.glob("colour/seed-0-*/per_image.csv"))
    path.write_text(re.sub(r",\d+\.\d+", ",nan", path.read_text(), count=1))
    write_own_scores(study)
    return study


@pytest.fixture(scope="module")
def sealed(study, tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "demo.zip"
    pack(study, path)
    return path


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def change(sealed, target, pattern, old, new, reseal):
    """A copy with one change in the file that a pattern names; `reseal` mends its checksum, as a forger would."""
    files = contents(sealed)
    name = next(each for each in files if re.fullmatch(pattern, each))
    changed = re.sub(old, new, files[name].decode(), count=1)
    assert changed.encode() != files[name]
    if reseal:
        hashes = sha256(files[name]).hexdigest(), sha256(changed.encode()).hexdigest()
        files[CRATE] = files[CRATE].decode().replace(*hashes).encode()
    files[name] = changed.encode()
    return name, check(rewrite(target, files)).problems


def test_a_sealed_study_checks_and_is_the_same_again(sealed, study, tmp_path):
    found = check(sealed)
    assert found.problems == []
    assert found.files == len(contents(sealed))
    assert found.numbers > 100
    pack(study, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == sealed.read_bytes()


def test_neither_images_nor_weights_are_in_it(sealed):
    files = contents(sealed)
    kinds = {name.rsplit(".", 1)[1] for name in files}
    assert kinds <= {"json", "jsonl", "csv", "html"}
    assert b"data:image/png" not in files["report.html"]
    assert b"data:image/jpeg" not in files["report.html"]


def test_the_crate_describes_every_file(sealed):
    files = contents(sealed)
    crate = json.loads(files.pop(CRATE))
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    parts = {each["@id"]: each for each in crate["@graph"]}
    assert parts[CRATE]["about"] == {"@id": "./"}
    assert {each["@id"] for each in parts["./"]["hasPart"]} == files.keys()
    assert {"name", "description", "datePublished", "identifier"} <= parts["./"].keys()
    for name, content in files.items():
        assert (parts[name]["sha256"], parts[name]["contentSize"]) == (
            sha256(content).hexdigest(),
            len(content),
        )


@pytest.mark.parametrize("reseal", [False, True])
@pytest.mark.parametrize(
    ("pattern", "old", "new", "named"),
    [
        (
            "results.json",
            r'("ab_l1": 1\d\.\d)(\d)',
            r"\g<1>\g<2>7",
            r"results.json: arms\.\S*ab_l1 is stored as 1",
        ),
        (
            RUN + "scores.json",
            r'("ab_l1": 1\d)\.',
            r"\g<1>7.",
            r"scores.json: metrics\.ab_l1 is stored as 1",
        ),
        (
            RUN + "scores.json",
            r'"metrics": {',
            '"metrics": [], "old": {',
            r"scores.json: (cannot be computed again|not as it was sealed)",
        ),
        (RUN + r"per_image.csv", r",1(\d\.\d+)", r",9\g<1>", r"scores.json: metrics\.ab_l1 is stored as 1"),
        ("study.json", r'"seeds": \[\s*0\s*\]', '"seeds": [3]', "study.json"),
        ("study.json", r'"created": "20', '"created": "19', r"study\.(created|json)"),
        (RUN + "status.json", "finished", "diverged", "status.json"),
    ],
)
def test_a_change_is_named(sealed, tmp_path, pattern, old, new, named, reseal):
    name, problems = change(sealed, tmp_path / "a.zip", pattern, old, new, reseal)
    assert any(re.search(named, each) for each in problems)
    assert (f"{name}: not as it was sealed" in problems) == (not reseal)


def test_of_changed_answers_the_crate_that_repeats_them_is_not_called_wrong(sealed, tmp_path):
    _, problems = change(
        sealed, tmp_path / "a.zip", "results.json", r'("answers": {\s*"\w+": ")', r"\1Not ", False
    )
    assert problems
    assert not any(each.startswith(CRATE) for each in problems)
    for path in (sealed, tmp_path / "a.zip"):
        left = check(path).unchecked
        assert any("the answers printed here are computed" in each for each in left) == (path == sealed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r'("description": ")', r"\1All is well. "),
        (r'("identifier": "sha256:)\w{4}', r"\g<1>0000"),
        (r'("datePublished": ")20', r"\g<1>19"),
        (r'("contentSize": )', r"\g<1>1"),
        (r'("version": ")', r"\g<1>7"),
        (r'("@type": "Dataset",)', r'\1 "author": "Somebody else",'),
        (r'("@graph": \[)', r'\1 {"@id": "./", "description": "All is well."},'),
        (r'("@context": ")', r"\1https://example.org/"),
        (r'("hasPart": )\[[^]]+\]', r"\1[]"),
    ],
)
def test_what_the_crate_says_beside_checksums_is_compared(sealed, tmp_path, old, new):
    files = contents(sealed)
    text = files[CRATE].decode()
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    problems = check(rewrite(tmp_path / "a.zip", files | {CRATE: changed.encode()})).problems
    assert {each.partition(": ")[0] for each in problems} == {CRATE}


def test_a_description_that_stands_elsewhere_is_named(sealed, tmp_path):
    files = contents(sealed)
    crate = json.loads(files[CRATE])
    study, other = (
        next(each for each in crate["@graph"] if ("description" in each) == is_there)
        for is_there in (True, False)
    )
    other["description"] = study.pop("description")
    problems = check(rewrite(tmp_path / "a.zip", files | {CRATE: json.dumps(crate).encode()})).problems
    assert {each.partition(": ")[0] for each in problems} == {CRATE}


@pytest.mark.parametrize("name", ["results.json", "../results.json"])
def test_a_name_that_stands_in_it_twice_is_refused(sealed, tmp_path, name):
    path = tmp_path / "twice.zip"
    path.write_bytes(sealed.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's own: of a name that is there already
        archive.writestr(name, b"{}")
    with pytest.raises(RunError, match=r"stored twice: results\.json; no sealed"):
        check(path)


def test_a_long_text_is_quoted_where_it_parts():
    long = "Colouring: helps. " * 40
    (said,) = compare(long + "12.73 units", long + "12.83 units", "x", 0)[1]
    assert said == (
        "x is stored as ...olouring: helps. 12.73 units, but computed as ...olouring: helps. 12.83 units"
    )


def test_many_changes_are_counted_and_what_cannot_be_computed_is_named(sealed, tmp_path):
    files = contents(sealed)
    name = next(each for each in files if re.fullmatch(RUN + "per_image.csv", each))
    files[name] = re.sub(r",1(\d\.\d+)", r",9\g<1>", files[name].decode()).encode()
    found = check(rewrite(tmp_path / "a.zip", files))
    scores = name.replace("per_image.csv", "scores.json")
    of_scores = [each for each in found.problems if each.startswith(f"{scores}: ")]
    assert len(of_scores) == 6
    assert all(" is stored as " in each for each in of_scores)
    shown = [each for each in shown_problems(found.problems) if each.startswith(f"{scores}: ")]
    assert shown == [*of_scores[:5], f"{scores}: 1 more problem"]
    assert found.unchecked[0] == f"{CRATE}, results.json: what was changed does not allow it"
    assert found.unchecked[-1].endswith(": they need images or weights")


def test_what_a_consistent_fake_does_not_allow_is_said_once(sealed, tmp_path):
    files = contents(sealed)
    name = next(each for each in files if re.fullmatch(RUN + "per_image.csv", each))
    files[name] = re.sub(r",1(\d\.\d+)", r",9\g<1>", files[name].decode()).encode()
    crate = json.loads(zipfile.ZipFile(sealed).read(CRATE))
    next(each for each in crate["@graph"] if each["@id"] == name)["sha256"] = sha256(files[name]).hexdigest()
    found = check(rewrite(tmp_path / "a.zip", files | {CRATE: json.dumps(crate).encode()}))
    said = [each for each in (*found.problems, *found.unchecked) if each.startswith("results.json: ")]
    assert len(said) == 1
    assert f"results.json: cannot be computed again: `{name}` is damaged" in said[0]


def test_what_is_gone_or_new_is_named(sealed, tmp_path):
    files = contents(sealed)
    name = next(each for each in files if re.fullmatch(RUN + "log.jsonl", each))
    content = files.pop(name)
    found = check(rewrite(tmp_path / "a.zip", files | {"extra.json": content})).problems
    assert {"extra.json: was not there when it was sealed", f"{name}: gone"} <= set(found)


def test_what_is_gone_is_named_once(sealed, tmp_path):
    files = contents(sealed)
    name = next(each for each in files if re.fullmatch(RUN + "per_image.csv", each))
    del files[name]
    assert check(rewrite(tmp_path / "a.zip", files)).problems == [f"{name}: gone"]


def test_the_report_says_that_it_is_sealed(sealed, study):
    assert b"Sealed without images" in contents(sealed)["report.html"]
    assert not (study / "report.html").exists()


def test_a_damaged_study_is_not_sealed(tmp_path):
    study = write_study(tmp_path / "demo")
    run = next(study.glob("multi/seed-0-*"))
    write_status(run, read_status(run))
    (run / "log.jsonl").write_text("{}\n")
    with pytest.raises(DamagedError, match=r"log\.jsonl"):
        pack(study, tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["baselines.json", "metrics.json", "images/prepared.json"])
def test_a_study_without_a_file_is_not_sealed_and_names_it_where_it_should_lie(tmp_path, name):
    study = write_study(tmp_path / "demo")
    (study / name).unlink()
    with pytest.raises(DamagedError, match=f"^`{re.escape(str(study / name))}` is damaged: it is missing"):
        pack(study, tmp_path / "a.zip")


def test_a_file_of_a_run_is_compared_with_what_it_was_when_that_ended(tmp_path):
    study = write_study(tmp_path / "demo")
    for run in study.glob("*/seed-*"):
        write_status(run, read_status(run))
    pack(study, tmp_path / "demo.zip")
    before = check(tmp_path / "demo.zip").problems
    name, problems = change(
        tmp_path / "demo.zip", tmp_path / "a.zip", RUN + "environment.json", "2.14.0", "2.13.0", reseal=True
    )
    assert f"{name}: not as it was when its run ended" in set(problems) - set(before)


def test_a_study_that_has_not_ended_is_not_sealed(tmp_path):
    study = write_study(tmp_path / "demo")
    run = next(study.glob("multi/seed-0-*"))
    write_json(run / "status.json", {"state": "running"})
    with pytest.raises(RunError, match="multi of seed 0 have not ended yet"):
        pack(study, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_a_study_with_a_run_in_the_folder_of_another_is_not_sealed(tmp_path):
    study = write_study(tmp_path / "demo", seeds=(0, 1))
    write_config(next(study.glob("multi/seed-1-*")), read_plan(study).run_config("multi", 0))
    with pytest.raises(
        RunError, match=r"the folder of multi of seed 1 holds a run of other settings; remove it, and run"
    ):
        pack(study, tmp_path / "a.zip")


def test_what_a_sealed_study_lacks_is_missed_in_its_file_not_in_a_folder_that_is_gone(sealed):
    def read_without_plan():
        with unpacked(sealed) as (root, _):
            (root / FROZEN).unlink()
            read_frozen(root)

    with pytest.raises(RunError, match=f"^`{re.escape(str(sealed))}` should be"):
        read_without_plan()


def test_what_is_no_sealed_study_is_refused(sealed, tmp_path, monkeypatch):
    (tmp_path / "text.zip").write_text("none")
    rewrite(tmp_path / "other.zip", {"a.txt": "a"})
    rewrite(tmp_path / "empty.zip", {CRATE: "[]"})
    for name, said in (
        ("text", "not a sealed study"),
        ("other", "it has no ro-crate"),
        ("empty", "not a sealed study"),
    ):
        with pytest.raises(RunError, match=said):
            check(tmp_path / f"{name}.zip")
    whole = sealed.read_bytes()
    place = whole.index(b"report.html") + 500
    (tmp_path / "cut.zip").write_bytes(whole[:place] + b"\xff" * 40 + whole[place + 40 :])
    with pytest.raises(RunError, match="not a sealed study, or damaged"):
        check(tmp_path / "cut.zip")
    with pytest.raises(RunError, match="no such file"):
        check(tmp_path / "gone.zip")
    with pytest.raises(ConfigError, match=r"named `\.zip`"):
        pack(tmp_path, tmp_path / "study.tar")
    monkeypatch.setattr(sealing, "MAX_BYTES", 1000)
    with pytest.raises(RunError, match="when unpacked"):
        check(sealed)
