"""Golden values: whether everything that the program computes is still exactly the same.

python benchmarks/golden.py record runs/golden --images IMAGES --photos PHOTOS [--weights FILE]
python benchmarks/golden.py check  runs/golden

`record` runs a study (three seeds, all arms), a comparison, a study with few labels, a folder of photos, a video and
requests to the server, and writes the results to `runs/golden/golden.json`. `check` runs the same with the present code
and lists every value that differs. Use one machine for both: other hardware rounds differently. IMAGES holds
`<class>/*` (or `train/<class>/*`), of which the first 60 per class are used; PHOTOS is a folder of photos.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.request import Request, urlopen

import av
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

PORT = 17943
A_CLASS = 60
SETTINGS = (
    "images.size_px=64", "training.shift_px=4", "training.precision=float32", "training.batch_size=32",
    "training.heads.epochs=1", "training.finetune.epochs=1", "training.finetune.learning_rate=0.0003",
    "training.finetune.encoder_learning_rate=0.0001", "evaluation.perceptual=[]", "colour.width=16",
)  # fmt: skip
ARMS = "colour,class,multi,placebo-labels,placebo-colours,multi-pcgrad,oracle"


def main() -> None:
    """Record or check the values."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "check"), help="record the values, or check them")
    parser.add_argument("folder", type=Path, help="folder of the inputs and recorded values")
    parser.add_argument("--images", type=Path, help="folder with <class>/*, to record")
    parser.add_argument("--photos", type=Path, help="folder of photos, to record")
    parser.add_argument("--weights", type=Path, help="weights of the encoder, to record")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    args = parser.parse_args()
    parts = args.only.split(",")
    inputs = args.folder / "inputs"
    if args.what == "record":
        record(args, inputs, parts)
        return
    shutil.rmtree(args.folder / "checked", ignore_errors=True)
    golden = json.loads((args.folder / "golden.json").read_text())
    golden = {key: value for key, value in golden.items() if part_of(key) in parts}
    found = json.loads(json.dumps(run_all(parts, inputs, args.folder / "checked")))
    differ = sorted(key for key in golden.keys() | found.keys() if golden.get(key) != found.get(key))
    for key in differ:
        print(f"{key}: {golden.get(key, 'missing')} recorded, {found.get(key, 'missing')} now")
    print(f"{len(golden) - len(differ)} of {len(golden)} values are exactly the same")
    sys.exit(bool(differ))


def record(args: argparse.Namespace, inputs: Path, parts: list[str]) -> None:
    """Record the values of some parts, and keep those recorded earlier for the other parts."""
    path = args.folder / "golden.json"
    if args.images is not None and args.photos is not None:
        shutil.rmtree(args.folder, ignore_errors=True)
        gather(inputs, args.images, args.photos, args.weights)
    elif not path.exists():
        sys.exit("record needs --images and --photos")
    known = json.loads(path.read_text()) if path.exists() else {}
    kept = {key: value for key, value in known.items() if part_of(key) not in parts}
    shutil.rmtree(args.folder / "recorded", ignore_errors=True)
    found = run_all(parts, inputs, args.folder / "recorded")
    path.write_text(json.dumps(kept | found, indent=1, sort_keys=True))
    print(f"{len(found)} values recorded in {path}")


def gather(inputs: Path, images: Path, photos: Path, weights: Path | None) -> None:
    """Copy the inputs of all runs, so that later checks use the same."""
    source = images / "train" if (images / "train").is_dir() else images
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        target = inputs / "images" / folder.name
        target.mkdir(parents=True)
        for path in sorted(folder.iterdir())[:A_CLASS]:
            shutil.copy(path, target)
    (inputs / "photos").mkdir()
    wanted = [*sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".png", ".jpeg"))]
    wanted += sorted((inputs / "images").rglob("*.*"))[:: 300 // 40]
    for number, path in enumerate(wanted[:40]):
        shutil.copy(path, inputs / "photos" / f"{number:02d}{path.suffix.lower()}")
    write_video(inputs / "clip.mp4", wanted[0])
    if weights:
        shutil.copy(weights, inputs / "weights.safetensors")


def write_video(path: Path, photo: Path) -> None:
    """Write twenty frames of a window that moves over a photo."""
    pixels = np.asarray(Image.open(photo).convert("L").convert("RGB").resize((240, 160)))
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        for x in range(20):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[16:144, x : x + 192]), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def run_all(parts: list[str], inputs: Path, out: Path) -> dict[str, Any]:
    """Run the commands of some parts, and return their values."""
    out.mkdir(parents=True)
    for part in parts:
        if part in COMMANDS:
            knowhue(*COMMANDS[part](inputs, out, settings(inputs)))
    found = {**weights(out), **scores(out), **answers(out)}
    if "photos" in parts:
        colour(inputs / "photos", out / "photos")
        found |= photos(out / "photos")
    if "video" in parts:
        found |= video(inputs / "clip.mp4", out / "clip.mp4")
    if "api" in parts:
        with server():
            found |= api(inputs / "photos")
    return found


def settings(inputs: Path) -> list[str]:
    """The settings of all trainings, as options."""
    chosen = list(SETTINGS)
    if (inputs / "weights.safetensors").exists():
        chosen.append(f"encoder.weights={inputs / 'weights.safetensors'}")
    return [word for setting in chosen for word in ("--set", setting)]


