"""If the folder for temporary files is full, the error names another folder."""

import errno
import sqlite3
from contextlib import nullcontext

import pytest
from synthetic_study import write_study

from knowhue.errors import RunError
from knowhue.sealing import pack
from knowhue.storage import write_json, writing
from knowhue.temporary import tables_on_disk, temporary_folder

NO_ROOM = r"should fit into the folder for temporary files, `.*`\. Found no room: .*TMPDIR=/large"


def test_full_disk_under_a_table_is_said(small_disk):
    script = "PRAGMA cache_size = 1; CREATE TABLE a (b); INSERT INTO a VALUES (zeroblob(100000));"
    with pytest.raises(RunError, match=NO_ROOM), tables_on_disk() as tables:
        tables.executescript(script)


def test_a_table_that_is_not_there_is_no_full_disk():
    with pytest.raises(sqlite3.OperationalError, match="no such table"), tables_on_disk() as tables:
        tables.execute("SELECT * FROM names")


def test_a_full_folder_is_said_whichever_way_its_files_are_written(small_disk):
    with pytest.raises(RunError, match=f"^Files {NO_ROOM}"), temporary_folder("Files") as folder:
        write_json(folder / "a.json", {"a": "x" * 9000})
    with pytest.raises(RunError, match=NO_ROOM), temporary_folder("Files") as folder:
        (folder / "a").write_bytes(bytes(9000))


@pytest.mark.parametrize("names_it", [True, False])
def test_a_library_that_hides_a_full_disk_behind_an_error_of_its_own_is_heard(small_disk, names_it):
    """As torch and numpy do."""

    def write(path):
        with writing(path) if names_it else nullcontext():
            try:
                path.write_bytes(bytes(9000))
            except OSError:
                raise RuntimeError("it failed")  # noqa: B904  as libraries do

    with pytest.raises(RunError, match=f"^Files {NO_ROOM}"), temporary_folder("Files") as folder:
        write(folder / "a")


def test_room_that_lacks_elsewhere_is_none_of_the_temporary_folder(tmp_path, small_disk):
    with pytest.raises(RunError, match=r"name another folder\.$"), temporary_folder("Files"):
        write_json(tmp_path / "a.json", {"a": "x" * 9000})
    with pytest.raises(PermissionError), temporary_folder("Files") as folder:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "a"))


def test_a_study_that_finds_no_room_to_be_packed_in_is_told_where(tmp_path, request):
    study = write_study(tmp_path / "demo")
    request.getfixturevalue("small_disk")
    with pytest.raises(RunError, match=f"^The files of a study without its images {NO_ROOM}"):
        pack(study, tmp_path / "demo.zip")
