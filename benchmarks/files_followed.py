"""Number of source files that a reader opens to follow one image through the program.

python benchmarks/files_followed.py [--list]

Three runs of the program itself, with every call traced: `report`, from an image on disk through a study of three arms
to its report; `colorize`, one photo; `upload`, the additional files for a photo sent to the server. `executed` counts
the files with a function that ran, other than during imports: the making of classes and tables does not count.
`holding` counts those with a function that had the image as an argument, local variable or result: as pixels, features,
predictions or samples (arrays, tensors, images, batches, encoded bytes).
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from urllib.request import Request, urlopen

PORT = 17944
SETTINGS = (
    "encoder.name=tf_efficientnet_lite0", "encoder.weights=package", "training.batch_size=8",
    "training.heads.epochs=1", "training.finetune.epochs=1", "evaluation.perceptual=[]",
)  # fmt: skip
ENCODED_BYTES = 500
"""Length from which bytes count as the content of a file, not as a key."""
TRIES = 20
"""Number of calls and returns of a function that are examined."""


def main() -> None:
    """Run in three processes, so that none uses the caches of another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the files")
    parser.add_argument("--walk", choices=("report", "colorize", "upload"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.walk:
        walk(chosen.walk)
        return
    found = {name: read(name) for name in ("report", "colorize", "upload")}
    for name, by_kind in found.items():
        less = found["colorize"] if name == "upload" else {"executed": set(), "holding": set()}
        shown = {kind: sorted(files - less[kind]) for kind, files in by_kind.items()}
        more = " more than colorize" if name == "upload" else ""
        print(f"{name}: {len(shown['executed'])} executed, {len(shown['holding'])} holding the image{more}")
        if chosen.list:
            for path in shown["executed"]:
                print(f"    {'*' if path in shown['holding'] else ' '} {path}")


def read(name: str) -> dict[str, set[str]]:
    """The files of one run, by kind."""
    command = [sys.executable, __file__, "--walk", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.split("\t") for line in done.stdout.splitlines() if line.startswith("FILE\t")]
    if done.returncode or not lines:
        sys.exit(f"{name}:\n{done.stdout}{done.stderr}")
    return {kind: {path for _, each, path in lines if each == kind} for kind in ("executed", "holding")}


def walk(name: str) -> None:
    """Run one command with every call traced, and print the files."""
    from PIL import Image

    import knowhue
    from knowhue.apps import program

    tracer = Tracer(Path(knowhue.__file__).parent)
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        Image.effect_noise((96, 64), 60).convert("RGB").save(photo)
        if name == "report":
            draw(Path(folder) / "images")
        arguments = {
            "report": [
                "study", f"{folder}/images", "--arms", "colour,class,multi", "--seeds", "1", "--out",
                f"{folder}/out", *(word for each in SETTINGS for word in ("--set", each)),
                "--set", f"{size_setting()}=32",
            ],
            "colorize": ["colorize", str(photo), "-o", f"{folder}/out.jpg"],
            "upload": ["serve", "--port", str(PORT)],
        }  # fmt: skip
        if name == "upload":
            threading.Thread(target=upload, args=(photo, tracer), daemon=True).start()
        tracer.is_on = name != "upload"
        tracer.install()
        sys.argv = ["knowhue", *arguments[name]]
        with suppress(SystemExit, KeyboardInterrupt):
            program.main()
        tracer.is_on = False
        sys.settrace(None)
    for kind in ("executed", "holding"):
        for path in sorted(getattr(tracer, kind)):
            print(f"FILE\t{kind}\t{path}")


def size_setting() -> str:
    """The name of the setting of the size, which differs between versions."""
    from knowhue.config import Config

    return f"{'images' if 'images' in Config.model_fields else 'pictures'}.size_px"


def draw(folder: Path) -> None:
    """Write two classes of colour images."""
    import numpy as np
    from PIL import Image

    for label in range(2):
        (folder / f"class{label}").mkdir(parents=True)
        for n in range(16):
            pixels = np.random.default_rng([label, n]).integers(0, 256, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{n}.png")


def upload(photo: Path, tracer: "Tracer") -> None:
    """Send a photo to the server when it is ready, trace only that, and stop the server."""
    url = f"http://127.0.0.1:{PORT}"
    for _ in range(240):
        time.sleep(0.5)
        with suppress(OSError):
            urlopen(f"{url}/readyz").close()
            break
    tracer.is_on = True
    urlopen(Request(f"{url}/v1/colorize", photo.read_bytes(), {"Content-Type": "image/jpeg"})).read()
    tracer.is_on = False
    os.kill(os.getpid(), signal.SIGINT)


class Tracer:
    """Records the files below a folder with functions that run, and those with functions that hold the image."""

    def __init__(self, root: Path) -> None:
        self.root = f"{root}{os.sep}"
        self.executed: set[str] = set()
        self.holding: set[str] = set()
        self.is_on = False
        self._tried: Counter[CodeType] = Counter()
        self._imports = threading.local()

    def install(self) -> None:
        """Trace this thread, and all threads that are started later."""
        threading.settrace(self._called)
        sys.settrace(self._called)

    def _called(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        if not code.co_filename.startswith(self.root):
            return None
        depth = getattr(self._imports, "depth", 0)
        if code.co_name == "<module>":
            self._imports.depth = depth + 1
            frame.f_trace_lines = False
            return self._imported
        if not self.is_on or depth:
            return None
        name = code.co_filename[len(self.root) :]
        self.executed.add(name)
        if name in self.holding or self._tried[code] >= TRIES:
            return None
        self._tried[code] += 1
        frame.f_trace_lines = False
        self._look(name, frame.f_locals.values())
        return partial(self._returned, name)

    def _imported(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        if event == "return":  # also of a failed import
            self._imports.depth -= 1
        return self._imported

    def _returned(self, name: str, frame: FrameType, event: str, result: Any) -> None:
        if event == "return":
            self._look(name, (*frame.f_locals.values(), result))

    def _look(self, name: str, values: Iterable[Any]) -> None:
        if any(map(holds, values)):
            self.holding.add(name)


def holds(value: Any, depth: int = 3) -> bool:
    """Whether a value is, or contains, image data."""
    if isinstance(getattr(value, "ndim", None), int) and hasattr(value, "dtype") and value.ndim >= 2:
        return True
    if isinstance(value, bytes):
        return len(value) >= ENCODED_BYTES
    if depth and isinstance(value, tuple | list):
        return any(holds(each, depth - 1) for each in value[:8])
    if depth and isinstance(value, dict):
        return any(holds(each, depth - 1) for each in list(value.values())[:8])
    return False


if __name__ == "__main__":
    main()
