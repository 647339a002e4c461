"""The table of a source's images: order, which copy is kept, and names that are not valid Unicode."""

from typing import ClassVar

import pytest

from knowhue.data.items import SourceItem
from knowhue.data.listing import READ_COLUMNS, ImageListing
from knowhue.temporary import tables_on_disk

NAMES = ["b.jpg", "a (1).jpg", "a.jpg", "unlabelled/a.jpg", "val.jpg", "test.jpg", "ä\udcff.jpg"]
LABELS = ["x", "x", "x", None, "y", "x", "y"]
SPLITS = ["train"] * 4 + ["validation", "test", "train"]


class Given:
    """A source of items without images."""

    is_sorted: ClassVar[bool] = False

    def items(self):
        items = [SourceItem(*each, stamp="s") for each in zip(NAMES, SPLITS, LABELS, strict=True)]
        return iter([*items, SourceItem("a.txt", "train", None, "", skipped="of another type (.txt)")])

    def load(self, item):
        raise NotImplementedError


class InOrder(Given):
    is_sorted: ClassVar[bool] = True


@pytest.fixture
def listing():
    with tables_on_disk() as tables:
        yield ImageListing(Given(), tables)


def record(listing, **columns):
    rows = [dict.fromkeys(READ_COLUMNS, "") | {"sha256": str(i)} for i in range(len(listing))]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    listing.record(0, rows)


def names(listing, positions):
    own = [item.name for item in listing.items()]
    return [own[i] for i in positions]


def test_labelled_images_come_first_by_split_and_by_name(listing):
    assert [item.name for item in listing.items()] == [
        "a (1).jpg", "a.jpg", "b.jpg", "ä\udcff.jpg", "val.jpg", "test.jpg", "unlabelled/a.jpg",
    ]  # fmt: skip
    assert [item.name for item in listing.items(2, 4)] == ["b.jpg", "ä\udcff.jpg"]
    assert listing.classes() == ["x", "y"]
    assert listing.skipped() == {"of another type (.txt)": 1}


def test_a_source_may_have_an_order_of_its_own():
    with tables_on_disk() as tables:
        listing = ImageListing(InOrder(), tables)
        assert [item.name for item in listing.items()] == NAMES
        given = zip(NAMES, SPLITS, LABELS, strict=True)
        assert list(listing.items()) == [SourceItem(*each, stamp="s") for each in given]


def test_copy_to_keep_is_reported_on_then_labelled_then_has_the_shorter_name(listing):
    record(listing)
    assert names(listing, listing.usable()) == [
        "test.jpg", "val.jpg", "a.jpg", "b.jpg", "ä\udcff.jpg", "a (1).jpg", "unlabelled/a.jpg",
    ]  # fmt: skip


def test_first_of_equal_images_is_the_original(listing):
    record(listing, sha256=["1", "1", "2", "3", "2", "1", "1"])
    own = [item.name for item in listing.items()]
    found = {own[copy]: own[original] for copy, original in listing.equal_images().items()}
    assert found == {
        "a (1).jpg": "test.jpg", "a.jpg": "test.jpg", "unlabelled/a.jpg": "test.jpg", "b.jpg": "val.jpg",
    }  # fmt: skip
    listing.leave_out(listing.equal_images(), "duplicate")
    assert set(listing.reasons()) == {"duplicate of test.jpg (test)", "duplicate of val.jpg (validation)"}


def test_an_image_that_cannot_be_used_is_nobodys_original(listing):
    record(listing, sha256=["1"] * 7, reason=["", "", "", "", "", "near-gray", ""])
    original = set(listing.equal_images().values())
    assert names(listing, original) == ["val.jpg"]
    assert listing.counts() == {
        ("train", "x"): 3, ("train", "y"): 1, ("validation", "y"): 1, ("left out", "x"): 1, ("train", None): 1,
    }  # fmt: skip
