"""Copy the images of the poster's study into folders by split and class, as a list says.

    python studies/poster/lay_out.py PICTURES runs/poster/images
    python studies/poster/lay_out.py PICTURES runs/poster/ocean5 --list studies/poster/ocean5.csv

PICTURES has the folders `train/<class>/` and `val/<class>/` for five classes. For `images.csv` they contain images of
64 x 64 pixels with their names in ImageNet. For `ocean5.csv` they contain photos of the Sea Animals Image Dataset of at
most 300 pixels a side; the column `source` has their names in that data set. Every file is compared with its SHA-256 in
the list.
"""

import argparse
import csv
import hashlib
import shutil
import sys
from pathlib import Path

LIST = Path(__file__).with_name("images.csv")


def main() -> None:
    """Copy the images; if one is missing or different, exit with its name and copy nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--list", type=Path, default=LIST, help="table of path, split and sha256")
    arguments = parser.parse_args()
    with arguments.list.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        source = arguments.pictures / row["path"]
        if not source.is_file():
            sys.exit(f"{source}: no such file; all {len(rows)} images of {arguments.list.name} are needed")
        if hashlib.sha256(source.read_bytes()).hexdigest() != row["sha256"]:
            sys.exit(
                f"{source}: another image than in the study; its SHA-256 differs from {arguments.list.name}"
            )
    for row in rows:
        path = Path(row["path"])
        target = arguments.out / row["split"] / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(arguments.pictures / path, target)
    print(f"{arguments.out}: {len(rows)} images")


if __name__ == "__main__":
    main()
