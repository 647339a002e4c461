import os
import time
from pathlib import Path

import pytest

from knowhue.serving.page_intake import ABANDONED_SECONDS, MOST_FILES, Intake
from knowhue.serving.refusals import Refusal


def put(path: Path, size: int = 10, age: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    for each in (path, path.parent):
        os.utime(each, (time.time() - age, time.time() - age))
    return path


def test_what_nobody_took_is_deleted_and_the_rest_stays(tmp_path: Path):
    old = put(tmp_path / "uploads" / "hash" / "old.jpg", age=ABANDONED_SECONDS + 5)
    broken = put(tmp_path / "uploads" / "tmp1", age=ABANDONED_SECONDS + 5)
    fresh = put(tmp_path / "uploads" / "other" / "fresh.jpg")
    outside = put(tmp_path / "mine.jpg", age=ABANDONED_SECONDS + 5)
    intake = Intake(tmp_path / "uploads", 1)
    intake.sweep()
    assert not old.exists()
    assert not broken.exists()
    assert fresh.exists()
    assert outside.exists()
    os.utime(old.parent, (0, 0))
    intake.sweep()
    assert not old.parent.exists()


def test_an_upload_too_many_is_refused_until_there_is_room(tmp_path: Path):
    intake = Intake(tmp_path, 1)
    intake.admit()
    large = put(tmp_path / "hash" / "large.jpg", 1 << 20)
    with pytest.raises(Refusal, match="too many uploads") as refused:
        intake.admit()
    assert refused.value.status == 429
    assert int(refused.value.headers["retry-after"]) > 0
    large.unlink()
    intake.admit()


def test_many_small_files_are_too_many_as_well(tmp_path: Path):
    for number in range(MOST_FILES):
        (tmp_path / str(number)).touch()
    with pytest.raises(Refusal, match="too many uploads"):
        Intake(tmp_path, 1).admit()
