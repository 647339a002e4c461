"""Ray's tasks: which cluster, and what is said where it has not what is asked for."""

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")

from knowhue.engines.choice import open_engine
from knowhue.engines.executor import Job
from knowhue.errors import ConfigError


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


def test_without_jobs_no_cluster_is_begun():
    open_engine("ray", settings=["ray.address=nonsense"]).execute([])


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("setting", ["gpus=64", "memory_gb=40000"])
def test_what_this_machine_has_not_is_said_at_once(setting):
    name, _, value = setting.partition("=")
    engine = open_engine("ray", settings=[f"ray.{setting}"])
    with pytest.raises(
        ConfigError, match=rf"`ray.{name}` should be at most .*Found `ray.{name} = {float(value):g}`"
    ):
        engine.execute([Job("a", print)])
