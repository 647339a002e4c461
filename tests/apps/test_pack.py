"""`knowhue pack` and `knowhue check`, run as commands."""

import json
import re
import zipfile
from hashlib import sha256

from synthetic_study import BASELINES, write_own_scores, write_study

from knowhue.report.contrasts import WORDINGS


def test_a_study_is_packed_and_checked(knowhue, tmp_path):
    study, sealed = write_study(tmp_path / "demo"), tmp_path / "a.zip"
    write_own_scores(study)
    code, out, _ = knowhue("pack", study, "-o", sealed)
    assert (code, out.startswith("Sealed: ")) == (0, True)
    assert sha256(sealed.read_bytes()).hexdigest() in out
    code, _, err = knowhue("pack", study, "-o", sealed)
    assert (code, "exists" in err) == (2, True)
    code, _, err = knowhue("pack", tmp_path / "none", "-o", sealed)
    assert (code, "none" in err, "exists" in err) == (2, True, False)
    code, out, err = knowhue("check", sealed)
    assert (code, "computed again: all as sealed" in out) == (0, True)
    with zipfile.ZipFile(sealed) as archive:
        answers = json.loads(archive.read("results.json"))["answers"]
    assert len(answers) == 2
    frozen = json.loads((study / "study.json").read_text())
    lines = out.splitlines()
    # what a referee asks first: which file, which study, which plan
    assert lines[0] == f"a.zip: SHA-256 {sha256(sealed.read_bytes()).hexdigest()}"
    assert lines[1].startswith(f"Study demo, frozen {frozen['created']} by Knowhue ")
    assert lines[2] == f"Plan, images and encoder's weights: SHA-256 {frozen['hash']}"
    assert lines[5:-2:3] == [f"{WORDINGS[question].question}" for question in answers]
    assert lines[6:-2:3] == [f"  {sentence}" for sentence in answers.values()]
    assert lines[-2].startswith("Not computed again: report.html: its text is not compared")
    assert lines[-1].startswith("Not computed again: baselines.json")
    assert lines[-1].endswith(": they need images or weights")
    assert not err
    with zipfile.ZipFile(sealed) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(sealed, "w") as archive:
        for name, content in (files | {"report.html": b"<p>better"}).items():
            archive.writestr(name, content)
    code, out, err = knowhue("check", sealed)
    assert "?" not in out  # what was changed answers nothing
    assert (code, err.splitlines()) == (1, ["report.html: not as it was sealed"])


def test_an_answer_is_printed_before_what_it_must_be_read_with(knowhue, tmp_path):
    baselines = BASELINES | {"gray": BASELINES["gray"] | {"ab_l1": 0.0}}
    write_own_scores(study := write_study(tmp_path / "demo", baselines=baselines))
    knowhue("pack", study, "-o", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        sealed = json.loads(archive.read("results.json"))["answers"]["colour"]
    code, out, _ = knowhue("check", tmp_path / "a.zip")
    question, answer, caveat = out.splitlines()[5:8]
    assert (code, question) == (0, WORDINGS["colour"].question)
    assert answer.startswith("  No verdict yet: ")
    assert caveat.startswith("  But: Not better than a trivial baseline: ")
    assert sealed == f"{caveat.removeprefix('  But: ')} {answer.strip()}"  # as it was sealed


def test_every_problem_is_counted_and_the_first_of_a_file_are_shown(knowhue, tmp_path):
    sealed = tmp_path / "a.zip"
    study = write_study(tmp_path / "demo")
    write_own_scores(study)
    knowhue("pack", study, "-o", sealed)
    with zipfile.ZipFile(sealed) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["results.json"] = re.sub(rb": 1(\d*\.\d)", rb": 9\1", files["results.json"])
    with zipfile.ZipFile(sealed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    code, out, err = knowhue("check", sealed)
    shown = err.splitlines()
    (more,) = re.findall(r"^results.json: (\d+) more problems$", err, re.MULTILINE)
    assert (code, len(shown)) == (1, 6)
    assert f": {5 + int(more)} problems\n" in out
