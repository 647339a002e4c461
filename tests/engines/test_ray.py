"""Ray tasks: the choice of a cluster, and errors if it lacks the requested resources."""

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")

from knowhue.engines.executor import Job, RaySettings, open_engine
from knowhue.engines.ray import _require_resources
from knowhue.errors import ConfigError, RunError


@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1:9", "Connection refused"), ("nonsense", "Invalid address"), ("127.0.0.1:99999", "")],
)
def test_an_address_without_a_cluster_is_said_at_once(address, reason):
    engine = open_engine("ray", settings=[f"ray.address={address}"])
    with pytest.raises(
        ConfigError, match=rf"`ray.address` should be that of a running cluster.*{address}.*{reason}"
    ):
        engine.execute([Job("a", print)])


def test_a_ray_that_does_not_start_is_said(monkeypatch):
    def late(*_, **__):
        raise Exception("The current node timed out during startup\nThis could happen.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", late)
    with pytest.raises(
        RunError,
        match=r"Ray did not start on this machine: The current node timed out during startup\. Run the",
    ):
        open_engine("ray").execute([Job("a", print)])


def test_without_jobs_no_cluster_is_begun():
    open_engine("ray", settings=["ray.address=nonsense"]).execute([])


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("setting", ["gpus=64", "memory_gb=40000"])
def test_what_this_machine_has_not_is_said_at_once(setting):
    name, _, value = setting.partition("=")
    engine = open_engine("ray", settings=[f"ray.{setting}"])
    with pytest.raises(
        ConfigError, match=rf"^This machine should have .*`ray.{name} = {float(value):g}`.*Found at most"
    ):
        engine.execute([Job("a", print)])


@pytest.mark.usefixtures("ray")
def test_what_no_machine_of_a_cluster_has_is_said_at_once():
    open_engine("ray").execute([Job("a", print)])
    joined = open_engine("ray", settings=["ray.address=auto", "ray.gpus=64"])
    with pytest.raises(
        ConfigError,
        match=r"^One machine of the cluster should have .*Found at most .* 0 gpus, .*ray.autoscaling=true",
    ):
        joined.execute([Job("a", print)])


def test_a_task_is_run_on_one_machine():
    """It is not enough that two machines together have the resources."""
    machines = [{"CPU": 64.0, "memory": 2.0**33}, {"CPU": 2.0, "GPU": 1.0, "memory": 2.0**33}]
    _require_resources(RaySettings(address="auto", cpus=2, gpus=0.5, memory_gb=8), machines)
    with pytest.raises(
        ConfigError, match=r"`ray.cpus = 4`, `ray.gpus = 1`\. .*at most 64 cpus, 1 gpus, .*Start one"
    ):
        _require_resources(RaySettings(address="auto", cpus=4, gpus=1), machines)
    with pytest.raises(
        ConfigError, match=r"^One machine of the cluster should have `ray.cpus = 65`\. .*64 cpus"
    ):
        _require_resources(RaySettings(address="auto", cpus=65), machines)
