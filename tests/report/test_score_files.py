"""Score files of other frameworks: every layout gives the same table."""

import json
import os
import sys
from decimal import Decimal

import pytest

from knowhue.errors import ExtraError, TableError
from knowhue.report.results import conclude
from knowhue.report.score_files import (
    MOST_JSON_BYTES,
    read_scores,
    without_seed,
)
from knowhue.report.score_rows import read_score_rows
from knowhue.report.table_study import TableOptions, notices, read_table

SCORES = {("base", 0): 0.81, ("base", 1): 0.82, ("new", 0): 0.85, ("new", 1): 0.84}
TIDY = [
    {"arm": arm, "seed": seed, "metric": "accuracy", "value": value} for (arm, seed), value in SCORES.items()
]


def found(path, **options):
    rows = read_score_rows([path], ["accuracy"], **options)
    return {(arm, seed): value for (arm, seed, _, _), (value, _) in rows.totals.items()}


def csv_text(rows, separator=","):
    lines = [separator.join(rows[0]), *(separator.join(map(str, row.values())) for row in rows)]
    return "\n".join(lines) + "\n"


RUNS = [(f"{arm}-seed-{seed}", arm, seed, value) for (arm, seed), value in SCORES.items()]
MLFLOW_CSV = [
    {"run_id": "f" * 32, "status": "FINISHED", "metrics.accuracy": value, "params.seed": seed,
     "params.accuracy": "top1", "tags.mlflow.runName": name}
    for name, _, seed, value in RUNS
]  # fmt: skip
MLFLOW_PAGE_CSV = [
    {
        "Start Time": "2026",
        "Run ID": "1f",
        "Name": name,
        "Status": "FINISHED",
        "seed": seed,
        "accuracy": value,
    }
    for name, _, seed, value in RUNS
]
WANDB_CSV = [
    {
        "Name": f"happy-dog-{place}",
        "State": "finished",
        "Group": arm,
        "Runtime": 60,
        "seed": seed,
        "accuracy": value,
    }
    for place, (_, arm, seed, value) in enumerate(RUNS)
]
WANDB_API = [
    {"name": name, "config": {"seed": seed, "lr": 0.1}, "summary": {"accuracy": value}}
    for name, _, seed, value in RUNS
]
FILES = {
    "tidy.csv": csv_text(TIDY),
    "other order.csv": csv_text([dict(reversed(row.items())) for row in TIDY]),
    "bom.csv": "\ufeff" + csv_text(TIDY),
    "semicolons.csv": csv_text(TIDY, ";"),
    "tabs.tsv": csv_text(TIDY, "\t"),
    "windows.csv": csv_text(TIDY).replace("\n", "\r\n") + "\r\n",
    "floats.csv": csv_text([row | {"seed": f"{row['seed']}.0"} for row in TIDY]),
    "excel.csv": "sep=;\r\n" + csv_text(TIDY, ";").replace("\n", "\r\n"),
    "records.json": json.dumps(TIDY),
    "columns.json": json.dumps({"columns": list(TIDY[0]), "data": [list(row.values()) for row in TIDY]}),
    "lines.jsonl": "\n".join(map(json.dumps, TIDY)),
    "split.json": json.dumps(
        {
            "columns": list(TIDY[0]),
            "index": [0, 1, 2, 3],
            "data": [list(row.values()) for row in TIDY],
        }
    ),
    "mlflow.csv": csv_text(MLFLOW_CSV),
    "mlflow page.csv": csv_text(MLFLOW_PAGE_CSV),
    "wandb.csv": csv_text(WANDB_CSV),
    "wandb api.json": json.dumps(WANDB_API),
}


