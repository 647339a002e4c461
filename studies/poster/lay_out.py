"""Lay out the images of the poster's study: copies of those named in `images.csv`, each in its split and class.

    python studies/poster/lay_out.py PICTURES runs/poster/images

PICTURES holds `train/<class>/` and `val/<class>/`: images of five classes, 64 x 64 pixels, under the names that they
have in ImageNet. Every file is compared with its SHA-256 in `images.csv`.
"""

import argparse
import csv
import hashlib
import shutil
import sys
from pathlib import Path

LIST = Path(__file__).with_name("images.csv")


def main() -> None:
    """Copy, or say in one line which image is missing or another one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("out", type=Path, help="folder to be made")
    asked = parser.parse_args()
    with LIST.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        source = asked.pictures / row["path"]
        if not source.is_file():
            sys.exit(f"{source}: no such file; {LIST.name} names {len(rows)} images, which all are needed")
        if hashlib.sha256(source.read_bytes()).hexdigest() != row["sha256"]:
            sys.exit(f"{source}: another image than the one that was studied, by its SHA-256 in {LIST.name}")
    for row in rows:
        path = Path(row["path"])
        target = asked.out / row["split"] / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(asked.pictures / path, target)
    print(f"{asked.out}: {len(rows)} images")


if __name__ == "__main__":
    main()
