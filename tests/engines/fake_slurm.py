"""The parts of Slurm's commands that knowhue uses, on one machine and without a controller: jobs are processes.

`install(folder)` writes the commands into a folder, which the test adds to the PATH. A file `limit` in it contains the
largest number of queued jobs. Each job has its own process, which waits for the jobs that it needs.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

LIVING = ("PENDING", "RUNNING")


def install(folder: Path) -> None:
    folder.mkdir(parents=True)
    for command in ("sbatch", "srun", "squeue", "scancel", "scontrol"):
        (folder / command).write_text(
            f"#!{sys.executable} -S\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import fake_slurm\nfake_slurm.{command}(fake_slurm.Path({str(folder)!r}))\n"
        )
        (folder / command).chmod(0o755)


def state(job: Path) -> str:
    return (job / "state").read_text()


def set_state(job: Path, new: str) -> None:
    (job / ".state").write_text(new)
    (job / ".state").replace(job / "state")


def jobs(home: Path) -> list[Path]:
    return sorted((path for path in home.glob("job-*") if (path / "state").exists()), key=number)


def number(job: Path) -> int:
    return int(job.name.partition("-")[2])


def sbatch(home: Path) -> None:
    script = Path(sys.argv[1]).read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.M))
    if options.get("partition") == "nowhere":
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    limit = home / "limit"
    if limit.exists() and len([job for job in jobs(home) if state(job) in LIVING]) >= int(limit.read_text()):
        sys.exit(
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
            "accounting/QOS policy (job submit limit, user's size and/or time limits)"
        )
    job = home / f"job-{len(jobs(home)) + 1}"
    job.mkdir()
    (job / "script").write_text(script)
    (job / "name").write_text(options["job-name"])
    (job / "options").write_text("\n".join(f"{key}={value}" for key, value in sorted(options.items())))
    set_state(job, "PENDING")
    if os.fork() == 0:
        os.setsid()
        silent = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silent, descriptor)
        (job / "pid").write_text(str(os.getpid()))
        follow(home, job, options.get("dependency", ""))
        os._exit(0)
    print(f"Submitted batch job {number(job)}")


def follow(home: Path, job: Path, dependency: str) -> None:
    dependency = dependency.strip("'")
    needs = [home / f"job-{each}" for each in re.findall(r":(\d+)", dependency)]
    if "singleton" in dependency:
        name = (job / "name").read_text()
        before = [
            each for each in jobs(home) if number(each) < number(job) and (each / "name").read_text() == name
        ]
        while any(state(each) in LIVING for each in before):
            time.sleep(0.05)
    while not all(state(each) == "COMPLETED" for each in needs):
        if any(state(each) not in (*LIVING, "COMPLETED") for each in needs):
            return set_state(job, "CANCELLED")
        time.sleep(0.05)
    environment = {"SLURM_JOB_ID": str(number(job)), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
    while state(job) == "PENDING":
        set_state(job, "RUNNING")
        code = subprocess.run(["bash", job / "script"], check=False, env=os.environ | environment).returncode
        if state(job) == "RUNNING":  # otherwise it was queued again
            set_state(job, "FAILED" if code else "COMPLETED")
    return None


def srun(home: Path) -> None:
    arguments = sys.argv[1:]
    while arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option in ("--output", "--error"):
            path = arguments.pop(0).replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1 if option == "--output" else 2)
    os.execvp(arguments[0], arguments)


def squeue(home: Path) -> None:
    for job in jobs(home):
        if state(job) in LIVING:
            print(number(job), (job / "name").read_text())


def scancel(home: Path) -> None:
    for each in sys.argv[1:]:
        job = home / f"job-{each}"
        if state(job) in LIVING:
            set_state(job, "CANCELLED")
            os.killpg(int((job / "pid").read_text()), signal.SIGKILL)


def scontrol(home: Path) -> None:
    assert sys.argv[1] == "requeue"
    set_state(home / f"job-{sys.argv[2]}", "PENDING")
