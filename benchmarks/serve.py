"""Does looking at several images together pay? Throughput and waiting, with batches and without; and memory.

python benchmarks/serve.py [--model built-in] [--clients 1 8 64] [--requests 200] [--rounds 3]
    [--flat 5000] [--mixed 2000]

Both servers run in one process over one model, at two ports, and are measured in turn, round by round, so that what
else the machine does falls on both.
"""

import argparse
import asyncio
import io
import multiprocessing
import os
import threading
import time
from http.client import HTTPConnection
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

BATCHED, ALONE = "batches of up to 8", "one at a time"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="built-in")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=200, help="a round; four a client at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--flat", type=int, default=5000, help="requests over which memory is watched; 0 skips it"
    )
    parser.add_argument(
        "--mixed",
        type=int,
        default=2000,
        help="requests of random sizes and formats, memory watched; 0 skips it",
    )
    asked = parser.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=run_servers, args=(asked.model, theirs), daemon=True
    )
    process.start()
    ports: dict[str, int] = ours.recv()
    images = [photo(seed) for seed in range(16)]
    sizes = [len(image) // 1024 for image in images]
    print(
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; 512 x 384 JPEG, {min(sizes)} to {max(sizes)} KiB"
    )
    for port in ports.values():
        load(port, images, 4, 40)
    for clients in asked.clients:
        compare(ports, images, clients, max(asked.requests, 4 * clients), asked.rounds)
    if asked.flat:
        watch_memory(process.pid or 0, ports[BATCHED], images, asked.flat)
    if asked.mixed:
        watch_memory(process.pid or 0, ports[BATCHED], mixed(asked.mixed), asked.mixed)
    ours.send("stop")
    process.join(30)


def compare(ports: dict[str, int], images: list[bytes], clients: int, requests: int, rounds: int) -> None:
    """One number of clients, both servers in turn."""
    waits: dict[str, list[float]] = {name: [] for name in ports}
    seconds = dict.fromkeys(ports, 0.0)
    for _ in range(rounds):
        for name, port in ports.items():
            took, each = load(port, images, clients, requests)
            seconds[name] += took
            waits[name] += each
    rates = {name: len(waits[name]) / seconds[name] for name in ports}
    for name, each in waits.items():
        p50, p99 = np.percentile(each, [50, 99]) * 1000
        print(
            f"{clients:3d} clients, {name:18s}: {rates[name]:6.1f}/s, p50 {p50:6.0f} ms, p99 {p99:6.0f} ms",
            flush=True,
        )
    print(f"{clients:3d} clients, ratio of throughputs: {rates[BATCHED] / rates[ALONE]:.2f}", flush=True)


def load(port: int, images: list[bytes], clients: int, requests: int) -> tuple[float, list[float]]:
    """Seconds in all, and of each request, of clients that send one after the other."""
    numbers, waits = count(), []

    def client() -> None:
        link = HTTPConnection("127.0.0.1", port, timeout=120)
        while (number := next(numbers)) < requests:
            started = time.perf_counter()
            link.request("POST", "/v1/colorize", images[number % len(images)], {"content-type": "image/*"})
            answer = link.getresponse()
            data = answer.read()
            if answer.status != 200 or answer.headers.get_content_maintype() != "image":
                raise SystemExit(f"answered {answer.status}: {data[:200]!r}")
            waits.append(time.perf_counter() - started)
        link.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(waits) != requests:
        raise SystemExit(f"{requests - len(waits)} requests were not answered")
    return time.perf_counter() - started, waits


def watch_memory(process: int, port: int, images: list[bytes], requests: int) -> None:
    """Resident memory of the servers' process while it answers."""
    step, sizes = max(1, requests // 10), [resident_mib(process)]
    for _ in range(10):
        load(port, images, 8, step)
        sizes.append(resident_mib(process))
    slope = np.polyfit(np.arange(2, 11) * step, sizes[2:], 1)[0] * 1000
    print(f"memory, MiB before and after each {step} requests: {', '.join(f'{size:.0f}' for size in sizes)}")
    print(f"trend after the first {2 * step}: {slope:+.1f} MiB a thousand requests")


def resident_mib(process: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def photo(seed: int) -> bytes:
    """Smooth noise, about as large a file as a photo of its size."""
    chance = np.random.default_rng(seed)
    shapes = Image.fromarray(chance.integers(0, 256, (12, 16), dtype=np.uint8)).resize(
        (512, 384), Image.Resampling.BICUBIC
    )
    grain = chance.normal(0, 6, (384, 512))
    values = np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "jpeg", quality=85)
    return file.getvalue()


def mixed(count: int, seed: int = 0) -> list[bytes]:
    """Noise of 1 to 300 pixels a side in four formats: ever new shapes, for all that keeps something for a shape."""
    chance, made = np.random.default_rng(seed), []
    for number in range(count):
        file, shape = io.BytesIO(), chance.integers(1, 301, 2)
        values = chance.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(values).save(file, ("jpeg", "png", "webp", "tiff")[number % 4])
        made.append(file.getvalue())
    return made


def run_servers(model: str, link: Connection) -> None:
    """Both servers, until told to stop."""
    from knowhue.inference.colorizer import Colorizer
    from knowhue.serving.api import make_app
    from knowhue.serving.run import Server, listening
    from knowhue.serving.settings import ServerSettings

    colorizer, servers, sockets = Colorizer.load(model), [], []
    for batch_size in (8, 1):
        settings = ServerSettings(port=0, batch_size=batch_size, queue_length=256)
        servers.append(Server(make_app({"model": colorizer}, settings), settings))
        sockets.append(listening(settings))

    async def both() -> None:
        running = [
            asyncio.create_task(each.serve([opened])) for each, opened in zip(servers, sockets, strict=True)
        ]
        while not all(each.started for each in servers):
            await asyncio.sleep(0.05)
        link.send(dict(zip((BATCHED, ALONE), (opened.getsockname()[1] for opened in sockets), strict=True)))
        await asyncio.to_thread(link.recv)
        for each in servers:
            each.should_exit = True
        await asyncio.gather(*running)

    asyncio.run(both())


if __name__ == "__main__":
    main()
