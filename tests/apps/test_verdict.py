"""`knowhue verdict`, run as a command."""

import json

import pytest

ROWS = "arm,seed,metric,value\n" + "".join(
    f"{arm},{seed},accuracy,{0.8 + seed / 1000 + gap}\n"
    for seed in range(8)
    for arm, gap in (("a", 0), ("b", 0.02))
)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(ROWS)
    return path


def test_the_sentence_is_printed_and_nothing_written_unless_asked(knowhue, table):
    code, said, err = knowhue("verdict", table, "--against", "a", "--sesoi", "accuracy=0.01")
    assert (code, err) == (0, "")
    assert (
        "On these test images the models of “b” are better in accuracy than those of “a”, by what matters"
        in said
    )
    assert list(table.parent.iterdir()) == [table]


def test_metrics_without_a_question_are_printed_below(knowhue, table):
    with table.open("a") as file:
        file.writelines(
            f"{arm},{seed},loss,{seed}.{gap}\n" for seed in range(8) for arm, gap in (("a", 5), ("b", 2))
        )
    options = ("--against", "a", "--sesoi", "accuracy=0.01", "--better", "loss=lower")
    _, said, _ = knowhue("verdict", table, *options)
    assert "  b against a, loss: reference 4.00 ± 2.45, compared 3.70 ± 2.45, difference −0.30" in said


def test_page_and_numbers_are_written_and_never_over_another(knowhue, table):
    command = [
        "verdict",
        table,
        "--against",
        "a",
        "--sesoi",
        "accuracy=0.01",
        "-o",
        table.with_name("v.html"),
    ]
    code, said, _ = knowhue(*command)
    assert code == 0
    assert (
        said.splitlines()[-1] == f"Verdict: {table.with_name('v.html')}, numbers: {table.with_name('v.json')}"
    )
    first = {path: path.read_bytes() for path in table.parent.iterdir()}
    code, _, err = knowhue(*command)
    assert (code, err.count("\n")) == (2, 1)
    assert "--overwrite" in err
    assert knowhue(*command, "--overwrite")[0] == 0
    # the same bytes except for the command
    assert {p: p.read_bytes() for p in table.parent.iterdir() if p.suffix != ".html"} == {
        p: data for p, data in first.items() if p.suffix != ".html"
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give it, in the metric's unit: --sesoi accuracy=0.01"),
        (["--sesoi", "accuracy"], "`--sesoi` should be NAME=VALUE"),
        (["--sesoi", "accuracy=-1"], "should be a number above 0, 1e-70 to 1e+70"),
        (["--sesoi", "accuracy=0_1"], "should be a number above 0, 1e-70 to 1e+70"),
        (["--sesoi", "loss=0,1"], "Found `0,1`. Write a point for a decimal comma"),
        (
            ["--sesoi", "accuracy=1%"],
            "Found `1%`. Write a point for a decimal comma, nothing between thousands, and 0.015 for 1.5 %.",
        ),
        (["--alpha", "1e-300"], "`--alpha` should be at least 1e-06"),
        (
            ["--sesoi", "accuracy=.1", "--sesoi", "accuracy=.2"],
            "should be given once for `accuracy`. Found .1 and .2.",
        ),
        (["--better", "accuracy=up"], "should be one of lower, higher"),
        (["--better", "accuracy=hihger"], "Did you mean `higher`?"),
        (["--sesoi", "acuracy=0.01", "--better", "accuracy=higher"], "Did you mean `accuracy`?"),
        (["--arm-column", "amr"], "Did you mean `arm`?"),
        (["--alpha", "0.9"], "`--alpha` should be at least 1e-06 and below 0.5"),
        (["-o", "v.txt"], "`--out` should end in .html"),
        (["--sesoi", "accuracy=0.01"], "Give it: --against a. Found the arms a, b."),
    ],
)
def test_wrong_options_are_one_line(knowhue, table, options, message):
    code, said, err = knowhue("verdict", table, *options)
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_page_is_never_written_over_its_table(knowhue, tmp_path, table):
    odd = tmp_path / "t.json"
    head, *rows = (line.split(",") for line in ROWS.splitlines())
    odd.write_text(json.dumps([dict(zip(head, row, strict=True)) for row in rows]))
    kept, judged = odd.read_text(), ("--against", "a", "--sesoi", "accuracy=0.01")
    code, _, err = knowhue("verdict", odd, *judged, "-o", tmp_path / "t.html", "--overwrite")
    assert (code, odd.read_text()) == (2, kept)
    assert "t.json is an input, which is never replaced" in err


def test_a_table_that_is_not_there_is_said_before_a_page_that_is(knowhue, tmp_path):
    (tmp_path / "v.html").write_text("precious")
    code, _, err = knowhue("verdict", tmp_path / "none.csv", "-o", tmp_path / "v.html")
    assert (code, "none.csv: no such file" in err, "already exists" in err) == (2, True, False)


@pytest.mark.parametrize("cell", ["81.2 ± 0.3", "81.2 +/- 0.3", "81.2 (0.3)", r"$81.2 \pm 0.3$", "81.2±.3"])
def test_a_published_mean_and_deviation_is_refused_with_what_is_needed(knowhue, table, cell):
    table.write_text(f"arm,seed,metric,value\nstl,,accuracy,{cell}\nmtl,,accuracy,{cell}\n")
    code, said, err = knowhue("verdict", table, "--against", "stl", "--sesoi", "accuracy=0.01")
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert (
        f"row 2: the value of `accuracy` should be a finite number, with a decimal point. Found `{cell}`"
        in err
    )
    assert "Give one row per run (arm, seed, metric, value)" in err


def test_a_typed_table_with_a_number_a_seed_is_judged(knowhue, table):
    head, *rows = ROWS.splitlines()
    table.write_text("\n".join([f"{head},better,sesoi", *(f"{row},higher,0.01" for row in rows)]))
    code, said, _ = knowhue("verdict", table, "--against", "a")
    assert code == 0
    assert "On these test images the models of “b” are better" in said
