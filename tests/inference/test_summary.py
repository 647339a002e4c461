"""What is told of many images: as words, and as plain values."""

from knowhue.inference.listing import Summary

DONE = Summary("in", "out", 0, 3, 0, (), 0, 0, 0, ("a note",), 12.3456, "built-in", left=0)


def test_where_nothing_was_left_to_colour_no_pace_is_told():
    assert DONE.lines() == [
        "no image coloured -> out",
        "  note: a note",
        "  already done: 3",
        "  model: built-in",
    ]


def test_of_many_failures_of_an_archive_the_first_are_told_and_where_the_others_stand():
    lines = DONE._replace(made=25, failed=9, failures=(("a.png", "it is gone"),), shards=1, left=None).lines()
    assert lines[0] == "25 images coloured in 12 s (2.0 a second), 1 shard -> out"
    assert lines[-4:-1] == [
        "  9 failed; the same command tries them again:",
        "    a.png: it is gone",
        "    and 8 more, in out/.knowhue/ledgers",
    ]


def test_how_many_have_no_class_and_how_many_a_warning_is_told_once_and_where_each_stands():
    line = DONE._replace(unknown=2, warned=3).lines()[-2]
    assert line == "  of 3 images, class unknown: 2, warnings: 3; see out/colorized.jsonl"
    line = DONE._replace(warned=1, shards=1).lines()[-2]
    assert line == "  of 3 images, warnings: 1; see out/.knowhue/ledgers"


def test_a_record_holds_what_a_folder_or_an_archive_has():
    assert DONE.as_record() == {
        "source": "in", "out": "out", "made": 0, "already": 3, "failed": 0, "failures": [], "novel": 0,
        "unknown": 0, "warned": 0,
        "notes": ["a note"], "seconds": 12.346, "model": "built-in", "left": 0,
    }  # fmt: skip
    assert "left" not in DONE._replace(left=None, shards=2).as_record()
