"""Object stores, tested with an S3 server: names, timestamps, locks, refused requests and errors."""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from knowhue.archive import colorize_archive
from knowhue.errors import ExtraError, ImageError, RunError
from knowhue.images.image import STATE
from knowhue.inference.description import ModelChoice
from knowhue.inference.store import open_store
from knowhue.runs import BUILT_IN
from s3_server import running_s3

NAMES = ("a.jpg", "b c#d%e ü.png", "糸/ä.tif", "q?z*.webp")


def test_names_come_back_as_they_were_given_and_stamps_change_with_bytes(monkeypatch):
    with running_s3(monkeypatch):
        store = open_store("s3://bucket/names")
        stamps = {name: store.write(name, name.encode()) for name in NAMES}
        assert {each.path: each.stamp for each in store.images()} == stamps
        assert [store.read(name) for name in NAMES] == [name.encode() for name in NAMES]
        assert store.write("a.jpg", b"other") != stamps["a.jpg"]
        store.remove("a.jpg")
        store.remove("a.jpg")
        with pytest.raises(ImageError, match="it is gone"):
            store.read("a.jpg")


def test_which_files_are_photos(monkeypatch):
    with running_s3(monkeypatch):
        store = open_store("s3://bucket/kinds/")
        for name in ("a.JPG", ".hidden/b.png", "@eaDir/c.png", "d.txt", "out/e.png"):
            store.write(name, b"")
        found = {each.path: each.skipped for each in store.images(avoid="out")}
        assert found == {
            "a.JPG": "", ".hidden/b.png": "hidden", "@eaDir/c.png": "of the operating system",
            "d.txt": "of another type (.txt)",
        }  # fmt: skip
        assert len(list(store.files())) == 5


def test_one_driver_at_a_time_and_a_killed_one_is_taken_over(monkeypatch):
    with running_s3(monkeypatch):
        store = open_store("s3://bucket/held")
        with store.hold() as note:
            assert note == ""
            with pytest.raises(RunError, match=rf"in use by process .* remove `{STATE}/driver.json`"):
                open_store("s3://bucket/held").hold().__enter__()
        assert list(store.files()) == []
        here = {"host": socket.gethostname(), "pid": 2**22 + 1, "since": "then"}
        store.write(f"{STATE}/driver.json", json.dumps(here).encode())
        with store.hold() as note:
            assert note == ""
        store.write(f"{STATE}/driver.json", json.dumps(here | {"host": "elsewhere"}).encode())
        with pytest.raises(RunError, match="of elsewhere, since then"):
            store.hold().__enter__()


def test_of_two_that_take_over_a_killed_driver_one_comes_second(monkeypatch):
    import obstore

    put = obstore.put
    with running_s3(monkeypatch):
        store = open_store("s3://bucket/taken")
        here = {"host": socket.gethostname(), "pid": 2**22 + 1, "since": "then"}
        store.write(f"{STATE}/driver.json", json.dumps(here).encode())

        def late(there, path, data, **how):
            if isinstance(how.get("mode"), dict):
                put(there, path, b"another's")  # just before
            return put(there, path, data, **how)

        monkeypatch.setattr(obstore, "put", late)
        with pytest.raises(RunError, match="another command, which has just begun or ended"):
            store.hold().__enter__()
        for content in (b"another's", json.dumps(here | {"pid": 10**30}).encode()):
            store.write(f"{STATE}/driver.json", content)
            with pytest.raises(RunError, match=r"driver.json` of .* is damaged. Remove it"):
                store.hold().__enter__()


def test_a_file_is_replaced_only_where_that_is_allowed(monkeypatch):
    with running_s3(monkeypatch):
        store = open_store("s3://bucket/once")
        stamp = store.write("a.png", b"mine", replace=False)
        assert store.write("a.png", b"mine", replace=False) == stamp  # a request whose answer was lost
        with pytest.raises(ImageError, match="already exists"):
            store.write("a.png", b"other", replace=False)
        assert store.read("a.png") == b"mine"


def test_a_store_without_conditional_puts_says_so(monkeypatch):
    import obstore

    put = obstore.put
    with running_s3(monkeypatch):
        monkeypatch.setattr(obstore, "put", lambda store, path, data, **_: put(store, path, data))
        store = open_store("s3://bucket/plain")
        with store.hold() as note:
            assert "has no conditional put" in note
        assert list(store.files()) == []


