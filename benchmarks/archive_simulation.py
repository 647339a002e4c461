"""Time and cost of colouring an archive in shards on a cluster: one worker is measured, a thousand are simulated.

A shard is a job of `knowhue colorize --shards`, which resumes after a kill. The simulation assigns shards to workers as
an engine does, and loses workers at a given rate. Each number that was not measured here is an assumption, and an
option.

    python benchmarks/archive_simulation.py measure [--fast]          # one worker: startup, an image
    python benchmarks/archive_simulation.py check --workers 1 2 4     # a real run against the simulated one
    python benchmarks/archive_simulation.py tables

`check` and `tables` take the output of `measure` as options: --start-s 2.53 --image-s 0.1238 (with --fast 1.80 and
0.0413, and --network-s 0.0155).
"""

import argparse
import heapq
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from colorize_folder import make_images

HOUR = 3600.0


class Engine(NamedTuple):
    """Properties of an engine that runs shards."""

    starts_per_s: float
    """number of shards that it can start per second"""
    starts_anew: bool
    """whether each shard starts a new process"""
    noticed_s: float
    """seconds from the loss of a worker until its shard can be started again"""
    most: int
    """largest number of queued shards by default"""


ENGINES = {
    # Slurm's guide for high throughput: 500 jobs a second, on a tuned controller; a tenth is assumed.
    # A lost node: 27 s until the loss is noticed, then two minutes in which Slurm holds the job (docs/scale.md).
    # `MaxJobCount` of slurm.conf; an array has at most `MaxArraySize` - 1 = 1,000 jobs.
    "slurm": Engine(50, True, 147, 10_000),
    # The starts are assumed; the rest is from docs/scale.md and from Ray's table of tested limits.
    "ray": Engine(1000, False, 20, 1_000_000),
}


class Archive(NamedTuple):
    """An archive, its workers and their speed."""

    images: int
    shards: int
    workers: int
    image_s: float
    """seconds of one core per image, on average"""
    start_s: float
    """seconds of one core before a worker's first image: imports, the model, compiled code"""
    shard_spread: float = 0.2
    """relative standard deviation of a shard's seconds per image, since folders have photos of different sizes"""
    slow_share: float = 0.02
    """share of workers that are slow"""
    slow_speed: float = 0.5
    """speed of a slow worker, relative to the others"""
    losses_an_hour: float = 0.01
    """losses per worker and hour; 0.01 is one in four days"""
    replaced_s: float = 300.0
    """seconds until a lost worker is replaced"""
    listing_s: float = 0.0
    """seconds before the first shard is known"""
    request_s: float = 0.0
    """seconds of an object store to read or write one image; 0 for a file system"""
    refused: float = 0.0
    """share of requests that the store answers with 503; they are repeated after `retry_s`"""
    retry_s: float = 1.0
    in_flight: int = 8
    """number of simultaneous requests of a worker, while it computes"""
    store_images_per_s: float = float("inf")
    """limit of the store for all workers together"""

    @property
    def work_s(self) -> float:
        """Seconds of one core for all images, without startup."""
        return self.images * self.image_s

    @property
    def waits_s(self) -> float:
        """Shortest time between two images of a worker that the store allows, in seconds."""
        request = self.request_s + self.retry_s * self.refused / (1 - self.refused)
        return max(request / self.in_flight, self.workers / self.store_images_per_s)


class Outcome(NamedTuple):
    """Result of a simulation."""

    wall_s: float
    """seconds until the last image"""
    losses: int
    """number of lost workers"""
    again: int
    """number of images that were started twice"""

    def efficiency(self, archive: Archive) -> float:
        """Share of the workers' time spent on images that were not lost."""
        return archive.work_s / (self.wall_s * archive.workers)


