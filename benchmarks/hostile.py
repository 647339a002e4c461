"""Thousands of wrong, broken and malicious requests to a real server: what it answered, what leaked, what it cost.

python benchmarks/hostile.py [--model built-in] [--inputs 20000] [--seed 1] [--slow 200]

The attacks are those of tests/serving/hostile_corpus.py; the server runs in its own process, so that its memory and
its life can be watched.
"""

import argparse
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

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving"))
from hostile_corpus import SECRET, Sent, fault_of, hostile, picture, send

UPLOAD_SECONDS = 3


def main() -> None:
    """Attack, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="built-in")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--slow", type=int, default=200, help="clients that send a byte at a time, all at once"
    )
    asked = parser.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=run_server, args=(asked.model, theirs), daemon=True
    )
    process.start()
    port: int = ours.recv()
    faults = attack(port, process.pid or 0, asked.inputs, asked.seed)
    faults += starve(port, asked.slow)
    ours.send("stop")
    process.join(30)
    print(f"server ended with {process.exitcode}; faults: {len(faults)}")
    for fault in faults[:20]:
        print("  ", fault)
    sys.exit(1 if faults or process.exitcode else 0)


def attack(port: int, process: int, inputs: int, seed: int) -> list[str]:
    """Send the corpus; returns what was wrong."""
    statuses: dict[str, Counter[int]] = {}
    faults, sizes = [], []
    before, started, slowest = set(Path(tempfile.gettempdir()).iterdir()), time.perf_counter(), (0.0, "")
    for number, sent in enumerate(islice(hostile(seed), inputs)):
        begun = time.perf_counter()
        status, fault = once(port, sent)
        slowest = max(
            slowest, (time.perf_counter() - begun, f"{sent.kind} of {len(sent.body)} bytes, {status}")
        )
        statuses.setdefault(sent.kind, Counter())[status] += 1
        if fault:
            faults.append(f"{number} {sent.kind} {sent.method} {sent.path[:80]}: {fault}")
        if number % max(1, inputs // 20) == 0:
            sizes.append(resident_mib(process))
    print(
        f"{inputs} inputs in {time.perf_counter() - started:.0f} s, the slowest {slowest[0]:.2f} s ({slowest[1]})"
    )
    for kind, counted in statuses.items():
        print(f"  {kind:11s} {', '.join(f'{status}: {times}' for status, times in sorted(counted.items()))}")
    made = [path for path in set(Path(tempfile.gettempdir()).iterdir()) - before if "pwned" in path.name]
    faults += [f"made {path}" for path in made]
    trend = (
        np.polyfit(np.arange(len(sizes) - 4), sizes[4:], 1)[0] * (len(sizes) - 4) if len(sizes) > 8 else 0.0
    )
    print(
        f"memory {sizes[0]:.0f} MiB at first, {sizes[-1]:.0f} MiB at last; {trend:+.1f} MiB over the last four fifths"
    )
    return faults


def once(port: int, sent: Sent) -> tuple[int, str | None]:
    """Status, and what is wrong with the answer."""
    link = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        got = send(link, sent)
        return got.status, fault_of(sent, got)
    except Exception as error:
        return 0, f"no answer: {type(error).__name__} {error}"
    finally:
        link.close()


def starve(port: int, clients: int) -> list[str]:
    """Hold many connections with slow uploads; a good request must still be answered, and they be cut off."""
    lines = (
        b"POST /v1/colorize HTTP/1.1",
        b"host: localhost",
        b"content-type: image/jpeg",
        b"content-length: 9999",
    )
    head = b"\r\n".join((*lines, b"", b"\xff"))
    links = [
        socket.create_connection(("127.0.0.1", port), timeout=UPLOAD_SECONDS * 4) for _ in range(clients)
    ]
    for link in links:
        link.sendall(head)
    started = time.perf_counter()
    good, fault = once(port, Sent("good", "/v1/colorize", picture(random.Random(0))))
    took = time.perf_counter() - started
    answers = Counter(link.recv(100)[9:12].decode() for link in links)
    print(
        f"{clients} slow uploads at once: a good one was answered {good} in {took:.2f} s; they: {dict(answers)}"
    )
    for link in links:
        link.close()
    return [f"slow uploads: {fault}"] if fault or good != 200 or set(answers) != {"408"} else []


def resident_mib(process: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def run_server(model: str, link: Connection) -> None:
    """A server, until told to stop."""
    import asyncio

    from knowhue.inference.colorizer import Colorizer
    from knowhue.serving.api import make_app
    from knowhue.serving.connection import Server
    from knowhue.serving.run import listening
    from knowhue.serving.settings import ServerSettings

    os.environ["KNOWHUE_SECRET"] = SECRET  # whatever prints its environment leaks this
    settings = ServerSettings(port=0, upload_seconds=UPLOAD_SECONDS)
    server = Server(make_app({"model": Colorizer.load(model)}, settings), settings)

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