COMMANDS: dict[str, Callable[[Path, Path, list[str]], list[str]]] = {
    "study": lambda inputs, out, chosen: [
        "study", f"{inputs}/images", *chosen, "--arms", ARMS, "--seeds", "3", "--out", f"{out}/study"
    ],
    "compare": lambda inputs, out, chosen: [
        "compare", f"{inputs}/images", *chosen, "--methods", "l1,gan,palette-ab", "--seeds", "2", "--out",
        f"{out}/compare",
    ],
    "labels": lambda inputs, out, chosen: [
        "study", f"{inputs}/images", *chosen, "--preset", "label-fraction", "--seeds", "1", "--out", f"{out}/labels"
    ],
}  # fmt: skip
PARTS = (*COMMANDS, "photos", "video", "api")


def part_of(key: str) -> str:
    """The part of a value, from its name: that of `weights study/multi/seed-0` is `study`."""
    kind, rest = key.split(" ", 1)
    fixed = {"photo": "photos", "frame": "video", "api": "api"}
    return fixed.get(kind) or rest.replace("/", " ").split(" ")[0]


def knowhue(*arguments: str) -> None:
    """Run one command; its output is shown only if it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "knowhue", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"knowhue {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    print(f"{time.perf_counter() - started:6.0f} s  knowhue {' '.join(arguments)[:90]}", flush=True)


def colour(source: Path, out: Path) -> None:
    """Colour photos one by one, because the batches of a folder depend on timing and affect the rounding."""
    from knowhue import Colorizer, write_image

    out.mkdir()
    colorizer = Colorizer.load("built-in")
    for path in sorted(source.iterdir()):
        write_image(colorizer.colorize(path).image, out / path.name)


def digest(values: np.ndarray) -> str:
    """Hash of shape, type and every bit."""
    named = f"{values.dtype} {values.shape} ".encode()
    return hashlib.sha256(named + np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def run_name(path: Path, out: Path) -> str:
    """Study, arm and seed, without the fingerprint, which changes with the names of settings."""
    parts = path.relative_to(out).parts[:-1]
    return "/".join("-".join(part.split("-")[:2]) if part.startswith("seed-") else part for part in parts)


def weights(out: Path) -> dict[str, Any]:
    """Hashes of every tensor of every run, regardless of the names."""
    return of_runs(
        out, "model.safetensors", lambda path: {"weights": sorted(map(digest, load_file(path).values()))}
    )


def scores(out: Path) -> dict[str, Any]:
    """Scores of runs and of single images."""
    return of_runs(out, "scores.json", metrics) | of_runs(out, "per_image.csv", images)


def metrics(path: Path) -> dict[str, Any]:
    """The scores of a run."""
    return {f"score {name}": value for name, value in json.loads(path.read_text())["metrics"].items()}


def images(path: Path) -> dict[str, Any]:
    """Hash of the scores of each image, without its name."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [list(row.values())[1:] for row in csv.DictReader(file)]
    return {"images": hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]}


def of_runs(out: Path, name: str, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Values read from each run's file; heads with different fingerprints share one entry."""
    found: dict[str, list[Any]] = {}
    for path in out.rglob(name):
        for what, value in read(path).items():
            kind, _, rest = what.partition(" ")
            found.setdefault(f"{kind} {run_name(path, out)} {rest}".strip(), []).append(value)
    return {key: sorted(values, key=str) for key, values in found.items()}


def answers(out: Path) -> dict[str, Any]:
    """The answers of the studies."""
    paths = {name: out / name / "results.json" for name in ("study", "labels")}
    read = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    return {
        f"answer {name} {task}": text for name, each in read.items() for task, text in each["answers"].items()
    }


def photos(folder: Path) -> dict[str, Any]:
    """Hashes of the decoded pixels of every coloured photo."""
    images = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png", ".jpeg"))
    return {f"photo {path.name}": digest(np.asarray(Image.open(path))) for path in images}


def video(source: Path, out: Path) -> dict[str, Any]:
    """Hashes of the frames before encoding, because the encoder's output varies for equal frames."""
    from knowhue import Colorizer
    from knowhue.inference import video_writing
    from knowhue.inference.video import colorize_video

    found: dict[str, Any] = {}
    write = video_writing.write_video

    def noted(frame: Any) -> Any:
        found[f"frame {len(found)}"] = digest(frame.pixels)
        return frame

    def write_noted(original: Any, path: Path, suffix: str, frames: Any) -> list[str]:
        return write(original, path, suffix, map(noted, frames))

    with patch.object(video_writing, "write_video", write_noted):
        colorize_video(Colorizer.load("built-in"), source, out)
    return found


@contextmanager
def server() -> Iterator[None]:
    """Run the server while the block runs."""
    command = [sys.executable, "-m", "knowhue", "serve", "--port", str(PORT)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                urlopen(f"http://127.0.0.1:{PORT}/readyz").close()
                break
            except OSError:
                continue
        yield
    finally:
        process.terminate()
        process.wait()


def api(folder: Path) -> dict[str, Any]:
    """Hashes of the responses for the first five photos: the file's bytes, and the class."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir())[:5]:
        kind = "image/png" if path.suffix == ".png" else "image/jpeg"
        for route in ("colorize", "classify"):
            url = f"http://127.0.0.1:{PORT}/v1/{route}"
            with urlopen(Request(url, path.read_bytes(), {"Content-Type": kind})) as answer:
                body = answer.read()
            if route == "classify":  # its warnings are texts, which may be reworded
                body = json.dumps({k: v for k, v in json.loads(body).items() if k != "warnings"}).encode()
            found[f"api {route} {path.name}"] = hashlib.sha256(body).hexdigest()[:16]
    return found


if __name__ == "__main__":
    main()
