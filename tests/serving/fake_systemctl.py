"""The part of `systemctl` that `examples/replicas` uses: it starts a unit's `ExecStart` and stops it with SIGTERM.

`install(folder, unit)` writes it into a folder, which the test adds to the PATH; the folder also has the process id and
the output of each instance.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

UNIT = "knowhue@.service"


def install(folder: Path, unit: str) -> None:
    folder.mkdir()
    (folder / UNIT).write_text(unit)
    (folder / "systemctl").write_text(
        f"#!{sys.executable} -S\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import fake_systemctl\nfake_systemctl.main(fake_systemctl.Path({str(folder)!r}), *sys.argv[1:])\n"
    )
    (folder / "systemctl").chmod(0o755)


def main(folder: Path, verb: str, *arguments: str) -> None:
    instance = arguments[-1].partition("@")[2]
    if verb in ("stop", "restart", "kill"):
        stop(folder, instance, signal.SIGKILL if "--signal=KILL" in arguments else signal.SIGTERM)
    if verb in ("start", "restart"):
        start(folder, instance)


def start(folder: Path, instance: str) -> None:
    unit = (folder / UNIT).read_text().replace("%i", instance)
    (file,) = re.findall(r"^EnvironmentFile=(.*)$", unit, re.M)
    lines = [line for line in Path(file).read_text().splitlines() if not line.startswith("#")]
    environment = os.environ | dict(line.split("=", 1) for line in lines)
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.M)
    words = [
        word
        for part in shlex.split(command)
        for word in (environment[part[1:]].split() if part.startswith("$") else [part])
    ]
    with (folder / f"{instance}.log").open("ab") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    (folder / f"{instance}.pid").write_text(str(process.pid))


def stop(folder: Path, instance: str, by: signal.Signals) -> None:
    """Stop an instance and wait for its end, if it is running."""
    path = folder / f"{instance}.pid"
    if not path.exists():
        return
    process = int(path.read_text())
    os.kill(process, by)
    while is_alive(process):
        time.sleep(0.02)
    path.unlink()


def is_alive(process: int) -> bool:
    try:  # Z: a zombie, which has ended but was not waited for
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
