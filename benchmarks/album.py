"""What `--album` does: how much photos of one album differ in warmth and vividness, and whether the error suffers.

Photos of the split that tuned the model, at the network's size. Albums: the photos of each class, and as many of photos
drawn at random, which have nothing in common. Warmth: variance of the mean a*b* within an album; vividness: of the mean
chroma; both are told as shares of those without `--album`, and the truth's beside them. Error: mean absolute difference
of a*b* to the truth, over that without; 95 % intervals over photos by a bootstrap of 2,000 draws.

    python benchmarks/album.py PHOTOS --prepared STUDY/images [--model built-in]
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import FloatArray, srgb_to_lab
from knowhue.images.reading import read_image
from knowhue.images.vips import shrink
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.reference import colour_of_album, move_towards_album, photo_colour
from knowhue.storage import read_csv

DRAWS = 2000


class Photo(NamedTuple):
    """Its class, and a*b* (h, w, 2) as predicted and true."""

    label: str
    predicted: FloatArray
    true: FloatArray


def main() -> None:
    """Print a line for albums of one class, and one for albums of anything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--prepared", type=Path, required=True, help="whose manifest names the photos")
    parser.add_argument("--model", default="built-in")
    asked = parser.parse_args()
    colorizer = Colorizer.load(asked.model)
    rows = [each for each in read_csv(asked.prepared / "manifest.csv") if each["split"] == "validation"]
    photos = [predict(colorizer, asked.photos / each["path"], each["label"]) for each in rows]
    error = np.mean([off(each.predicted, each.true) for each in photos])
    print(f"{len(photos)} photos; {colorizer.network.description.name}; off by {error:.2f}")
    labels = np.array([each.label for each in photos])
    for name, albums in (("one class", labels), ("anything", np.random.default_rng(0).permutation(labels))):
        show(name, photos, albums)


def predict(colorizer: Colorizer, path: Path, label: str) -> Photo:
    """A photo at the network's size."""
    image = read_image(path)
    coarse = colorizer.network_input(image)
    chroma = colorizer.predict([coarse])[0].chroma
    assert chroma is not None
    small = shrink(image.pixels, *coarse.shape)
    return Photo(label, chroma[0], srgb_to_lab(small)[..., 1:].astype(np.float32))


def show(name: str, photos: list[Photo], albums: NDArray[np.str_]) -> None:
    """What `--album` does where photos lie in these albums."""
    drawn: list[FloatArray] = [each.predicted for each in photos]
    for album in np.unique(albums):
        places = np.flatnonzero(albums == album)
        colour = colour_of_album([photo_colour(photos[place].predicted) for place in places])
        for place in places:
            drawn[place] = move_towards_album(colour, photos[place].predicted)
    own, true = [each.predicted for each in photos], [each.true for each in photos]
    warmth, vividness = (
        [spread([measure(each) for each in those], albums) for those in (drawn, own, true)]
        for measure in (mean, mean_length)
    )
    before, after = (
        np.array([off(*each) for each in zip(those, true, strict=True)]) for those in (own, drawn)
    )
    picked = np.random.default_rng(0).integers(0, len(photos), (DRAWS, len(photos)))
    low, high = np.percentile(after[picked].mean(1) / before[picked].mean(1), (2.5, 97.5))
    print(
        f"{name:10} variance of warmth {warmth[0] / warmth[1]:.2f} (truth {warmth[2] / warmth[1]:.2f}), of vividness "
        f"{vividness[0] / vividness[1]:.2f} (truth {vividness[2] / vividness[1]:.2f}); error "
        f"{after.mean() / before.mean():.4f} ({low:.4f} to {high:.4f})"
    )


def mean(chroma: FloatArray) -> NDArray[np.floating]:
    """Mean a* and b*."""
    return chroma.mean((0, 1))


def mean_length(chroma: FloatArray) -> NDArray[np.floating]:
    """Mean chroma, of one column."""
    return np.linalg.norm(chroma, axis=-1).mean()[None]


def off(chroma: FloatArray, true: FloatArray) -> float:
    """Mean absolute difference."""
    return float(np.abs(chroma - true).mean())


def spread(values: list[NDArray[np.floating]], albums: NDArray[np.str_]) -> float:
    """Variance within albums, summed over columns, mean over albums."""
    table = np.array(values)
    return float(np.mean([table[albums == album].var(0).sum() for album in np.unique(albums)]))


if __name__ == "__main__":
    main()
