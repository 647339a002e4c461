"""A Slurm cluster of two nodes on one machine, run by root in its own folder (Debian's `slurm-wlm` and `munge`)."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DAEMONS = ("munged", "slurmctld", "slurmd")
NODES = {"n1": 27011, "n2": 27012}
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=27001
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerParameters=sched_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdTimeout=10
KillWait=5
ReturnToService=2
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Daemons that are not installed; `apt-get install slurm-wlm munge` installs all."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [each for each in DAEMONS if shutil.which(each, path=path) is None]


class Process(NamedTuple):
    id: int
    parent: int
    name: str
    environment: list[str]


def processes() -> list[Process]:
    """The processes of this machine, from /proc."""
    found = []
    for home in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = (home / "stat").read_text().partition("(")[2].rpartition(")")
            environment = (home / "environ").read_text(errors="replace").split("\0")
            found.append(Process(int(home.name), int(rest.split()[1]), name, environment))
    return found


class Cluster:
    """Starts, observes and stops the cluster's daemons; a node's daemon has the node's name."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        nodes = [
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=1000"
            for name, port in NODES.items()
        ]
        text = CONFIGURATION.format(home=self.home, host=socket.gethostname(), nodes="\n".join(nodes))
        (self.home / "slurm.conf").write_text(text)
        (self.home / "munge.key").write_bytes(os.urandom(128))
        (self.home / "munge.key").chmod(0o400)
        (self.home / "state").mkdir()
        files = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        own = [f"--{name}={self.home}/munge.{name.removesuffix('-file')}" for name in files]
        self._begin("munge", ["munged", "--foreground", "--force", *own])
        self._begin("controller", ["slurmctld", "-D"])
        for name in NODES:
            (self.home / f"spool-{name}").mkdir()
            self._begin(name, ["slurmd", "-D", "-N", name])
        deadline = time.monotonic() + 120
        while self.idle() != sorted(NODES):
            assert time.monotonic() < deadline, (self.home / "slurmctld.log").read_text()[-2000:]
            time.sleep(1)

    def _begin(self, name: str, command: list[str]) -> None:
        log = (self.home / f"{name}.out").open("wb")
        environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        self._daemons[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        log.close()

    def idle(self) -> list[str]:
        """Names of the idle nodes."""
        result = subprocess.run(["sinfo", "-hN", "-o", "%N %t"], capture_output=True, text=True, check=False)
        return sorted(line.split()[0] for line in result.stdout.splitlines() if line.endswith(" idle"))

    def on(self, node: str) -> list[str]:
        """Ids of the jobs that run on a node."""
        result = subprocess.run(
            ["squeue", "-h", "-w", node, "-t", "R", "-o", "%i"], capture_output=True, text=True, check=False
        )
        return result.stdout.split()

    def lose(self, node: str) -> None:
        """Kill a node as a power failure would: first the daemons that could report the end of jobs, then the jobs."""
        self._daemons[node].kill()
        own = [process for process in processes() if f"SLURMD_NODENAME={node}" in process.environment]
        parents = {process.parent for process in own}
        steps = [process for process in processes() if process.id in parents and process.name == "slurmstepd"]
        for process in (*steps, *own):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.id, signal.SIGKILL)

    def stop(self) -> None:
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()


@contextlib.contextmanager
def cluster(home: Path) -> Iterator[Cluster]:
    """Run a cluster during the block; `SLURM_CONF` must be the path of `slurm.conf` in its folder."""
    made = Cluster(home)
    try:
        made.start()
        yield made
    finally:
        made.stop()