@pytest.mark.parametrize("name", FILES)
def test_every_shape_gives_the_same_scores(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8", newline="")
    assert found(path) == SCORES


def test_parquet_gives_the_same_scores(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(TIDY), tmp_path / "t.parquet")
    assert found(tmp_path / "t.parquet") == SCORES
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[:4] + bytes(20) + whole[24:])
    with pytest.raises(TableError, match="not a parquet file"):
        found(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(TableError, match="not a parquet file"):
        found(tmp_path / "t.parquet")


def test_without_pyarrow_the_message_gives_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(ExtraError, match=r"parquet needs `pyarrow`, .*\[parquet\]"):
        found(tmp_path / "t.parquet")


def test_columns_may_have_other_names_and_what_is_not_used_is_said(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("method,try,acc.\nold,3,1\n".replace("acc.", "accuracy") + "new,3,0.5\n")
    assert found(path, arm_column="method", seed_column="try") == {("old", 3): 1.0, ("new", 3): 0.5}
    assert read_scores(path, ["accuracy"], "method", "try")[1] == {}
    path.write_text("arm,seed,metric,value,note\na,0,accuracy,1,x\n")
    assert read_scores(path, [])[1] == {"note": ""}
    path.write_text("arm, seed, accuracy, note\na,0,1,x\n")
    assert found(path) == {("a", 0): 1.0}
    assert read_scores(path, ["accuracy"])[1] == {"note": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm,seed,accuracy\na,0,1\n", "no columns `metric` and `value`, and no column of a known metric"),
        (
            "arm,seed,metric,score\na,0,error,1\n",
            "no column `value`. Found arm, seed, metric, score. Rename the column",
        ),
        ("arm,seed,f1\na,0,1\n", "Name metrics with --better, such as --better f1=higher, or =lower."),
        ("arm,seed,f1\na,0,0.5 ± 0.1\n", "Name metrics with --better, such as --better f1=higher"),
        (
            "arm,seed,Test F1\na,0,1\n",
            "Name metrics with --better, such as --better 'Test F1'=higher, or =lower.",
        ),
        (
            "f1,method,seed\n1,a,0\n",
            "no column `arm`. Found f1, method, seed. Name it with --arm-column method, or",
        ),
        (
            "method   seed  f1\na  0  0.5\n",
            "one column, `method   seed  f1`. Commas, semicolons or tabs should stand",
        ),
        (
            "| arm | seed | f1 |\n|---|---|---|\n",
            "one column, `| arm | seed | f1 |`. Commas, semicolons or tabs",
        ),
        ("# my runs\narm,seed,f1\na,0,0.5\n", "value, in the first row: remove a title above it."),
        (
            "Results, run 3, f1\narm,seed,f1\na,0,0.5\n",
            "no column `seed`. Found Results, run 3, f1. Name it with --seed-column, or give a table whose first row, "
            "without a title above it, names",
        ),
        (
            "A, b\narm,seed,f1\na,0,0.5\n",
            "Found A, b. Name it with --seed-column, or give a table whose first row, without a title above it, names",
        ),
        ("am,seed,accuracy\na,0,1\n", "columns arm, seed, metric, value. Did you mean `am`?"),
        ("arm,sede,accuracy\na,0,1\n", "columns arm, seed, metric, value. Did you mean `sede`?"),
        ("arm,seed,metrc,value\na,0,b,1\n", "Found arm, seed, metrc, value. Did you mean `metrc`?"),
        ("arm,seed,M1\na,0,1\n", "Found arm, seed, M1. Did you mean `M1`?"),
        ("seed,accuracy\n0,1\n", "no column `arm`. Found seed, accuracy. Name it with --arm-column"),
        ("arm,accuracy\n0,1\n", "no column `seed`. Found arm, accuracy. Name it with --seed-column"),
        (
            "method,mIoU\nFCN,71.2\nHRNet,81.2 ± 0.3\n",
            "no column `seed`. Found method, mIoU. Name it with --seed-column, or",
        ),
        (
            "arm,accuracy,accuracy_std\nstl,0.81,0.01\n",
            "A mean over seeds gives no verdict, with its deviation",
        ),
        (
            "arm,metric,value,SD\nstl,m,0.81,0.01\n",
            "Give one row per run (arm, seed, metric, value): from the logs",
        ),
        (
            "arm,random_state,accuracy,grad_norm_std\nstl,0,0.81,0.01\n",
            "no column `seed`. Found arm, random_state, accuracy, grad_norm_std. Name it with --seed-column",
        ),
        ("arm,arm,seed,metric,value\na,b,0,m,1\n", "more than one column is named arm"),
        ("", "not a table; the first row should name the columns"),
        (
            "arm,seed,metric,value\na,0,m\n",
            "t.csv, row 2: 3 cells, where the first row has 4 (arm, seed, metric, value). Quote cells that contain a "
            "separator, and remove a title",
        ),
        ('arm,seed,metric,value\na,0,m,"1\n', "t.csv: not CSV (row 2: "),
    ],
)
def test_what_is_no_table_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(TableError) as error:
        list(read_scores(path, ["m"])[0])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_where_a_column_may_name_the_arm_no_other_is_suggested(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("model,params,seed,f1\na,9,0,1\n")
    with pytest.raises(
        TableError, match=r"--arm-column model, .* names the columns arm, seed, metric, value\.$"
    ):
        list(read_scores(path, ["m"])[0])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"arm,seed,metric,value\n\xff\xfe,0,m,1\n", "not text in UTF-8"),
        ("t.csv", "arm,seed,metric,value\n".encode("utf-16"), "not text in UTF-8"),
        ("t.json", b"{", "not JSON"),
        ("t.json", b"[" * 100_000, "not JSON"),
        ("t.json", b"[1, 2]", "should hold a list of records"),
        # as the servers of MLflow and W&B send runs
        ("t.json", b'{"runs": [{"info": {}, "data": {}}]}', "should hold a list of records"),
        ("t.json", b'[{"name": "a", "config": "{\\"seed\\": 1}"}]', "no column `seed`. Found name, config."),
        ("t.jsonl", b'{"arm": "a"}\n[]\n', "should hold a list of records"),
        ("t.jsonl", b'{"arm": "a"}\n\n{\n', "t.jsonl, row 3: not JSON"),
        ("t.jsonl", b'{"arm": "a", "arm": "b"}', "t.jsonl, row 1: not JSON .the key `arm` twice"),
        ("t.json", b'[{"arm": "a", "arm": "b"}]', "t.json: not JSON .the key `arm` twice"),
        ("t.csv", b"arm,seed,metric,value\na,0,m," + b"1" * 200_000, "not CSV (row 2: field larger than"),
    ],
)
def test_bytes_that_are_none(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TableError, match=message.replace("(", r"\(")):
        list(read_scores(tmp_path / name, ["m"])[0])


