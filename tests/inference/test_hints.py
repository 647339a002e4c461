"""Hints as options, tables and strokes, and their effect on the colours of a photo."""

import json
import math
from copy import copy

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy.ndimage import distance_transform_edt
from skimage.color import rgb2lab
from test_hint_spreading import REGION, from_points, pixel_of

from knowhue.color import srgb_to_lab
from knowhue.errors import ConfigError
from knowhue.images.image import Image
from knowhue.images.reading import read_image
from knowhue.inference import hints
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.hint_spreading import chroma_at
from knowhue.inference.hints import (
    Hint,
    Strokes,
    match_hints,
    parse_hint,
    parse_hints,
    read_hints,
    strokes_of,
)
from knowhue.inference.pixels import enlarge, paint_compiled


@pytest.mark.parametrize(
    ("text", "x", "y"),
    [
        ("120,80=#c83232", 120.5 / 600, 80.5 / 400),
        ("30%,40%=#c83232", 0.3, 0.4),
        (" 0 , 100% = rgb(200, 50, 50) ", 0.5 / 600, 1.0),
        ("599,12.5%=#C83232", 599.5 / 600, 0.125),
        ("120.0,80.00=#c83232", 120.5 / 600, 80.5 / 400),
    ],
)
def test_a_hint_is_read_in_pixels_or_percent(text, x, y):
    found = parse_hint(text, 600, 400)
    assert found[:2] == pytest.approx((x, y))
    assert found[2:] == pytest.approx((58.196, 36.489), abs=0.01)


def test_colours_agree_with_an_independent_library():
    skimage_color = pytest.importorskip("skimage.color")
    for name, rgb in {"orange": (255, 165, 0), "navy": (0, 0, 128), "#123": (17, 34, 51)}.items():
        expected = skimage_color.rgb2lab(np.array(rgb, float) / 255)[1:]
        assert parse_hint(f"1,1={name}", 9, 9)[2:] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", ["gray", "#808080", "black", "white", "rgb(1, 1, 1)"])
