"""Engines by name: what a command line says of them, and what is refused."""

import subprocess
import sys

import pytest

from knowhue.engines.executor import ENGINES, InProcess, LocalProcesses, open_engine
from knowhue.errors import ConfigError, ExtraError


def test_the_local_engine_is_this_process_or_several():
    assert isinstance(open_engine(), InProcess)
    assert isinstance(open_engine("local", workers=1), InProcess)
    found = open_engine("local", workers=3)
    assert isinstance(found, LocalProcesses)
    assert found.workers == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "slrm"},
            "`engine` should be one of local, slurm, ray. Found `engine = slrm`. Did you mean `slurm`?",
        ),
        ({"workers": 0}, "`workers` should be 1 or more. Found `workers = 0`."),
        (
            {"settings": ["slurm.cpus=2"]},
            "`--engine-set` should be left out with `--engine local`. Found `slurm.cpus`.",
        ),
        ({"name": "ray", "settings": ["ray.gpu=1"]}, "Did you mean `ray.gpus`?"),
        ({"name": "ray", "settings": ["slurm.gpus=1"]}, "should be one of ray.address, ray.cpus, ray.gpus"),
        ({"name": "ray", "settings": ["gpus"]}, "`--engine-set` should look like `slurm.partition=gpu`."),
        ({"name": "ray", "settings": ["ray=1"]}, "should be one of ray.address"),
        (
            {"name": "ray", "settings": ["ray.gpus=-1"]},
            "`ray.gpus` should be greater than or equal to 0. Found `ray.gpus = -1`.",
        ),
        ({"name": "slurm", "settings": ["slurm.cpus=many"]}, "`slurm.cpus` should be a whole number."),
        ({"name": "slurm", "settings": ["slurm.minutes=0"]}, "`slurm.minutes` should be greater than"),
        (
            {"name": "slurm", "settings": ["slurm.options=long"]},
            "`slurm.options` should be `key: value` lines",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_opened(options, message, monkeypatch):
    monkeypatch.setattr(
        "knowhue.engines.executor.ENGINES", dict.fromkeys(ENGINES, lambda *_: pytest.fail("opened"))
    )
    with pytest.raises(ConfigError) as refused:
        open_engine(**options)
    assert message in str(refused.value)


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_an_engine_whose_library_is_not_installed_says_how_to_install_it(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"knowhue.engines.{name}", raising=False)
    with pytest.raises(ExtraError, match=rf"`knowhue ... --engine {name}` needs `{package}`.*\.\[{name}\]"):
        open_engine(name)


def test_no_library_of_an_engine_is_imported_for_another():
    script = (
        "import sys; from knowhue.engines.executor import open_engine; open_engine(); open_engine(workers=2);"
        "print({'submitit', 'ray', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_slurm_is_refused_where_its_commands_are_not(monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"a machine of a Slurm cluster. Found no `sbatch` on the PATH"):
        open_engine("slurm", tmp_path)
