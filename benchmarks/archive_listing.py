"""Cost of listing an archive: time and memory for storing the names of photos and assigning them to shards.

python benchmarks/archive_listing.py --photos 1000000 --shards 500
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from knowhue.archive import ArchiveListing
from knowhue.inference.store import FolderStore, StoredFile
from knowhue.temporary import tables_on_disk


class Named(FolderStore):
    """A store that holds only names, as long as those of a large archive."""

    count = 0

    def images(self, avoid: str = "") -> Iterator[StoredFile]:
        """Photos in a thousand folders."""
        for number in range(self.count):
            yield StoredFile(f"collection-{number % 1000:04d}/scan-{number:09d}.jpg", f'"{number:032x}-1"')


def main() -> None:
    """List the photos, assign them to shards, and print CPU time and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1_000_000, help="number of names")
    parser.add_argument("--shards", type=int, default=500, help="number of shards")
    options = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        source, out = Named(Path("nowhere")), FolderStore(Path(folder) / "out")
        source.count = options.photos
        started = time.process_time()
        with tables_on_disk() as tables:
            listing = ArchiveListing(tables)
            listing.add_images(source)
            listing.add_existing(source, out)
            listed = time.process_time()
            shards = list(listing.write_manifests(out, options.shards))
            (pages,), (page,) = (
                tables.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
            )
    ended = time.process_time()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{options.photos} photos, {len(shards)} shards: listed in {listed - started:.1f} s of CPU time, "
        f"assigned to shards in {ended - listed:.1f} s; {pages * page / 2**20:.0f} MiB on disk; "
        f"{before:.0f} MiB of memory before, {most:.0f} at most"
    )


if __name__ == "__main__":
    main()
