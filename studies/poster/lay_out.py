"""Lay out the images of the poster's study: copies of those named in a list, each in its split and class.

    python studies/poster/lay_out.py PICTURES runs/poster/images
    python studies/poster/lay_out.py PICTURES runs/poster/ocean5 --list studies/poster/ocean5.csv

PICTURES holds `train/<class>/` and `val/<class>/`: images of five classes, of `images.csv` 64 x 64 pixels under the
names that they have in ImageNet; of `ocean5.csv` photos of the Sea Animals Image Dataset, at most 300 pixels a side,
whose own names are the column `source`. Every file is compared with its SHA-256 in the list.
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
    parser.add_argument("--list", type=Path, default=LIST, help="table of path, split and sha256")
    asked = parser.parse_args()
    with asked.list.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        source = asked.pictures / row["path"]
        if not source.is_file():
            sys.exit(
                f"{source}: no such file; {asked.list.name} names {len(rows)} images, which all are needed"
            )
        if hashlib.sha256(source.read_bytes()).hexdigest() != row["sha256"]:
            sys.exit(
                f"{source}: another image than the one that was studied, by its SHA-256 in {asked.list.name}"
            )
    for row in rows:
        path = Path(row["path"])
        target = asked.out / row["split"] / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(asked.pictures / path, target)
    print(f"{asked.out}: {len(rows)} images")


if __name__ == "__main__":
    main()