def test_gray_means_exactly_no_colour(name):
    assert parse_hint(f"0,0={name}", 9, 9)[2:] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "should be `120,80=#c83232`"),
        ("120,80", "Found `120,80`"),
        ("120=#c83232", "should be `120,80=#c83232`"),
        ("١,٢=red", "should be `120,80=#c83232`"),
        ("1,2,3=red", "should be"),
        ("a,2=red", "Found `a` in"),
        ("1.5,2=red", "Found `1.5` in"),
        ("nan%,2=red", "Found `nan%` in"),
        ("600,80=red", "0 to 599 pixels"),
        ("-1,80=red", "0 to 599 pixels"),
        ("5,400=red", "0 to 399 pixels"),
        ("101%,5=red", "Found `101%` in"),
        ("1,1=rouge", "Found `rouge` in"),
        ("1,1=oragne", "Did you mean `orange`?"),
        ("1,1=#c8323280", "opaque"),
        ("1,1=rgb(300, 0, 0)", "opaque"),
        ("1,1= ", "should name an opaque colour"),
        ("9" * 5000 + ",1=red", f"Found `{'9' * 80}...` in `{'9' * 80}...`."),
        ("1,1=" + "q" * 5000, f"Found `{'q' * 80}...` in `1,1={'q' * 76}...`."),
        ("q" * 5000, f"Found `{'q' * 80}...`."),
    ],
)
def test_nonsense_is_refused_in_words(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_hint(text, 600, 400)
    assert said in str(caught.value)


def test_a_point_that_is_given_two_colours_is_refused(tmp_path):
    """Their mean, which a viewer would get, is a colour that nobody asked for."""
    said = r"A point should have one colour\. Found `1,2=red` and `1,2=blue`\."
    with pytest.raises(ConfigError, match=f"^{said}$"):
        parse_hints(["1,2=red", "3,4=blue", "1,2=blue"], 600, 400)
    (tmp_path / "h.csv").write_text("x,y,colour\n1,2,red\n1,2,blue\n")
    with pytest.raises(ConfigError, match=rf"h\.csv, row 3: {said}$"):
        parse_hints(read_hints(tmp_path / "h.csv")[""], 600, 400)
    assert len(parse_hints(["1,2=red", "1,2=#ff0000"], 600, 400)) == 2


# Tables

TABLE = 'file,x,y,colour\na.png,120,80,#c83232\ndeep/b.png,30%,40%,orange\na.png,1,2,"rgb(1, 2, 3)"\n'
FOUND = {"a.png": ["120,80=#c83232", "1,2=rgb(1, 2, 3)"], "deep/b.png": ["30%,40%=orange"]}


def test_tables_of_both_kinds_are_read_alike(tmp_path):
    (tmp_path / "h.csv").write_text("\ufeff" + TABLE, encoding="utf-8")
    rows = [
        {"file": "a.png", "x": 120, "y": 80, "colour": "#c83232"},
        {"file": "deep/b.png", "x": "30%", "y": "40%", "colour": "orange"},
        {"file": "a.png", "x": "1", "y": 2, "colour": "rgb(1, 2, 3)"},
    ]
    (tmp_path / "h.json").write_text(json.dumps(rows), encoding="utf-8")
    assert read_hints(tmp_path / "h.csv") == read_hints(tmp_path / "h.json") == FOUND


def test_a_table_for_one_image_needs_no_names(tmp_path):
    (tmp_path / "h.csv").write_text("x,y,colour\n1,2,red\n")
    assert read_hints(tmp_path / "h.csv") == {"": ["1,2=red"]}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.csv", None, "none.csv: no such file"),
        ("h.csv", "", "no hints; write one per line below a header `file,x,y,colour`"),
        ("h.csv", "x,y,colour\n", "no hints"),
        ("h.csv", "x,y\n1,2\n", "h.csv: the columns should be file, x, y, colour .* Found `x`, `y`"),
        ("h.csv", "x,y,colour,size\n1,2,red,3\n", "Found `x`, `y`, `colour`, `size`"),
        ("h.csv", "x|y|colour\n1|2|red\n", r"Found `x\|y\|colour`"),
        (
            "h.csv",
            "x,y,colour\n1,2,red\n1,2\n",
            r"row 3 has 2 cells, but row 1 has 3\)",
        ),
        ("h.csv", "x,x,y,colour\n1,9,2,red\n", "two columns are named x"),
        ("h.csv", "x,y,colour\n" + "9" * 400 + ",2,red\n", "row 2: A hint should lie in the image"),
        ("h.csv", "x,y,colour\n1,2,red\n1,2,rouge\n", "h.csv, row 3: .*Found `rouge`"),
        ("h.csv", "x,y,colour\n120%,2,red\n", "row 2: .*Found `120%`"),
        ("h.csv", "\n  \nx,y,colour\n1,2,red\n\n1,2,rouge\n", "h.csv, row 6: .*Found `rouge`"),
        ("h.json", "{", "no table of hints"),
        pytest.param("h.json", 100_000 * "[", "no table of hints", id="brackets"),
        pytest.param("h.json", f'[{{"x": {"9" * 5000}}}]', "a number of more than 4,300 digits", id="digits"),
        ("h.csv", "x,y," + "z" * 5000 + "\n1,2,red\n", "Found `x`, `y`, `z{80}...`"),
        (
            "h.csv",
            "x,y,colour,file\n1,2,red,é.png\n".encode("latin-1"),
            "not text in UTF-8; save the table as",
        ),
        ("h.json", "[1]", "no hints"),
        ("h.json", '{"x": 1}', "no hints"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_before_any_image_is_read(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=said):
        match_hints(read_hints(tmp_path / name), {"": tmp_path / "unread.png"}, tmp_path)


def test_all_that_is_wrong_with_a_table_is_said_at_once_by_rows(tmp_path):
    Pillow.new("L", (90, 60)).save(tmp_path / "a.png")
    (tmp_path / "h.csv").write_text("file,x,y,colour\na.png,1,2,rde\na.png,90,2,red\nb.png,x,2,red\n")
    with pytest.raises(ConfigError) as raised:
        match_hints(read_hints(tmp_path / "h.csv"), {"a.png": tmp_path / "a.png"}, tmp_path)
    colour, place, image, form = raised.value.args
    assert "h.csv, row 2: A hint should name an opaque colour" in colour
    assert "h.csv, row 3: A hint should lie in the image, 0 to 89 pixels" in place
    assert "Found `b.png`. Did you mean `a.png`?" in image
    assert "h.csv, row 4: A hint should be" in form
    (tmp_path / "h.csv").write_text("x,y,colour\n1,2,rde\n")
    with pytest.raises(ConfigError) as raised:
        match_hints(read_hints(tmp_path / "h.csv"), {"a.png": tmp_path / "a.png"}, tmp_path)
    unnamed, colour = raised.value.args
    assert unnamed.endswith("Found one without a name.")
    assert colour.startswith(f"{tmp_path / 'h.csv'}, row 2: A hint should name")
    (tmp_path / "h.json").write_text(
        '[{"x": 1, "y": 2, "color": "red"}, {"x": 1, "y": 2, "colour": "red"}, {"x": 1}]'
    )
    with pytest.raises(ConfigError) as raised:
        read_hints(tmp_path / "h.json")
    assert [problem.partition(": ")[0][-6:] for problem in raised.value.args] == ["hint 1", "hint 3"]
    assert "Did you mean `colour`?" in raised.value.args[0]
    with pytest.raises(ConfigError) as raised:
        parse_hints(["1,2=red", "1,2=rde", "9,99=red"], 90, 60)
    assert len(raised.value.args) == 2


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_read_whatever_a_spreadsheet_separates_by(tmp_path, separator):
    (tmp_path / "h.csv").write_text(separator.join(("x", "y", "colour\n1", "2%", "red\n")))
    assert read_hints(tmp_path / "h.csv") == {"": ["1,2%=red"]}


def test_a_table_without_end_is_refused(tmp_path):
    (tmp_path / "h.csv").write_text("x,y,colour\n" + "1,2,red\n" * 501)
    with pytest.raises(ConfigError, match=r"up to 500 hints .* Found 501\. .* --strokes"):
        read_hints(tmp_path / "h.csv")
    (tmp_path / "h.csv").write_text("file,x,y,colour\n" + "a.png,1,2,red\n" * 501)
    with pytest.raises(ConfigError, match=r"Found 501 for `a\.png`\."):
        read_hints(tmp_path / "h.csv")


def test_a_hint_beyond_its_image_is_named_by_table_and_place(tmp_path):
    """Which is seen when the image is read, long after the table was."""
    (tmp_path / "h.csv").write_text("x,y,colour\n1,2,red\n640,2,red\n")
    first, second = read_hints(tmp_path / "h.csv")[""]
    assert parse_hints([first], 640, 480)
    with pytest.raises(ConfigError, match=r"h\.csv, row 3: A hint should lie in the image, 0 to 639 pixels"):
        parse_hints([second], 640, 480)
    with pytest.raises(ConfigError, match=r"in the image, 0% to 100%\. Found `300%`"):
        parse_hint("300%,2=red", 640, 480)
    assert copy(second).place == second.place


# Strokes


def read_strokes(file, width, height):
    return strokes_of(read_image(file), str(file), width, height)


def painted(tmp_path, mode: str = "RGBA", size: tuple[int, int] = (40, 30)):
    image = Pillow.new(mode, size, 0)
    if mode == "RGBA":
        image.paste((200, 50, 50, 255), (5, 10, 15, 12))
        image.paste((90, 90, 90, 255), (30, 20, 31, 21))
        image.paste((0, 0, 255, 100), (0, 0, 3, 3))  # too faint to count
    image.save(tmp_path / "strokes.png")
    return tmp_path / "strokes.png"


def opaque(folder, colour):
    Pillow.new("RGBA", (40, 30), colour).save(folder / "opaque.png")
    return folder / "opaque.png"


def test_strokes_are_the_opaque_pixels(tmp_path):
    x, y, chroma = read_strokes(painted(tmp_path), 40, 30)
    assert len(x) == len(y) == 21
    red = srgb_to_lab(np.array([200, 50, 50]) / 255)[1:]
    assert chroma[:20] == pytest.approx(np.tile(red, (20, 1)))
    assert ((x[:20] * 40).min(), (x[:20] * 40).max()) == pytest.approx((5.5, 14.5))
    assert ((y[:20] * 30).min(), (y[:20] * 30).max()) == pytest.approx((10.5, 11.5))
    assert chroma[20].tolist() == [0.0, 0.0]


def test_of_very_many_pixels_some_are_taken_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(hints, "MOST_SAMPLES", 1000)
    Pillow.new("RGBA", (200, 160), (200, 50, 50, 255)).save(tmp_path / "all.png")
    x, y, _ = read_strokes(tmp_path / "all.png", 200, 160)
    assert len(x) == 1000
    for share, bins in ((x, 20), (y, 20)):
        assert np.histogram(share, bins, (0, 1))[0].min() > 25
    assert len(np.unique(np.stack([x // 0.1, y // 0.1]), axis=1).T) == 100


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: painted(folder, size=(41, 30)), "as large as the photo, 40 x 30. Found 41 x 30"),
        (lambda folder: painted(folder, "RGB"), "no transparency"),
        (lambda folder: painted(folder, "LA"), "transparent everywhere"),
        (
            lambda folder: opaque(folder, (90, 90, 90, 255)),
            "gray everywhere, which .* on a transparent layer",
        ),
    ],
)
def test_what_are_no_strokes_is_said(tmp_path, make, said):
    with pytest.raises(ConfigError, match=said):
        read_strokes(make(tmp_path), 40, 30)


@pytest.fixture(scope="module")
def colorizer():
    paint_compiled()  # or it would begin in the middle of a comparison, wherever a megapixel has been painted
    return Colorizer.load()


def figure(height: int, width: int) -> np.ndarray:
    """Where it stands: an ellipse in the middle, 0.6 of the height tall."""
    y, x = (np.mgrid[:height, :width] + 0.5) / height - 0.5
    return ((x - 0.5 * (width / height - 1)) / 0.2) ** 2 + (y / 0.3) ** 2 < 1


def photo(height: int, width: int, dtype: type = np.uint8, channels: int = 1) -> np.ndarray:
    """A light shaded figure before a grainy ground that grows lighter to the right."""
    y, x = (np.mgrid[:height, :width] + 0.5) / min(height, width)
    shade = np.where(figure(height, width), 0.8 + 0.08 * np.sin(8 * y), 0.25 + 0.1 * x)
    shade += np.random.default_rng(3).normal(0, 0.012, shade.shape)
    codes = (shade.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)
    return np.ascontiguousarray(np.repeat(codes[..., None], channels, 2))


def rgb_of(colorizer: Colorizer, pixels: np.ndarray, *hints: Hint, saturation: float = 1.0) -> np.ndarray:
    """RGB of what would be written, 0 to 1 (H, W, 3)."""
    written = colorizer.colorize(Image.of(pixels), ColorizeOptions(hints, saturation)).image.pixels
    return written / np.iinfo(written.dtype).max


def coloured(colorizer: Colorizer, pixels: np.ndarray, *hints: Hint) -> np.ndarray:
    """The same in CIELAB."""
    return rgb2lab(rgb_of(colorizer, pixels, *hints))


PHOTOS = {
    "gray": photo(240, 320),
    "of three channels": photo(240, 320, channels=3),
    "16 bits": photo(240, 320, np.uint16),
    "larger than the grid": photo(700, 900),
    "smaller than the network": photo(40, 50),
}
ON_FIGURE, ON_GROUND = Hint(0.5, 0.55, 12, -18), Hint(0.15, 0.2, -15, 20)


@pytest.mark.parametrize("pixels", PHOTOS.values(), ids=PHOTOS)
@pytest.mark.parametrize("saturation", [0, 1, 2.5])
def test_the_written_pixel_has_the_colour_at_any_saturation(colorizer, pixels, saturation):
    hints = [ON_FIGURE, ON_GROUND, Hint(0.5, 0.52, 0, 0), Hint(0.0, 1.0, 14, 3)]
    written = rgb_of(colorizer, pixels, *hints, saturation=saturation)
    for hint in hints:
        found = rgb2lab(written[pixel_of(hint, pixels.shape)])[1:]
        assert np.linalg.norm(found - hint[2:]) < (2 if pixels.dtype == np.uint8 else 0.2)


def test_a_colour_that_srgb_lacks_is_met_as_near_as_its_hue_allows(colorizer):
    wild = ON_FIGURE._replace(a=20, b=-100)
    _, a, b = coloured(colorizer, PHOTOS["16 bits"], wild)[pixel_of(wild, (240, 320))]
    assert math.atan2(b, a) == pytest.approx(math.atan2(wild.b, wild.a), abs=0.02)
    assert 20 < math.hypot(a, b) < 60


@pytest.fixture(scope="module")
def unhinted(colorizer):
    """CIELAB of each of `PHOTOS` as it is coloured without hints."""
    return {name: coloured(colorizer, pixels) for name, pixels in PHOTOS.items()}


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("hint", [ON_FIGURE, ON_GROUND, Hint(0.37, 0.4, 40, 40), Hint(0.27, 0.5, 40, 40)])
def test_the_rest_of_the_image_stays_as_it_was(colorizer, unhinted, name, hint):
    shape = PHOTOS[name].shape[:2]
    change = np.linalg.norm((coloured(colorizer, PHOTOS[name], hint) - unhinted[name])[..., 1:], axis=-1)
    away = from_points(shape, hint)
    side = figure(*shape) == figure(*shape)[pixel_of(hint, shape)]
    assert not change[away > REGION + 1.5 / min(*shape, 192)].any()
    assert (change[~side | (away > REGION)] < 1).mean() > 0.98
    assert np.median(change[side & (away < REGION / 3)]) > 0.5 * change[pixel_of(hint, shape)]


def test_in_a_panorama_the_reach_is_as_far_across_as_down(colorizer):
    pixels = photo(96, 1920)
    hint = Hint(0.2, 0.5, 40, -30)
    written = coloured(colorizer, pixels, hint)
    changed = (written != coloured(colorizer, pixels)).any(-1)
    grid_pixel = 5 / 96  # it is looked at as if it were 4 times as wide as high
    assert (from_points(changed.shape, hint)[changed] < REGION + grid_pixel).all()
    assert changed.any(0).sum() > 0.8 * changed.any(1).sum()


def test_several_hints_each_keep_to_their_own_region(colorizer):
    pixels = PHOTOS["gray"]
    alone = [coloured(colorizer, pixels, hint) for hint in (ON_FIGURE, ON_GROUND)]
    plain = coloured(colorizer, pixels)
    both = coloured(colorizer, pixels, ON_FIGURE, ON_GROUND)
    assert np.abs(both - plain - (alone[0] - plain) - (alone[1] - plain)).max() < 1e-6


def test_a_gray_hint_takes_the_colour_away(colorizer):
    pixels = PHOTOS["gray"]
    row, column = 140, 160
    plain = coloured(colorizer, pixels)
    found = coloured(colorizer, pixels, parse_hint(f"{column},{row}=gray", 320, 240))
    assert np.linalg.norm(plain[row, column, 1:]) > 4
    assert np.linalg.norm(found[row, column, 1:]) < 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (1, 5000)])
def test_images_one_pixel_wide_are_coloured_too(colorizer, shape):
    pixels = np.full((*shape, 1), 119, np.uint8)
    found = coloured(colorizer, pixels, Hint(0.5, 0.5, 20, 10))
    assert found[shape[0] // 2, shape[1] // 2, 1:] == pytest.approx([20, 10], abs=2)


@pytest.mark.parametrize(
    "hint",
    [
        Hint(1.2, 0, 0, 0),
        Hint(0, -0.1, 0, 0),
        Hint(math.nan, 0, 0, 0),
        Hint(0, 0, math.inf, 0),
        Hint(0, 0, 0, math.nan),
        Hint(0, 0, 1e300, 0),
    ],
)
def test_hints_outside_the_image_or_not_finite_are_refused(colorizer, hint):
    with pytest.raises(ConfigError, match="`hints` should have x and y within 0 to 1"):
        coloured(colorizer, PHOTOS["gray"], hint)


@pytest.mark.parametrize(
    "strokes",
    [
        ([], [], np.zeros((0, 2))),
        ([0.5, 0.5], [0.5], [[1, 1]]),
        ([0.5], [0.5], [[1, 1, 1]]),
        ([5.0], [0.5], [[1, 1]]),
        ([0.5], [-0.1], [[1, 1]]),
        ([math.nan], [0.5], [[1, 1]]),
        ([0.5], [0.5], [[math.nan, 1]]),
        ([0.5], [0.5], [[1e300, 1]]),
    ],
)
def test_strokes_outside_the_image_or_of_no_colour_are_refused(colorizer, strokes):
    options = ColorizeOptions(strokes=Strokes(*map(np.array, strokes)))
    with pytest.raises(ConfigError, match=r"`strokes` should have x and y .* Found x "):
        colorizer.colorize(Image.of(PHOTOS["gray"]), options)


def test_chroma_at_a_point_is_that_of_the_image():
    generator = np.random.default_rng(2)
    lines = generator.normal(0, 1, (5, 7, 4)).astype(np.float32)
    slope_a, slope_b, offset_a, offset_b = (enlarge(lines[..., k], 40, 30) for k in range(4))
    for row, column in ((0, 0), (39, 29), (17, 3)):
        found = chroma_at(lines, 60.0, (row + 0.5) / 40, (column + 0.5) / 30)
        expected = np.stack([60 * slope_a + offset_a, 60 * slope_b + offset_b], -1)[row, column]
        assert found == pytest.approx(expected, abs=1e-4)


# Strokes


def stroke(shape: tuple[int, ...], chroma: tuple[float, float], rows: slice, columns: slice) -> Strokes:
    """A painted rectangle."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y[rows, columns].ravel(), x[rows, columns].ravel()
    return Strokes((x + 0.5) / shape[1], (y + 0.5) / shape[0], np.tile(chroma, (len(x), 1)))


def stroked(
    colorizer: Colorizer, pixels: np.ndarray, strokes: Strokes, *hints: Hint, **options
) -> np.ndarray:
    made = colorizer.colorize(Image(pixels), ColorizeOptions(hints, strokes=strokes, **options))
    return rgb2lab(made.image.pixels / np.iinfo(pixels.dtype).max)


BAND = (slice(100, 140), slice(40, 50))


@pytest.mark.parametrize("saturation", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("name", ["gray", "16 bits"])
def test_a_stroke_is_met_wherever_it_was_painted(colorizer, name, saturation):
    pixels = PHOTOS[name]
    found = stroked(colorizer, pixels, stroke((240, 320), (20, -15), *BAND), saturation=saturation)[BAND]
    assert np.linalg.norm(found[..., 1:] - (20, -15), axis=-1).max() < 2


def test_out_of_reach_of_a_stroke_nothing_changes(colorizer):
    pixels = PHOTOS["gray"]
    changed = (
        stroked(colorizer, pixels, stroke((240, 320), (20, -15), *BAND)) != coloured(colorizer, pixels)
    ).any(-1)
    painted = np.zeros((240, 320), bool)
    painted[BAND] = True
    away = distance_transform_edt(~painted) / 240
    assert changed[away < 0.02].all()
    assert not changed[away > REGION + 2 / 192].any()


def test_a_stroke_of_one_pixel_is_a_hint(colorizer):
    pixels, hint = PHOTOS["gray"], Hint(0.3, 0.6, 20, -15)
    row, column = pixel_of(hint, (240, 320))
    found = stroked(colorizer, pixels, Strokes(np.array([0.3]), np.array([0.6]), np.array([[20, -15]])))
    assert found[row, column, 1:] == pytest.approx((20, -15), abs=1)


def test_strokes_and_hints_are_both_met(colorizer):
    pixels, hint = PHOTOS["gray"], Hint(0.8, 0.2, -20, 20)
    found = stroked(colorizer, pixels, stroke((240, 320), (20, -15), *BAND), hint)
    assert found[pixel_of(hint, (240, 320))][1:] == pytest.approx((-20, 20), abs=1)
    assert np.linalg.norm(found[BAND][..., 1:] - (20, -15), axis=-1).max() < 2


def test_two_strokes_side_by_side_keep_their_colours(colorizer):
    pixels = PHOTOS["gray"]
    two = [
        stroke((240, 320), chroma, slice(100, 140), at)
        for chroma, at in (((25, 0), slice(40, 50)), ((-25, 0), slice(60, 70)))
    ]
    found = stroked(colorizer, pixels, Strokes(*(np.concatenate(part) for part in zip(*two, strict=True))))
    assert found[110:130, 42:48, 1].min() > 20
    assert found[110:130, 62:68, 1].max() < -20