def test_json_that_would_fill_the_memory_is_refused(tmp_path):
    with (tmp_path / "t.json").open("wb") as file:
        file.truncate(MOST_JSON_BYTES + 1)
    with pytest.raises(TableError, match="more than 256 MB of JSON"):
        read_scores(tmp_path / "t.json", [])


def test_a_pipe_is_refused_before_it_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(TableError, match=r"t\.csv: a device or a pipe. Save it as a file first"):
        read_scores(tmp_path / "t.csv", ["m"])


def test_a_study_folder_is_no_table(tmp_path):
    with pytest.raises(TableError, match=r"a folder. `knowhue export .* --to table"):
        read_scores(tmp_path, [])


def test_names_of_runs_lose_their_own_seed_alone():
    assert [without_seed(name, "3") for name in ("a_3", "a/seed=03", "a-13", "v3", "3", "net 3.3")] == [
        *("a", "a", "a-13", "v3", "3", "net 3"),
    ]  # fmt: skip


def test_runs_that_did_not_finish_leave_their_seed_without_a_verdict(tmp_path):
    rows = [dict(row) for row in WANDB_CSV]
    rows[3] |= {"State": "crashed", "accuracy": ""}
    (tmp_path / "w.csv").write_text(csv_text(rows))
    study = read_table([tmp_path / "w.csv"], TableOptions(sesoi={"accuracy": 0.01}, against="base"))
    assert study.seeds == [0, 1]
    assert study.runs["new"][1].state == "crashed"
    assert study.table.scores("new", "accuracy") == {0: 0.85}


