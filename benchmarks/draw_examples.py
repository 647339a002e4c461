"""Draw the gray example images of the page: `python benchmarks/draw_examples.py`.

They are scenes of the built-in set with a seed of their own, so no built-in model was trained on them.
"""

from pathlib import Path

from PIL import Image

from knowhue.data.drawn import CLASSES, draw

FOLDER = Path(__file__).parents[1] / "src" / "knowhue" / "serving" / "examples"
SEED, SIDE_PX, HEIGHT_PX = 77, 800, 600
SCENES = {"reef": (4, "coral_reef", 1.0), "jellyfish": (7, "jellyfish", 0.2), "penguins": (7, "penguin", 0.5)}
"""Name to the scene's number, its class, and where the cut lies: 0 is the top, 1 the bottom."""


def main() -> None:
    """Write the images."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (index, label, place) in SCENES.items():
        drawn = Image.fromarray(draw(index, CLASSES.index(label), SIDE_PX, 1.0, SEED)).convert("L")
        top = round(place * (SIDE_PX - HEIGHT_PX))
        cut = drawn.crop((0, top, SIDE_PX, top + HEIGHT_PX))
        cut.save(FOLDER / f"{name}.jpg", quality=80, optimize=True)


if __name__ == "__main__":
    main()
