"""Effect of predicting several images at once in the server: throughput and latency with and without batches; memory.

python benchmarks/serve.py [--model built-in] [--clients 1 8 64] [--requests 200] [--rounds 3]
    [--flat 5000] [--mixed 2000]

Both servers run in one process with one model, at two ports, and are measured alternately in rounds, so that other load
on the machine affects both.
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
    """Measure both servers and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="built-in", help="model to serve")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 8, 64], help="numbers of simultaneous clients"
    )
    parser.add_argument(
        "--requests", type=int, default=200, help="requests per round; at least four per client"
    )
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds")
    parser.add_argument(
        "--flat", type=int, default=5000, help="requests during which memory is sampled; 0 skips this"
    )
    parser.add_argument(
        "--mixed",
        type=int,
        default=2000,
        help="requests of random sizes and formats, also with memory sampled; 0 skips this",
    )
    args = parser.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=run_servers, args=(args.model, theirs), daemon=True
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
    for clients in args.clients:
        compare(ports, images, clients, max(args.requests, 4 * clients), args.rounds)
    if args.flat:
        watch_memory(process.pid or 0, ports[BATCHED], images, args.flat)
    if args.mixed:
        watch_memory(process.pid or 0, ports[BATCHED], mixed(args.mixed), args.mixed)
    ours.send("stop")
    process.join(30)


def compare(ports: dict[str, int], images: list[bytes], clients: int, requests: int, rounds: int) -> None:
    """Compare both servers with one number of clients."""
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
    """Total seconds, and those of each request, of clients that each send one request after another."""
    numbers, waits = count(), []

    def client() -> None:
        link = HTTPConnection("127.0.0.1", port, timeout=120)
        while (number := next(numbers)) < requests:
            started = time.perf_counter()
            link.request("POST", "/v1/colorize", images[number % len(images)], {"content-type": "image/*"})
            answer = link.getresponse()
            data = answer.read()
            if answer.status != 200 or answer.headers.get_content_maintype() != "image":
                raise SystemExit(f"response {answer.status}: {data[:200]!r}")
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
    """Print the resident memory of the servers' process during requests."""
    step, sizes = max(1, requests // 10), [resident_mib(process)]
    for _ in range(10):
        load(port, images, 8, step)
        sizes.append(resident_mib(process))
    slope = np.polyfit(np.arange(2, 11) * step, sizes[2:], 1)[0] * 1000
    print(f"memory, MiB before and after each {step} requests: {', '.join(f'{size:.0f}' for size in sizes)}")
    print(f"trend after the first {2 * step}: {slope:+.1f} MiB per thousand requests")


def resident_mib(process: int) -> float:
    """Resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def photo(seed: int) -> bytes:
    """Smooth noise as JPEG; the file is about as large as that of a photo of this size."""
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
    """Noise with sides of 1 to 300 pixels in four formats; new shapes reveal caches that grow with every shape."""
    chance, made = np.random.default_rng(seed), []
    for number in range(count):
        file, shape = io.BytesIO(), chance.integers(1, 301, 2)
        values = chance.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(values).save(file, ("jpeg", "png", "webp", "tiff")[number % 4])
        made.append(file.getvalue())
    return made


def run_servers(model: str, link: Connection) -> None:
    """Run both servers until `link` sends a message."""
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
