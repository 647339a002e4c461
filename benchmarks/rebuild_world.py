"""Rebuild the training photos of the built-in model from their sources.

`benchmarks/world.csv` lists each photo: file, source, its path there, licence, size, a perceptual hash and the start of
the SHA-256 of the file that was used. Sources are public repositories at a commit, cloned by git below `--sources`
(some gigabytes; the sea animals, a Kaggle dataset, must be put at `ocean5` by hand). A photo is cropped to at most 3:2
about its centre and resized: short side 144 pixels, Lanczos, progressive JPEG of quality 82 without chroma subsampling.
Photos that are missing, or whose hash differs too much from the list's, are reported, and the command exits with 1.

    python benchmarks/rebuild_world.py world --sources FOLDER
    python benchmarks/rebuild_world.py world --list  (writes the list of the photos in `world` from its manifest.csv)
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from knowhue.data.checks import signatures
from knowhue.storage import hidden_sibling, read_csv, replacing, write_csv

LIST = Path(__file__).with_name("world.csv")
GITHUB = "https://github.com/"
REPOSITORIES = {
    "flickr8k_224": ("RlNZLER/Image-Text-Matching", "56a15d9"),
    "flickr8k_orig": ("quantumnaan/sic_translator", "d27da85"),
    "lfw": ("umass-vis-lfw/umass-vis-lfw.github.io", "2a620cd"),
    "intel": ("yadavaditya13/Image_Classification_Using_Deep_Learning", "029bdaf"),
    "imagenette": ("thunderInfy/imagenette", "b850f03"),
    "imagenet_sample": ("EliSchwartz/imagenet-sample-images", "bc69043"),
    "caltech101": ("MachineLearning2020/Homework2-Caltech101", "836044d"),
    "flowers": ("JoelOscarsson/dl-assignment", "05bf18b"),
    "weather": ("talalahmad27/Image-Classification-Using-Pretrained-models", "08bb03a"),
}
COLUMNS = ("file", "source", "original", "licence", "width", "height", "phash", "sha256")
DIGITS = 16
"""Number of hexadecimal digits of the SHA-256 that are stored, enough to distinguish files."""
QUALITY = 82
HASH_SIDE = 96
FAR_BITS = 10
"""Largest number of the 64 bits in which hashes of one photo can differ, because decoders differ slightly."""


def main() -> None:
    """Rebuild the photos, or write their list."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("world", type=Path, help="folder of the rebuilt photos")
    parser.add_argument("--sources", type=Path, help="folder of the clones, one per source")
    parser.add_argument("--list", action="store_true", help="write the list of the photos that are there")
    args = parser.parse_args()
    if args.list == (args.sources is not None):
        parser.error("give either --sources or --list")
    if args.list:
        write_list(args.world)
        return
    rows = read_csv(LIST)
    for source in sorted({row["source"] for row in rows}):
        clone(source, args.sources)
    faults = [f"{row['file']}: {fault}" for row in rows if (fault := make(row, args.sources, args.world))]
    same = sum(sha256_of(args.world / row["file"]) == row["sha256"] for row in rows)
    print(
        f"{len(rows) - len(faults)} of {len(rows)} photos rebuilt, {same} of them byte for byte",
        *faults,
        sep="\n",
    )
    sys.exit(bool(faults))


def write_list(world: Path) -> None:
    """Describe the photos of a folder and its `manifest.csv` as `LIST`."""
    rows = [COLUMNS]
    for row in read_csv(world / "manifest.csv"):
        path = world / row["file"]
        with Image.open(path) as photo:
            size = photo.size
            found = hash_of(photo)
        # the path within the source: sea animals were listed with the folder they were in
        original = row["original"].split("ocean5/train/")[-1]
        rows.append(
            (row["file"], row["source"], original, row["licence"], *size, f"{found:016x}", sha256_of(path))
        )
    write_csv(LIST, rows)


def clone(source: str, sources: Path) -> None:
    """Fetch a source's files at its commit, unless they are there."""
    folder = sources / source
    if folder.is_dir():
        return
    if source not in REPOSITORIES:
        sys.exit(f"{folder}: no such folder. Put the photos of the Sea Animals Image Dataset (Kaggle) there.")
    name, commit = REPOSITORIES[source]
    # fetch the history without files, because no server resolves the abbreviated commits
    partial = hidden_sibling(folder)
    shutil.rmtree(partial, ignore_errors=True)  # left by an interrupted command
    filtered = ("clone", "--quiet", "--no-checkout", "--filter=blob:none", f"{GITHUB}{name}", str(partial))
    subprocess.run(("git", *filtered), check=True)
    subprocess.run(("git", "-C", str(partial), "checkout", "--quiet", commit), check=True)
    partial.rename(folder)


def make(row: Mapping[str, str], sources: Path, world: Path) -> str:
    """Rebuild one photo; return what is wrong with it, or an empty text."""
    original, target = sources / row["source"] / row["original"], world / row["file"]
    if not original.exists():
        return f"{original}: no such file"
    with Image.open(original) as photo:
        small = shrink(photo.convert("RGB"), int(row["width"]), int(row["height"]))
    bits = (hash_of(small) ^ int(row["phash"], 16)).bit_count()
    if bits > FAR_BITS:
        return f"another photo: {bits} of 64 bits of its hash differ"
    with replacing(target, "wb") as file:
        small.save(file, "JPEG", quality=QUALITY, subsampling=0, progressive=True)
    return ""


def shrink(photo: Image.Image, width: int, height: int) -> Image.Image:
    """The centre of a photo, cropped to at most 3:2 and resized.

    >>> shrink(Image.new("RGB", (600, 300)), 216, 144).size
    (216, 144)
    """
    wide, high = min(photo.width, int(1.5 * photo.height)), min(photo.height, int(1.5 * photo.width))
    left, top = (photo.width - wide) // 2, (photo.height - high) // 2
    middle = photo.crop((left, top, left + wide, top + high))
    return middle.resize((width, height), Image.Resampling.LANCZOS)


def sha256_of(path: Path) -> str:
    """The first digits of the SHA-256; empty if there is no file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS] if path.exists() else ""


def hash_of(photo: Image.Image) -> int:
    """The perceptual hash that finds near-duplicates, 64 bits."""
    square = photo.convert("RGB").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BOX)
    return int(signatures([np.asarray(square)[None]]).upright[0])


if __name__ == "__main__":
    main()