@pytest.mark.parametrize("metrics", ["loss", "loss,accuracy"])
def test_an_empty_cell_of_a_wide_table_takes_its_seed_out_of_no_plan(tmp_path, metrics):
    # as pandas writes NaN
    second = ",0.5" * metrics.count(",")
    lines = [
        f"{arm},{seed},{'' if seed > 7 else 1 + seed / 10 - (arm == 'new')}{second}"
        for arm in ("base", "new")
        for seed in range(10)
    ]
    (tmp_path / "w.csv").write_text("\n".join([f"arm,seed,{metrics}", *lines]) + "\n")
    asked = TableOptions(metrics=["loss"], sesoi={"loss": 0.1}, better={"loss": "lower"}, against="base")
    study = read_table([tmp_path / "w.csv"], asked)
    assert study.seeds == list(range(10))
    found = conclude(study)
    assert found.results["verdicts"] == {"loss": "no verdict"}
    said = found.answers["loss"].caveat + " ".join(notices(study))
    assert "seed 8 (has no score)" in said or "seed 8 (no score)" in said


def test_an_arm_may_lack_a_metric_and_a_run_stand_in_two_rows(tmp_path):
    (tmp_path / "w.csv").write_text("arm,seed,loss,accuracy\na,0,1,\na,0,,0.5\nb,0,2,\n")
    rows = read_score_rows([tmp_path / "w.csv"], ["loss", "accuracy"])
    assert rows.states == {}
    assert len(rows.totals) == 3


def test_a_diverged_run_of_a_wide_table_may_have_a_declared_score_of_one_metric_alone(tmp_path):
    (tmp_path / "w.csv").write_text("arm,seed,state,loss,accuracy\na,0,diverged,9,\na,1,finished,1,.5\n")
    rows = read_score_rows([tmp_path / "w.csv"], ["loss", "accuracy"])
    assert list(rows.declared) == [("a", 0, "loss")]
    assert list(rows.totals) == [("a", 1, "loss", ""), ("a", 1, "accuracy", "")]


def test_decimals_are_numbers_and_what_no_float_holds_is_told(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [row | {"value": Decimal(str(row["value"]))} for row in TIDY]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert found(tmp_path / "t.parquet") == SCORES


@pytest.mark.parametrize("column", ["seed", "value", "sesoi"])
def test_a_number_beyond_all_floats_is_told_in_one_line(tmp_path, column):
    (tmp_path / "t.json").write_text(json.dumps([TIDY[0] | {column: 10**400}]))
    with pytest.raises(TableError, match=rf"t.json, row 1: .*{'accuracy' if column == 'value' else column}"):
        found(tmp_path / "t.json")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"value": "0_8"}, "should be a finite number"),
        (
            {"value": 2e70},
            "should be 0, or 1e-70 to 1e+70 without its sign. Found `2e+70`. Give the metric in another",
        ),
        ({"value": -1e300}, "should be 0, or 1e-70 to 1e+70"),
        ({"value": 1e-300}, "should be 0, or 1e-70 to 1e+70 without its sign. Found `1e-300`"),
        ({"seed": "1_0"}, "`seed` should be a whole number"),
        ({"seed": True}, "`seed` should be a whole number"),
        ({"value": True}, "should be a finite number, with a decimal point. Found `True`"),
        ({"value": "٠.٨"}, "should be a finite number"),
        ({"sesoi": True}, "`sesoi` should be a number above 0"),
        ({"sesoi": 1e-200}, "`sesoi` should be a number above 0, 1e-70 to 1e+70"),
        ({"sesoi": 1e200}, "`sesoi` should be a number above 0, 1e-70 to 1e+70"),
        ({"metric": "ab_l1", "value": -0.5}, "`ab_l1` is never below 0. Found -0.5"),
        ({"arm": "\ud800"}, r"t.json: not JSON ('utf-8' codec can't encode character '\ud800' in position"),
    ],
)
def test_what_python_alone_takes_for_a_number_or_nothing_can_be_computed_of_is_told(tmp_path, cells, message):
    (tmp_path / "t.json").write_text(json.dumps([TIDY[0] | cells]))
    with pytest.raises(TableError) as error:
        found(tmp_path / "t.json")
    assert message in str(error.value)


