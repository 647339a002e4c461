"""What an engine does for a study: runs jobs, each once its needs are met. The simplest engine is this process."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol


class Job(NamedTuple):
    """A piece of work that may be run again: what it did before lies in files, and is not repeated.

    So an engine need not know how far a job is. Whatever is lost, a process or a machine, the same job is run again;
    only one driver at a time hands out the jobs of a folder.

    Attributes:
        id: names the same work in every call; of several jobs with one id the first is run.
        run: does it. Engines that use other processes pickle it.
        needs: ids of the jobs that must have ended before.
    """

    id: str
    run: Callable[[], object]
    needs: tuple[str, ...] = ()


class Executor(Protocol):
    """Runs jobs; scheduling, placement and retries are its own."""

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """Run jobs, and return when all have ended.

        Args:
            jobs: in the order in which they are wanted; needs come before what needs them.
            watch: called every few seconds while jobs run elsewhere, and after the last one.

        Raises:
            KnowhueError: the first that a job raised, or the engine lost a job for good. What runs is stopped, what
                waits is not begun, and what has ended is kept: the same call goes on.
        """
        ...


class InProcess:
    """Runs jobs one after another, here, where each reports its own progress."""

    def execute(self, jobs: Sequence[Job], watch: Callable[[], None] = lambda: None) -> None:
        """See `Executor`; `watch` is not called."""
        del watch
        for job in each_once(jobs):
            job.run()


def each_once(jobs: Iterable[Job]) -> list[Job]:
    """The jobs without repeated ids."""
    found: dict[str, Job] = {}
    for job in jobs:
        found.setdefault(job.id, job)
    return list(found.values())
