"""Work on real clusters of two nodes gives the same bytes as in one process, even if a node is lost."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import slurm_cluster
from PIL import Image

from knowhue.data.drawn import draw
from knowhue.storage import read_json

pytestmark = pytest.mark.slow
STUDY = [
    "study",
    "--preset=demo",
    "--seeds=3",
    "--set=images.size_px=32",
    "--set=images.drawn_count=40",
    "--set=images.min_per_class=1",
    "--set=training.batch_size=8",
    "--set=training.heads.epochs=2",
    "--set=training.finetune.epochs=6",
    "--set=evaluation.networks=[]",
    "--set=evaluation.perceptual=[]",
]
CELLS = 9
COMPARED = ("model.safetensors", "scores.json", "per_image.csv", "samples.npz")


def begin(out: Path, *options: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "knowhue", *STUDY, "--out", str(out), *options],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(study: subprocess.Popen[str]) -> None:
    said, _ = study.communicate(timeout=3600)
    assert study.returncode == 0, said


def wait_until(condition: Callable[[], object], study: subprocess.Popen[str]) -> None:
    while not condition():
        assert study.poll() is None, study.communicate()[0]
        time.sleep(0.5)


def parts_of(out: Path, jobs: list[str]) -> list[str]:
    """The Slurm jobs, of those given, that have begun to work on a part of a study."""
    locks = [
        path.read_text()
        for pattern in ("*/seed-*/.lock", "heads/*/seed-*/.lock")
        for path in out.glob(pattern)
    ]
    return [job for job in jobs if any(f'"slurm {job}"' in text for text in locks)]


def ended(out: Path) -> int:
    return len(list(out.glob("*/seed-*/status.json")))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The study, trained by one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    finish(begin(out))
    return out


def assert_equal(out: Path, alone: Path) -> None:
    files = [path.relative_to(alone) for name in COMPARED for path in sorted(alone.rglob(name))]
    assert len(files) > CELLS * len(COMPARED)
    assert [path for path in files if (alone / path).read_bytes() != (out / path).read_bytes()] == []
    assert read_json(out / "results.json")["arms"] == read_json(alone / "results.json")["arms"]


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """Two nodes of a Slurm cluster."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    if missing := slurm_cluster.missing():
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    if os.geteuid():
        pytest.skip("the daemons of Slurm are run by root")
    (tmp_path / "slurm").mkdir()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm" / "slurm.conf"))
    with slurm_cluster.cluster(tmp_path / "slurm") as found:
        yield found


def test_a_study_on_slurm_outlives_a_node_and_a_time_limit(nodes, alone, tmp_path):
    out = tmp_path / "study"
    study = begin(out, "--engine=slurm", "--engine-set=slurm.minutes=60")
    wait_until(lambda: ended(out) >= 2 and nodes.on("n1") and nodes.on("n2"), study)
    nodes.lose("n2")
    wait_until(lambda: parts_of(out, nodes.on("n1")), study)
    (job,) = parts_of(out, nodes.on("n1"))
    # as Slurm does at the time limit, which is at least one minute
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    finish(study)
    assert_equal(out, alone)
    logs = "".join(path.read_text() for path in (out / ".slurm").rglob("*_log.*"))
    assert f"Requeued job {job}" in logs
    assert "due to failure of node n2" in (nodes.home / "slurmctld.log").read_text()
    results, jobs = ((out / ".slurm").rglob(name) for name in ("*_result.pkl", "*_submission.sh"))
    assert len(list(results)) == len(list(jobs))


def run(*arguments: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "knowhue", *arguments], env=environment, check=True, timeout=3600)


def files_of(root: Path) -> dict[str, bytes]:
    """The files that commands have made, without internal files of commands and engine."""
    files = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    return {
        place.as_posix(): path.read_bytes()
        for place, path in files.items()
        if not any(part.startswith(".") for part in place.parts)
    }


def test_images_are_prepared_and_an_archive_is_coloured_by_jobs_of_slurm(nodes, tmp_path):
    """600 images are two parts."""
    drawn = ("prepare", "--preset=demo", "--set=images.drawn_count=600", "--set=images.size_px=32")
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for number in range(6):
        scene = Image.fromarray(draw(number, 0, 64, class_colour=1.0, seed=0)).convert("L")
        scene.save(tmp_path / "photos" / "sub" / f"{number}.png")
    archive = ("colorize", str(tmp_path / "photos"), "--shards=3")
    for place, options in (("here", []), ("there", ["--engine=slurm"])):
        run(*drawn, f"--out={tmp_path / place / 'study'}", *options)
        run(*archive, f"--out={tmp_path / place / 'colours'}", *options)
    here, there = (files_of(tmp_path / name) for name in ("here", "there"))
    assert {"study/images/images.npy", "colours/sub/5.png"} <= set(here)
    assert here == there
    jobs = [len(list((tmp_path / "there" / name).rglob("*_result.pkl"))) for name in ("study", "colours")]
    assert jobs == [2, 3]


def test_a_study_on_ray_outlives_a_node(alone, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    size = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=size)
    try:
        node = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        out = tmp_path / "study"
        study = begin(out, "--engine=ray", f"--engine-set=ray.address={cluster.address}")
        wait_until(lambda: ended(out) >= 2, study)
        cluster.remove_node(node, allow_graceful=False)
        finish(study)
    finally:
        cluster.shutdown()
    assert_equal(out, alone)
