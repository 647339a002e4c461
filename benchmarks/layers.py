"""Difference between a flattened OpenRaster file and the coloured image: by the W3C's formula, in Krita and in GIMP.

Each photo is coloured, written as layers and flattened by each installed program (`krita` and `gimp`, with `xvfb-run`
if there is no display). Debian's GIMP 2.10 does not open OpenRaster files, so its layers are combined here in three
modes: HSL Color, to which GIMP's OpenRaster reader maps `svg:color`, LCh Color, and Normal. Printed are the differences
from the coloured image in L* and in CIELAB (Delta E 1976), mean and largest. For the formula a second content of the
colour layer is tried: among the colours with the photo's luma, the one nearest in CIELAB to the wanted colour.

    python benchmarks/layers.py PHOTOS... [--model built-in] [--images 20] [--programs]
"""

import argparse
import io
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from knowhue.color import lab_to_linear, linear_to_srgb, srgb_to_lab
from knowhue.images.image import walk
from knowhue.images.reading import read_image
from knowhue.inference.colorizer import Colorizer, encode_colorized

Colours = NDArray[np.floating[Any]]
LUMA = np.array([0.3, 0.59, 0.11])
GIMP_MODES = {
    "as GIMP reads svg:color": "HSL-COLOR",
    "GIMP, LCh Color": "LCH-COLOR",
    "GIMP, Normal": "NORMAL",
}
GIMP = """(let* ((image (car (gimp-file-load RUN-NONINTERACTIVE "{photo}" "photo")))
  (layer (car (gimp-file-load-layer RUN-NONINTERACTIVE image "{colour}"))))
  (gimp-image-insert-layer image layer 0 -1) (gimp-layer-set-mode layer LAYER-MODE-{mode})
  (file-png-save RUN-NONINTERACTIVE image (car (gimp-image-flatten image)) "{out}" "x" 0 1 0 0 0 0 0))"""


def main() -> None:
    """Flatten every photo with every method, and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+", help="files or folders")
    parser.add_argument("--model", default="built-in", help="built-in, a run folder, or an exported file")
    parser.add_argument("--images", type=int, default=20, help="photos per folder")
    parser.add_argument(
        "--programs", action="store_true", help="also flatten with Krita and GIMP; takes seconds per photo"
    )
    args = parser.parse_args()
    colorizer = Colorizer.load(args.model)
    found: dict[str, list[tuple[float, ...]]] = {}
    files = [file for source in args.photos for file in files_of(source)[: args.images]]
    for file in files:
        image = read_image(file)
        data, _ = encode_colorized(image, colorizer.colorize(image).image, ".ora")
        with tempfile.TemporaryDirectory() as folder:
            for way, flat, wanted in flattened(data, Path(folder), args.programs):
                off = srgb_to_lab(flat) - srgb_to_lab(wanted)
                light, total = np.abs(off[..., 0]), np.linalg.norm(off, axis=-1)
                found.setdefault(way, []).append((light.mean(), light.max(), total.mean(), total.max()))
    print(f"{len(files)} photos, {colorizer.network.description.name}")
    print(f"{'':28}{'dL* mean':>10}{'largest':>10}{'dE mean':>10}{'largest':>10}")
    for way, rows in found.items():
        mean, largest = np.mean(rows, 0), np.max(rows, 0)
        print(f"{way:28}{mean[0]:10.2f}{largest[1]:10.1f}{mean[2]:10.2f}{largest[3]:10.1f}")


def files_of(source: Path) -> list[Path]:
    return [each.path for each in walk(source) if not each.skipped] if source.is_dir() else [source]


def flattened(data: bytes, folder: Path, programs: bool) -> list[tuple[str, Colours, Colours]]:
    """Name of each method, the flattened image and the expected one; sRGB codes, 0 to 1."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)
    (folder / "layers.ora").write_bytes(data)
    photo, colour = (codes(folder / f"data/{name}.png") for name in ("photo", "colour"))
    wanted = codes(folder / "mergedimage.png")
    found = [("the formula", blend_color(photo, colour))]
    found.append(("the formula, nearest colour", blend_color(photo, nearest(wanted, photo @ LUMA))))
    if programs:
        found.append(("Krita", by_krita(folder)))
        found += [(way, by_gimp(folder, mode)) for way, mode in GIMP_MODES.items()]
    return [(way, flat, wanted) for way, flat in found]


def codes(file: Path) -> Colours:
    return np.asarray(Pillow.open(file).convert("RGB")) / 255


def blend_color(backdrop: Colours, source: Colours) -> Colours:
    """`color` of Compositing and Blending Level 1, section 10.1.3, rounded to 8 bits."""
    return (clip_colour(source, backdrop @ LUMA) * 255).round() / 255


def clip_colour(colour: Colours, luma: Colours) -> Colours:
    """`SetLum` of the same section: a colour moved to a luma and clipped to sRGB."""
    light = luma[..., None]
    colour = colour + light - (colour @ LUMA)[..., None]
    low = np.minimum(colour.min(-1, keepdims=True), 0)
    colour = light + (colour - light) * light / np.maximum(light - low, 1e-9)
    high = np.maximum(colour.max(-1, keepdims=True), 1)
    return (light + (colour - light) * (1 - light) / np.maximum(high - light, 1e-9)).clip(0, 1)


def nearest(wanted: Colours, luma: Colours, steps: int = 3) -> Colours:
    """The colour of a luma nearest to `wanted` in CIELAB, by Newton's method; clipped to sRGB after each step."""
    target, colour = srgb_to_lab(wanted), clip_colour(wanted, luma)
    for _ in range(steps):
        lab = srgb_to_lab(colour)
        here = luma_of(lab)
        slope = np.stack([(luma_of(lab + 0.1 * axis) - here) / 0.1 for axis in np.eye(3)], -1)
        missing = luma - here + (slope * (lab - target)).sum(-1)
        moved = target + slope * (missing / (slope**2).sum(-1))[..., None]
        colour = clip_colour(encoded(moved), luma)
    return colour


def luma_of(lab: Colours) -> Colours:
    return encoded(lab) @ LUMA


def encoded(lab: Colours) -> Colours:
    """Codes of CIELAB colours in sRGB; negative if outside sRGB."""
    light = lab_to_linear(lab[..., 0].ravel(), lab[..., 1:].reshape(-1, 2).T).T.reshape(lab.shape)
    return np.where(light < 0, 12.92 * light, linear_to_srgb(np.maximum(light, 0)))


def by_krita(folder: Path) -> Colours:
    display = ["xvfb-run", "-a"] if shutil.which("xvfb-run") else []
    out = folder / "krita.png"
    run([*display, "krita", "--export", "--export-filename", out, folder / "layers.ora"])
    return codes(out)


def by_gimp(folder: Path, mode: str) -> Colours:
    out = folder / f"{mode}.png"
    names = {"photo": folder / "data/photo.png", "colour": folder / "data/colour.png", "out": out}
    run(["gimp", "-i", "-d", "-f", "-b", GIMP.format(mode=mode, **names), "-b", "(gimp-quit 0)"])
    return codes(out)


def run(command: list[Any]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=300)


if __name__ == "__main__":
    main()