def test_moments_that_python_has_no_type_for_are_no_fault_of_a_table(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    # pandas writes nanoseconds
    moments = {"ns": 1_700_000_000_123_456_789, "us": 2**62}
    table = pyarrow.Table.from_pylist(TIDY)
    for unit, moment in moments.items():
        table = table.append_column(unit, pyarrow.array([moment] * len(TIDY), pyarrow.timestamp(unit)))
        took = pyarrow.array([2**62 + 1] * len(TIDY), pyarrow.duration(unit))
        table = table.append_column(f"took {unit}", took)
    parquet.write_table(table, tmp_path / "t.parquet")
    assert found(tmp_path / "t.parquet") == SCORES
    within = pyarrow.array([[2**62]] * len(TIDY), pyarrow.list_(pyarrow.timestamp("us")))
    parquet.write_table(table.append_column("moments", within), tmp_path / "t.parquet")
    with pytest.raises(TableError, match="cells of an unknown type"):
        found(tmp_path / "t.parquet")


def test_a_column_without_a_name_is_named_by_its_place(tmp_path):
    head, *rows = csv_text(TIDY).splitlines()
    (tmp_path / "t.csv").write_text("\n".join([f",{head}", *(f"{n},{row}" for n, row in enumerate(rows))]))
    assert read_scores(tmp_path / "t.csv", [])[1] == {"1 (without a name)": ""}


@pytest.mark.parametrize("options", [{}, {"arm_column": "name"}])
def test_names_that_several_seeds_have_are_of_arms_and_stay_whole(tmp_path, options):
    pairs = [(f"model-{arm}", seed) for arm in (1, 2) for seed in range(4)]
    lines = ["name,seed,accuracy", *(f"{arm},{seed},0.5" for arm, seed in pairs)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    assert list(found(tmp_path / "t.csv", **options)) == pairs


def test_a_column_that_is_said_to_name_the_arm_keeps_its_names(tmp_path):
    (tmp_path / "t.csv").write_text("name,seed,accuracy\nmodel-1,1,0.5\nmodel-2,2,0.5\n")
    assert list(found(tmp_path / "t.csv", arm_column="name")) == [("model-1", 1), ("model-2", 2)]
    assert list(found(tmp_path / "t.csv")) == [("model", 1), ("model", 2)]


def test_lines_of_json_end_at_line_feeds_alone(tmp_path):
    records = [row | {"arm": f"{row['arm']}\u2028\u0085x"} for row in TIDY]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in records)
    (tmp_path / "t.jsonl").write_text(text, encoding="utf-8", newline="")
    assert len(found(tmp_path / "t.jsonl")) == len(TIDY)


@pytest.mark.parametrize("column", ["method", "model", "params.model"])
def test_a_column_of_runs_beside_one_of_methods_names_no_arms(tmp_path, column):
    path = tmp_path / "t.csv"
    path.write_text(f"{column},run,seed,accuracy\nold,1,0,0.5\nnew,2,0,0.6\n")
    with pytest.raises(
        TableError, match=rf"no column `arm`\. Found {column}, run, .* Name it with --arm-column"
    ):
        found(path)
    assert found(path, arm_column=column) == {("old", 0): 0.5, ("new", 0): 0.6}
    path.write_text(f"{column},name,seed,accuracy\nr,old-0,0,0.5\nr,new-0,0,0.6\n")
    assert found(path) == {("old", 0): 0.5, ("new", 0): 0.6}


def test_a_column_of_runs_names_them(tmp_path):
    (tmp_path / "t.csv").write_text("run,seed,accuracy\nmulti-seed-1,1,0.5\nmulti-seed-2,2,0.6\n")
    assert list(found(tmp_path / "t.csv")) == [("multi", 1), ("multi", 2)]


@pytest.mark.parametrize(
    "cell",
    [
        "81.2 ± 0.3", "81.2±.3", "81.2_{0.3}", "$81.2_{\\pm 0.3}$", "81.2 +- 0.3", "81.2 +/- 0.3", "81.2 (0.3)",
        "81.2(±0.3)", r"\textbf{81.2} $\pm$ 0.3", "**81.2 ± 0.3**", "81.2 ± 0.3 %", "−1.5e-3 ± 2e-4",
        r"81.2 {\scriptsize $\pm$ 0.3}",
    ],
)  # fmt: skip
def test_means_with_deviations_are_no_scores_however_they_are_typeset(tmp_path, cell):
    path = tmp_path / "t.csv"
    path.write_text(f"arm,accuracy\nstl,{cell}\n", encoding="utf-8")
    with pytest.raises(
        TableError, match=r"no column `seed`\..* A mean over seeds gives no verdict.* Give one row per run"
    ):
        read_scores(path, [])
    path.write_text(f"arm,seed,accuracy\nstl,0,{cell}\n", encoding="utf-8")
    with pytest.raises(
        TableError, match=r"row 2: the value of `accuracy` should be a finite number"
    ) as error:
        found(path)
    is_told = any(sign in cell for sign in ("±", "pm", "+-", "+/-"))
    assert ("A mean over seeds gives no verdict" in str(error.value)) == is_told


@pytest.mark.parametrize("column", ["arm", "name"])
def test_a_run_without_a_name_is_told(tmp_path, column):
    runs = [{column: name, "seed": seed, "accuracy": 0.5} for seed, name in enumerate(("a-0", None))]
    (tmp_path / "t.json").write_text(json.dumps(runs))
    with pytest.raises(TableError, match=r"row 2: `arm` should be a name .* Found nothing"):
        found(tmp_path / "t.json")


def test_a_metric_may_be_named_with_its_prefix(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("name,seed,metrics.acc\na,0,.5\nb,0,.6\n")
    rows, unused = read_scores(path, ["metrics.acc"])
    assert [row["metric"] for _, row in rows] == ["metrics.acc"] * 2
    assert not unused


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("arm,seed,acc,acc", "`acc` (3), `acc` (4)"),
        ("arm,seed,metrics.acc,summary.acc", "`metrics.acc` (3), `summary.acc` (4)"),
        ("arm,seed,acc,summary/acc", "`acc` (3), `summary/acc` (4)"),
        ("arm,seed,acc, acc", "`acc` (3), `acc` (4)"),
        ("arm, seed,\tacc ,acc", "`acc` (3), `acc` (4)"),
    ],
)
def test_of_two_columns_of_a_metric_none_is_taken_in_silence(tmp_path, header, columns):
    (tmp_path / "t.csv").write_text(f"{header}\na,0,.5,.6\n")
    with pytest.raises(TableError) as error:
        read_scores(tmp_path / "t.csv", ["acc"])
    assert f"2 columns hold `acc`: {columns}. Remove all but one" in str(error.value)
    # a metric without a question can have any number of rows
    (tmp_path / "t.csv").write_text(f"{header},loss\na,0,.5,.6,1\n")
    assert [row["metric"] for _, row in read_scores(tmp_path / "t.csv", ["loss"])[0]] == ["loss"]


@pytest.mark.parametrize("header", ["name,name,seed,acc", "group,run,run_id,state,state,seed,group,acc"])
def test_of_two_columns_of_arms_or_states_none_is_taken_in_silence(tmp_path, header):
    (tmp_path / "t.csv").write_text(f"{header}\n")
    with pytest.raises(TableError, match="more than one column is named"):
        read_scores(tmp_path / "t.csv", ["acc"])