def simulate(
    archive: Archive,
    engine: Engine,
    seed: int = 0,
    done: Callable[[int, int, int], None] = lambda shard, first, end: None,
) -> Outcome:
    """Assign the shard that waited longest to the worker that was free longest, until all images are done.

    Args:
        archive: see `Archive`.
        engine: see `Engine`.
        seed: seed of the random shards, slow workers and losses.
        done: called with a shard and the range of its images that one worker has done, first and end.
    """
    generator = np.random.default_rng(seed)
    sizes = np.full(archive.shards, archive.images // archive.shards)
    sizes[: archive.images % archive.shards] += 1
    variance = np.log1p(archive.shard_spread**2)  # of the logarithm of the spread
    spread = generator.lognormal(0.0, variance**0.5, archive.shards)
    # normalised, so that the total work is as given also with few shards
    cost = archive.image_s * spread / spread.mean()
    speed = np.where(generator.random(archive.workers) < archive.slow_share, archive.slow_speed, 1.0)
    at = np.zeros(archive.shards, int)
    waiting = [(archive.listing_s, shard) for shard in range(archive.shards)]
    free = [(0.0, worker) for worker in range(archive.workers)]
    has_process = np.zeros(archive.workers, bool)
    begun_s, wall_s, losses, again = 0.0, 0.0, 0, 0
    while waiting:
        (ready, shard), (idle, worker) = heapq.heappop(waiting), heapq.heappop(free)
        begun_s = max(ready, idle, begun_s) + 1 / engine.starts_per_s  # the engine starts one shard at a time
        start_s = 0.0 if has_process[worker] else archive.start_s / speed[worker]
        image_s = max(cost[shard] / speed[worker], archive.waits_s)
        end = begun_s + start_s + image_s * (sizes[shard] - at[shard])
        lost = begun_s + (
            generator.exponential(HOUR / archive.losses_an_hour) if archive.losses_an_hour else np.inf
        )
        first = at[shard]
        if lost < end:
            at[shard] += max(0, int((lost - begun_s - start_s) / image_s))
            losses, again = losses + 1, again + (lost > begun_s + start_s)
            heapq.heappush(waiting, (lost + engine.noticed_s, shard))
            heapq.heappush(free, (lost + archive.replaced_s, worker))
            has_process[worker] = False
        else:
            at[shard] = sizes[shard]
            wall_s = max(wall_s, end)
            heapq.heappush(free, (end, worker))
            has_process[worker] = not engine.starts_anew
        done(shard, int(first), int(at[shard]))
    return Outcome(float(wall_s), losses, int(again))


class Cost(NamedTuple):
    """Seconds of one core for startup, and per image."""

    start_s: float
    image_s: float


def measure(args: argparse.Namespace, root: Path) -> Cost:
    """Measure startup and time per image from two folders that differ in the number of images, by CPU time."""
    found = []
    for count in args.counts:
        make_images(root / f"{count}", count, args.width, args.height)
        found.append(
            min(_colour(root / f"{count}", root / f"out-{count}-{turn}", 0, args.fast) for turn in range(2))
        )
    (one, other), (small, large) = found, args.counts
    image_s = (other - one) / (large - small)
    return Cost(one - small * image_s, image_s)


def _colour(source: Path, out: Path, core: int, fast: bool) -> float:
    """Seconds of CPU for a shard."""
    knowhue = [sys.executable, "-m", "knowhue", "colorize", str(source), "--out", str(out)]
    command = ["taskset", "-c", str(core), *knowhue, *["--fast"] * fast]
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return used.ru_utime + used.ru_stime


def check(args: argparse.Namespace, root: Path) -> None:
    """Run the same shards for real, in processes that take the next shard when they are free."""
    for shard in range(args.shards):
        make_images(root / "in" / f"{shard}", args.images, args.width, args.height)
    cores = sorted(os.sched_getaffinity(0))
    for workers in args.workers:
        free: SimpleQueue[int] = SimpleQueue()
        for worker in range(workers):
            free.put(cores[worker % len(cores)])

        def shard(number: int, free: SimpleQueue[int] = free, out: Path = root / f"out-{workers}") -> float:
            core = free.get()
            used = _colour(root / "in" / f"{number}", out / f"{number}", core, args.fast)
            free.put(core)
            return used

        begun = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            used = list(pool.map(shard, range(args.shards)))
        wall = time.perf_counter() - begun
        even = Archive(args.shards * args.images, args.shards, workers, args.image_s, args.start_s)
        even = even._replace(shard_spread=0, slow_share=0, losses_an_hour=0)
        predicted = simulate(even, ENGINES["slurm"]).wall_s
        spent = args.shards * args.start_s + even.work_s
        # on a busy machine a process gets only a part of its core: the predicted time is scaled by it
        given = sum(used) / (wall * workers)
        print(
            f"{workers} workers, {args.shards} shards of {args.images}: CPU {sum(used):.1f} s, predicted {spent:.1f} "
            f"({spent / sum(used) - 1:+.0%}); wall-clock {wall:.1f} s, each had {given:.0%} of a core; predicted "
            f"{predicted:.1f} s on whole cores, {predicted / given:.1f} on these ({predicted / given / wall - 1:+.0%})"
        )


def tables(args: argparse.Namespace) -> None:
    """Print the numbers of docs/scale.md."""
    base = Archive(args.total, 20_000, 1000, args.image_s, args.start_s, losses_an_hour=args.losses)
    print(f"{base.images:,} images of {1000 * base.image_s:g} ms, {base.work_s / HOUR:.0f} core hours\n")
    print("shards at 1,000 workers: minutes, efficiency, lost workers, images started twice")
    for shards in (1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000):
        _print_row(f"{shards:>9,}", base._replace(shards=shards))
    print(
        "\nworkers, each engine with the best of 1, 3, 10 or 30 shards per worker: minutes, efficiency, shards"
    )
    for workers in (1, 10, 100, 1000, 3000, 10_000, 30_000):
        cells = []
        for name, engine in ENGINES.items():
            tried = [base._replace(workers=workers, shards=workers * share) for share in (1, 3, 10, 30)]
            found = [(simulate(each, engine), each) for each in tried]
            best, archive = min(found, key=lambda pair: pair[0].wall_s)
            cells.append(
                f"{name} {best.wall_s / 60:8.1f} min {best.efficiency(archive):4.0%} {archive.shards:9,}"
            )
        print(f"{workers:>9,}", *cells, sep="  ", flush=True)
    print("\n1,000 workers, 20,000 shards, varied")
    flat = base.images / 1000 * args.list_s  # sequential requests of a thousand names
    for name, changes in {
        "as above": {},
        "no losses": {"losses_an_hour": 0},
        "a loss per worker and hour": {"losses_an_hour": 1},
        "no slow workers": {"slow_share": 0},
        "a tenth of the workers slow": {"slow_share": 0.1},
        "an object store: 30 ms, 5 % of 503, 8 requests at once": {"request_s": 0.03, "refused": 0.05},
        "the same, one request at once": {"request_s": 0.03, "refused": 0.05, "in_flight": 1},
        "an object store with 3,500 images a second": {"store_images_per_s": 3500},
        f"one flat folder, listed first: {flat:.0f} s": {"listing_s": flat},
    }.items():
        _print_row(f"{name:55}", base._replace(**changes))
    print("\na million images")
    cpu_h = 1e6 * base.image_s / HOUR
    own_s = base.image_s - args.network_s  # decoding, painting and encoding run on the CPU
    gpu_rate = min(args.gpu_images_per_s, args.gpu_cores / own_s)
    gpu_h = 1e6 / gpu_rate / HOUR
    print(f"  CPU: {cpu_h:.1f} core hours at {args.core_hour:g} = {cpu_h * args.core_hour:.2f}")
    print(
        f"  GPU: {gpu_rate:.0f} images/s = the smaller of {args.gpu_images_per_s:g} (assumed) and "
        f"{args.gpu_cores} cores / {1000 * own_s:.1f} ms; {gpu_h:.2f} hours at "
        f"{args.gpu_hour:g} = {gpu_h * args.gpu_hour:.2f}"
    )


def _print_row(name: str, archive: Archive) -> None:
    parts = [name]
    for engine, costs in ENGINES.items():
        found = [simulate(archive, costs, seed) for seed in range(3)]
        wall, share = np.mean([(each.wall_s, each.efficiency(archive)) for each in found], 0)
        losses, again = np.mean([(each.losses, each.again) for each in found], 0)
        most = f", more than {costs.most:,} queued" * (archive.shards > costs.most)
        parts.append(f"{engine} {wall / 60:8.1f} min {share:4.0%} {losses:5.0f} {again:5.0f}{most}")
    print("  ".join(parts), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, check, or print the tables."""
    args = _read_arguments(arguments)
    if args.what == "tables":
        tables(args)
        return
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        if args.what == "check":
            check(args, Path(folder))
        else:
            cost = measure(args, Path(folder))
            print(f"--start-s {cost.start_s:.2f} --image-s {cost.image_s:.4f}")


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "what",
        choices=["measure", "check", "tables"],
        help="measure a worker, check the simulation, or print the tables",
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers of `check`"
    )
    parser.add_argument("--shards", type=int, default=6, help="number of shards of `check`")
    parser.add_argument("--images", type=int, default=24, help="images per shard of `check`")
    parser.add_argument(
        "--counts", type=int, nargs=2, default=[24, 96], help="images in the two folders of `measure`"
    )
    parser.add_argument("--fast", action="store_true", help="predict at one size")
    parser.add_argument("--width", type=int, default=800, help="width of the images, in pixels")
    parser.add_argument("--height", type=int, default=600, help="height of the images, in pixels")
    parser.add_argument("--scratch", help="folder for images; by default the system's temporary folder")
    parser.add_argument("--total", type=int, default=10_000_000, help="images in the archive")
    parser.add_argument(
        "--image-s", type=float, default=0.1238, help="seconds of one core per image, measured"
    )
    parser.add_argument(
        "--network-s", type=float, default=0.098, help="seconds of the network, part of --image-s"
    )
    parser.add_argument(
        "--start-s", type=float, default=2.53, help="seconds of one core before the first image, measured"
    )
    parser.add_argument("--losses", type=float, default=0.01, help="losses per worker and hour; assumed")
    parser.add_argument(
        "--list-s", type=float, default=0.1, help="seconds of a request that lists 1,000 names; assumed"
    )
    parser.add_argument("--core-hour", type=float, default=0.04, help="price of a core hour; assumed")
    parser.add_argument(
        "--gpu-hour", type=float, default=2.5, help="price of an hour of a GPU with its cores; assumed"
    )
    parser.add_argument("--gpu-cores", type=int, default=16, help="cores of a machine with a GPU; assumed")
    parser.add_argument(
        "--gpu-images-per-s",
        type=float,
        default=1000,
        help="predictions of the network per second; assumed, not measured",
    )
    args = parser.parse_args(arguments)
    if not args.network_s < args.image_s:
        parser.error(
            f"--network-s should be less than --image-s, because it is a part of it. Found {args.network_s:g} of "
            f"{args.image_s:g}: set both"
        )
    return args


if __name__ == "__main__":
    main()
