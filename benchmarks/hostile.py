"""Thousands of wrong, broken and malicious requests to a running server: its responses, leaks and cost.

python benchmarks/hostile.py [--model built-in] [--inputs 12000] [--rounds 5] [--seed 1] [--slow 200] [--readers 40]

The requests are those of tests/serving/hostile_corpus.py; the server runs in a separate process, so that its memory
and its survival can be observed.
"""

import argparse
import io
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from http.client import HTTPConnection
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving"))
from hostile_corpus import SECRET, Request, fault_of, hostile, image, send

UPLOAD_SECONDS = 3
UNANSWERED = "no answer"
_BEGUN = b"POST /v1/colorize HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\n"
STARVING = {
    "slow uploads": (_BEGUN + b"content-length: 9999\r\n\r\n\xff", "408"),
}
"""The start of a request that is never finished, and the status that ends it."""


def main() -> None:
    """Send the attacks, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="built-in", help="model to serve")
    parser.add_argument("--inputs", type=int, default=12_000, help="requests per round")
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="repetitions of the same requests; a memory leak still grows in the last",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the requests")
    parser.add_argument(
        "--slow", type=int, default=200, help="simultaneous clients that stop within a request"
    )
    parser.add_argument(
        "--readers", type=int, default=40, help="clients that request 7 MB and do not read it"
    )
    args = parser.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=run_server, args=(args.model, theirs), daemon=True
    )
    process.start()
    port: int = ours.recv()
    faults = attack(port, process.pid or 0, list(islice(hostile(args.seed), args.inputs)), args.rounds)
    for kind, (head, cut_off) in STARVING.items():
        faults += starve(port, args.slow, kind, head, cut_off)
    faults += read_slowly(port, process.pid or 0, args.readers)
    ours.send("stop")
    process.join(30)
    print(f"server ended with {process.exitcode}; faults: {len(faults)}")
    for fault in faults[:20]:
        print("  ", fault)
    sys.exit(1 if faults or process.exitcode else 0)


def attack(port: int, process: int, inputs: list[Request], rounds: int) -> list[str]:
    """Send the corpus several times, and return the faults."""
    statuses: dict[str, Counter[int]] = {}
    faults: list[str] = []
    before, started, slowest = set(Path(tempfile.gettempdir()).iterdir()), time.perf_counter(), (0.0, "")
    sizes = [resident_mib(process)]
    for turn in range(rounds):
        for number, request in enumerate(inputs):
            begun = time.perf_counter()
            status, fault = once(port, request)
            took = time.perf_counter() - begun
            slowest = max(slowest, (took, f"{request.kind} of {len(request.body)} bytes, {status}"))
            statuses.setdefault(request.kind, Counter())[status] += 1
            if fault:
                faults.append(f"{turn}.{number} {request.kind} {request.method} {request.path[:80]}: {fault}")
        sizes.append(resident_mib(process))
    count, seconds = rounds * len(inputs), time.perf_counter() - started
    print(f"{count} requests in {seconds:.0f} s, the slowest {slowest[0]:.2f} s ({slowest[1]})")
    for kind, counted in statuses.items():
        print(f"  {kind:11s} {', '.join(f'{status}: {times}' for status, times in sorted(counted.items()))}")
    made = [path for path in set(Path(tempfile.gettempdir()).iterdir()) - before if "pwned" in path.name]
    print(f"memory, MiB before and after each round: {', '.join(f'{size:.0f}' for size in sizes)}")
    return faults + [f"made {path}" for path in made]


def once(port: int, request: Request, tries: int = 3) -> tuple[int, str | None]:
    """Send a request; return its status and a fault of the response, if any.

    Retries, because a client that is refused while it sends may be disconnected before it can read the response.
    """
    link = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        response = send(link, request)
        return response.status, fault_of(request, response)
    except ConnectionError as error:
        if tries == 1:
            return 0, f"no answer: {type(error).__name__} {error}"
    except Exception as error:
        return 0, f"no answer: {type(error).__name__} {error}"
    finally:
        link.close()
    return once(port, request, tries - 1)


def starve(port: int, clients: int, kind: str, head: bytes, cut_off: str) -> list[str]:
    """Open many connections with unfinished requests; a valid one must still be answered, and they must be ended."""
    links = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(clients)]
    for link in links:
        link.sendall(head)
    started = time.perf_counter()
    good, fault = once(port, Request("good", "/v1/colorize", image(random.Random(0))))
    took = time.perf_counter() - started
    answers = Counter(link.recv(100)[9:12].decode() or UNANSWERED for link in links)
    ended = time.perf_counter() - started
    print(
        f"{clients} {kind} at once: a valid request was answered {good} in {took:.2f} s; they were ended after"
    )
    print(f"  {ended:.1f} s: {', '.join(f'{status}: {times}' for status, times in answers.items())}")
    for link in links:
        link.close()
    return [f"{kind}: {fault}"] if fault or good != 200 or set(answers) != {cut_off} else []


def read_slowly(port: int, process: int, clients: int) -> list[str]:
    """Request large responses and do not read them: memory, other clients, and time until they are disconnected."""
    values = np.random.default_rng(0).integers(0, 256, (1600, 1600), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "png")
    head = _BEGUN.replace(b"jpeg", b"png") + f"content-length: {file.tell()}\r\n\r\n".encode()
    before, most, links = resident_mib(process), 0.0, []
    for _ in range(clients):
        links.append(socket.create_connection(("127.0.0.1", port), timeout=90))
        links[-1].sendall(head + file.getvalue())
    answers = Counter(link.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)[9:].decode() for link in links)
    started, good, fault = (
        time.perf_counter(),
        *once(port, Request("good", "/v1/colorize", image(random.Random(0)))),
    )
    took = time.perf_counter() - started
    while (held := held_mib(port)) > 0 and time.perf_counter() - started < 120:
        most = max(most, held, 0.0)
        time.sleep(0.5)
    ended = time.perf_counter() - started
    for link in links:
        link.close()
    statuses = ", ".join(f"{status}: {times}" for status, times in answers.items())
    print(
        f"{clients} readers that do not read: {statuses}; a valid request was answered {good} in {took:.2f} s"
    )
    print(
        f"  {most:.0f} MiB held, none after {ended:.0f} s; memory {before:.0f}, {resident_mib(process):.0f} MiB"
    )
    return [f"slow readers: {fault}, {held} MiB held"] if fault or good != 200 or held else []


def held_mib(port: int) -> float:
    """MiB of responses and uploads held by the server, from its metrics."""
    link = HTTPConnection("127.0.0.1", port, timeout=30)
    link.request("GET", "/metrics")
    text = link.getresponse().read().decode()
    link.close()
    held = next(line for line in text.splitlines() if line.startswith("knowhue_held_bytes "))
    return float(held.split()[1]) / (1 << 20)


def resident_mib(process: int) -> float:
    """Resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def run_server(model: str, link: Connection) -> None:
    """Run a server until `link` sends a message."""
    import asyncio

    from knowhue.inference.colorizer import Colorizer
    from knowhue.serving.api import make_app
    from knowhue.serving.run import Server, listening
    from knowhue.serving.settings import ServerSettings

    os.environ["KNOWHUE_SECRET"] = SECRET  # leaks if anything prints the environment
    settings = ServerSettings(port=0, upload_seconds=UPLOAD_SECONDS)
    models = {"model": Colorizer.load(model)}
    server = Server(make_app(models, settings, with_page=True), settings)

    async def run(opened: socket.socket) -> None:
        serving = asyncio.create_task(server.serve([opened]))
        while not server.started:
            await asyncio.sleep(0.05)
        link.send(opened.getsockname()[1])
        await asyncio.to_thread(link.recv)
        server.should_exit = True
        await serving

    with listening(settings) as opened:
        asyncio.run(run(opened))


if __name__ == "__main__":
    main()
