"""Hints as they are written: on the command line, in tables, as strokes."""

import json

import numpy as np
import pytest
from PIL import Image as Pillow

from knowhue.color import srgb_to_lab
from knowhue.errors import ConfigError
from knowhue.images.reading import read_image
from knowhue.inference import hints
from knowhue.inference.hints import parse_hint, read_hints, strokes_of


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
    ],
)
def test_nonsense_is_refused_in_words(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_hint(text, 600, 400)
    assert said in str(caught.value)


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
        ("h.csv", "", "no hints; write one a line below a header `file,x,y,colour`"),
        ("h.csv", "x,y,colour\n", "no hints"),
        ("h.csv", "x,y\n1,2\n", "hint 1: the columns should be file, x, y, colour .* Found `x`, `y`"),
        ("h.csv", "x,y,colour,size\n1,2,red,3\n", "Found `x`, `y`, `colour`, `size`"),
        ("h.csv", "x;y;colour\n1;2;red\n", "Found `x;y;colour`"),
        ("h.csv", "x,y,colour\n1,2\n", "as many cells in each line"),
        ("h.csv", "x,y,colour\n1,2,red\n1,2,rouge\n", "h.csv, hint 2: .*Found `rouge`"),
        ("h.csv", "x,y,colour\n120%,2,red\n", "hint 1: .*Found `120%`"),
        ("h.json", "{", "no table of hints"),
        pytest.param("h.json", 100_000 * "[", "no table of hints", id="brackets"),
        ("h.json", "[1]", "no hints"),
        ("h.json", '{"x": 1}', "no hints"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_before_any_image_is_read(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_hints(tmp_path / name)


def test_a_table_without_end_is_refused(tmp_path):
    (tmp_path / "h.csv").write_text("x,y,colour\n" + "1,2,red\n" * 501)
    with pytest.raises(ConfigError, match=r"up to 500 hints .* Found 501 .* --strokes"):
        read_hints(tmp_path / "h.csv")


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
    ],
)
def test_what_are_no_strokes_is_said(tmp_path, make, said):
    with pytest.raises(ConfigError, match=said):
        read_strokes(make(tmp_path), 40, 30)