def test_over_http_there_is_no_conditional_put_either(monkeypatch):
    import obstore

    written = []
    put = obstore.put

    def seen(store, path, data, **how):
        return put(store, path, data, **how) if "mode" in how else written.append(path) or {"e_tag": "1"}

    monkeypatch.setattr(obstore, "put", seen)
    store = open_store("https://127.0.0.1:9/photos")
    monkeypatch.setattr(store, "remove", lambda path: None)
    with store.hold() as note:
        assert "has no conditional put" in note
    assert store.write("a.png", b"", replace=False) == "1"
    assert "a.png" in written


def test_every_twentieth_request_may_be_refused(monkeypatch):
    with running_s3(monkeypatch, every=20) as server:
        store = open_store("s3://bucket/refused")
        for number in range(60):
            store.write(f"{number}.png", b"%d" % number)
        assert {store.read(each.path) for each in store.images()} == {b"%d" % number for number in range(60)}
        assert server.refused >= 5


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://none/photos", "Cannot use `s3://none/photos`: The specified bucket does not exist"),
        (
            "https://s3.us-east-1.amazonaws.com/none/photos",
            "Cannot use `https://s3.us-east-1.amazonaws.com/none/photos`: The specified bucket does not exist",
        ),
        *(
            (url, f"`{url}` should name a folder of this machine, such as file:///photos")
            for url in ("file://photos/1920", "file:///photos/a#b", "file:///photos?x", "file://")
        ),
        ("foo://bucket", "`foo://bucket` should name a store such as s3://bucket/photos"),
        (
            "az://container/photos",
            "`az://container/photos` should name a store such as s3://bucket/photos. Found: Generic MicrosoftAzure "
            "error: Account must be specified. Credentials and endpoint come from the environment, such as AZURE_",
        ),
    ],
)
def test_what_is_wrong_is_one_line(monkeypatch, url, message):
    with running_s3(monkeypatch), pytest.raises(RunError) as caught:
        list(open_store(url).images())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "WebDAV" not in str(caught.value)


def test_a_password_in_a_url_is_not_shown(tmp_path, monkeypatch):
    pytest.importorskip("obstore")
    # nothing listens there; without retries, for the time that they take
    monkeypatch.setattr("knowhue.inference.store._RETRIES", {"max_retries": 0})
    url, reported = "http://ada:s3cr3t@127.0.0.1:9/photos", []
    for source, out in ((url, str(tmp_path)), (f"ftp{url}", url)):
        with pytest.raises(RunError) as caught:
            colorize_archive(source, out, model=ModelChoice(BUILT_IN), report=reported.append)
        assert "127.0.0.1:9/photos" in str(caught.value)
        assert "s3cr3t" not in f"{caught.value} {reported}"


def test_an_http_server_that_is_no_store_is_said_in_its_own_words():
    pytest.importorskip("obstore")

    class Handler(BaseHTTPRequestHandler):
        def do_PROPFIND(self) -> None:
            self.send_error(405)  # with a page of HTML

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(RunError, match=r"405 Method Not Allowed\. An http address should be") as caught:
            list(open_store(f"http://127.0.0.1:{server.server_port}/photos").images())
    finally:
        server.shutdown()
        server.server_close()
    assert "<" not in str(caught.value)


def test_a_place_is_one_however_it_is_named():
    pytest.importorskip("obstore")
    names = (
        "s3://b/photos",
        "s3a://b/photos/",
        "https://b.s3.eu-west-1.amazonaws.com/photos",
        "s3://b/x/../photos",
    )
    assert len({open_store(name).place for name in names}) == 1
    others = (
        "s3://b",
        "s3://c/photos",
        "gs://b/photos",
        "https://c.r2.cloudflarestorage.com/b/photos",
        "http://b/photos",
    )
    assert len({open_store(name).place for name in (names[0], *others)}) == 6


def test_without_obstore_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(
        ExtraError, match=r"needs `obstore`, which is not installed: pip install .*\[archive\]"
    ):
        open_store("s3://bucket/photos")
