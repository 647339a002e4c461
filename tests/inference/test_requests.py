"""Requests: answers equal the colorizer's, batches are bounded, and a full queue refuses."""

import io
import threading
import time
from concurrent.futures import Future, wait
from pathlib import Path

import numpy as np
import pytest
from fake_network import FakeNetwork
from fake_server import colorizer, photo, wait_until
from PIL import Image

from knowhue.errors import ConfigError, ImageError
from knowhue.images.reading import MAX_PIXELS, readable_formats, weigh_image
from knowhue.images.writing import encode_image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.hints import Hint, match_hints
from knowhue.inference.pipeline import Busy, Late, Limits, Stopping
from knowhue.inference.requests import Batcher, ImageReply, ImageRequest, NoImageError

WIDE, TALL = photo(width=48), photo(width=20)


@pytest.fixture
def make_batcher():
    """Batchers that are closed afterwards: `make_batcher(network=..., queue_length=3)`."""
    made: list[Batcher] = []

    def make(
        network: FakeNetwork | None = None, max_pixels: int = MAX_PIXELS, threads: int = 2, **limits
    ) -> Batcher:
        batcher = Batcher(Colorizer(network or FakeNetwork()), Limits(threads, **limits), max_pixels)
        made.append(batcher)
        return batcher

    yield make
    for batcher in made:
        batcher.close(10)


class Gate:
    """Something that predictions wait for."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.waiting = 0

    def __call__(self, seen: np.ndarray) -> None:
        self.waiting += 1
        assert self.opened.wait(60)


def replies(futures: list[Future[ImageReply]]) -> list[ImageReply]:
    wait(futures, 10)
    return [future.result(0) for future in futures]


def test_a_reply_is_what_the_colorizer_says_alone(make_batcher):
    data = photo("png", mode="RGB", value=90)
    options = ColorizeOptions(hints=(Hint(0.5, 0.5, 30, -20),), saturation=0.7)
    reply = make_batcher().submit(ImageRequest(data, options)).result(60)  # kernels are compiled once
    alone = colorizer().colorize(data, options)
    assert reply.data == encode_image(alone.image, ".png")
    assert reply.judgement == alone.judgement
    assert reply.suffix == ".png"


def test_hints_are_read_against_the_size_of_the_image(make_batcher):
    batcher = make_batcher()
    written = batcher.submit(ImageRequest(WIDE, hints=("25%,50%=red",))).result(60)
    assert written.data != batcher.submit(ImageRequest(WIDE)).result(60).data
    with pytest.raises(ConfigError, match="hint"):
        batcher.submit(ImageRequest(WIDE, hints=("48,0=red",))).result(60)


def test_without_colour_it_only_judges(make_batcher):
    reply = make_batcher().submit(ImageRequest(photo(value=250), colour=False)).result(60)
    assert (reply.judgement.label, reply.data, reply.colorized, reply.judgement.chroma) == (
        "bright",
        b"",
        None,
        None,
    )


def test_what_the_file_cannot_hold_is_said(make_batcher):
    reply = make_batcher().submit(ImageRequest(photo("png", mode="RGBA"), suffix=".jpg")).result(60)
    assert any("transparency" in warning for warning in reply.judgement.warnings)
    assert Image.open(io.BytesIO(reply.data)).format == "JPEG"


def test_images_of_one_shape_are_seen_together_and_others_are_not(make_batcher):
    gate = Gate()
    network = FakeNetwork(gate)
    batcher = make_batcher(network, batch=8)
    first = batcher.submit(ImageRequest(WIDE))
    wait_until(lambda: gate.waiting)
    rest = [batcher.submit(ImageRequest(data)) for data in (WIDE, TALL, WIDE, TALL, WIDE)]
    wait_until(lambda: len(batcher._decoded) == 5)
    gate.opened.set()
    assert len(replies([first, *rest])) == 6
    assert network.batches[0] == 1
    assert sorted(network.batches[1:]) == [2, 3]


def test_a_batch_is_never_larger_than_it_may_be(make_batcher):
    gate = Gate()
    network = FakeNetwork(gate)
    batcher = make_batcher(network, batch=2)
    futures = [batcher.submit(ImageRequest(WIDE)) for _ in range(7)]
    wait_until(lambda: gate.waiting and len(batcher._decoded) >= 5)
    gate.opened.set()
    replies(futures)
    assert max(network.batches) == 2
    assert sum(network.batches) == 7


def test_a_lonely_image_waits_for_no_company(make_batcher):
    batcher = make_batcher(batch_wait_seconds=5.0)
    started = time.monotonic()
    batcher.submit(ImageRequest(WIDE)).result(60)
    assert time.monotonic() - started < 2


def test_a_full_queue_is_busy_and_says_when_to_come_again(make_batcher):
    gate = Gate()
    batcher = make_batcher(FakeNetwork(gate), queue_length=3)
    futures = [batcher.submit(ImageRequest(WIDE)) for _ in range(3)]
    with pytest.raises(Busy, match="full with 3 items") as caught:
        batcher.submit(ImageRequest(WIDE))
    assert 1 <= caught.value.retry_after_seconds <= 60
    with pytest.raises(Busy):
        batcher.check()
    gate.opened.set()
    replies(futures)
    wait_until(lambda: batcher.length == 0)
    batcher.submit(ImageRequest(WIDE)).result(60)


def test_who_leaves_makes_room(make_batcher):
    gate = Gate()
    network = FakeNetwork(gate)
    batcher = make_batcher(network, queue_length=3, threads=1, held_bytes=48 * 32)
    first = batcher.submit(ImageRequest(WIDE))  # more pixels than may be held: the others wait undecoded
    wait_until(lambda: gate.waiting)
    others = [batcher.submit(ImageRequest(WIDE)) for _ in range(2)]
    assert others[0].cancel()
    accepted = batcher.submit(ImageRequest(WIDE))
    gate.opened.set()
    assert len(replies([first, others[1], accepted])) == 3
    assert sum(network.batches) == 3


def test_a_failure_is_one_images_own(make_batcher):
    gate = Gate()

    def dark_ones_crash(seen: np.ndarray) -> None:
        gate(seen)
        if (seen.mean((1, 2)) < 20).any():
            raise RuntimeError("the secret path /srv/model broke")

    batcher = make_batcher(FakeNetwork(dark_ones_crash))
    first = batcher.submit(ImageRequest(WIDE))
    wait_until(lambda: gate.waiting)
    futures = [batcher.submit(ImageRequest(photo(value=value))) for value in (200, 0, 100, 0, 150)]
    wait_until(lambda: len(batcher._decoded) == 5)
    gate.opened.set()
    wait([first, *futures], 10)
    assert [future.exception(0) is None for future in futures] == [True, False, True, False, True]
    assert first.result(0).data
    assert batcher.submit(ImageRequest(WIDE)).result(60).data


def test_what_is_no_image_is_told_every_format_that_is_read(make_batcher):
    with pytest.raises(NoImageError) as caught:
        make_batcher().submit(ImageRequest(b"hello")).result(60)
    assert f"({', '.join(readable_formats())})" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "error"), [(b"GIF", NoImageError), (WIDE[:200], ImageError), (b"", ImageError)]
)
def test_a_bad_image_is_told_and_forgotten(make_batcher, data: bytes, error: type[Exception]):
    batcher = make_batcher()
    with pytest.raises(error, match="image"):
        batcher.submit(ImageRequest(data)).result(60)
    wait_until(lambda: batcher.length == 0)


def test_pixels_are_counted_before_they_are_decoded(make_batcher):
    with pytest.raises(ImageError, match=r"more than 1,000; make it smaller$"):
        make_batcher(max_pixels=1000).submit(ImageRequest(WIDE)).result(60)


def test_a_request_whose_time_is_up_is_dropped(make_batcher):
    gate = Gate()
    network = FakeNetwork(gate)
    batcher = make_batcher(network, item_seconds=1.0, held_bytes=48 * 32, threads=1)
    first, second = batcher.submit(ImageRequest(WIDE)), batcher.submit(ImageRequest(WIDE))
    wait_until(lambda: gate.waiting)
    time.sleep(1.05)
    gate.opened.set()
    for future in (first, second):
        with pytest.raises(Late, match="limit of 1 s"):
            future.result(60)
    assert network.batches == [1]


def test_closing_finishes_what_was_accepted_and_accepts_no_more(make_batcher):
    gate = Gate()
    batcher = make_batcher(FakeNetwork(gate))
    futures = [batcher.submit(ImageRequest(WIDE)) for _ in range(5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    wait_until(lambda: not batcher.is_open)
    with pytest.raises(Stopping):
        batcher.submit(ImageRequest(WIDE))
    assert closing.is_alive()
    gate.opened.set()
    closing.join(60)
    assert all(future.done() for future in futures)
    assert all(reply.data for reply in replies(futures))
    assert not any(thread.is_alive() for thread in batcher._threads)


def test_few_images_are_decoded_at_once_however_many_wait(make_batcher):
    """Memory is bounded by bytes, not by the length of the queue."""
    gate = Gate()
    two = 2 * weigh_image(WIDE).held_bytes
    batcher = make_batcher(FakeNetwork(gate), queue_length=50, held_bytes=two, threads=3, batch=1)
    futures = [batcher.submit(ImageRequest(WIDE)) for _ in range(40)]
    wait_until(lambda: gate.waiting)
    time.sleep(0.1)
    held = batcher._budget._held
    gate.opened.set()
    replies(futures)
    assert 0 < held <= two
    wait_until(lambda: batcher._budget._held == 0)


def test_the_bytes_of_a_file_weigh_as_much_as_the_file(tmp_path: Path):
    for kind in ("jpeg", "png", "bmp", "tiff"):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(photo(kind))
        assert weigh_image(path.read_bytes()).held_bytes == weigh_image(path).held_bytes > 0
    assert weigh_image(b"no image").held_bytes == weigh_image(b"").held_bytes == 0


def test_many_threads_may_ask(make_batcher):
    batcher = make_batcher(queue_length=64)
    labels: dict[int, str | None] = {}

    def ask(number: int) -> None:
        value = 250 if number % 2 else 5
        labels[number] = (
            batcher.submit(ImageRequest(photo(value=value, width=20 + number))).result(60).judgement.label
        )

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert labels == {number: "bright" if number % 2 else "dark" for number in range(24)}


def test_hints_of_many_images_are_refused_before_any_is_coloured(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {name: tmp_path / name for name in ("wide.jpg", "turned.jpg", "old.bmp", "cut.png")}
    for name in ("wide.jpg", "turned.jpg", "old.bmp"):
        Image.new("L", (80, 60)).save(images[name], exif=exif if name == "turned.jpg" else b"")
    images["cut.png"].write_bytes(b"no image")
    inside = {"wide.jpg": ["79,59=red"], "turned.jpg": ["59,79=red"], "old.bmp": ["50%,59=red"]}
    given = inside | {"cut.png": ["9999,0=red"]}  # that is said when it is read
    assert match_hints(given, images, tmp_path) == given
    outside = {
        "wide.jpg": ["1,60=red", "0,0=rde"],
        "turned.jpg": ["60,0=red"],
        "old.bmp": ["-1,0=red"],
        "no.png": [],
    }
    with pytest.raises(ConfigError) as raised:
        match_hints(outside, images, tmp_path)
    *misplaced, unnamed = raised.value.args
    assert [problem.split(":")[0] for problem in misplaced] == [
        "wide.jpg",
        "wide.jpg",
        "turned.jpg",
        "old.bmp",
    ]
    assert "0 to 59 pixels. Found `60` in `1,60=red`" in misplaced[0]
    assert "Found `no.png`" in unnamed
    with pytest.raises(ConfigError) as raised:
        match_hints({"wide.jpg": [f"{x},0=red" for x in range(90)]}, images, tmp_path)
    assert raised.value.args[-1] == "and 2 more"


def test_hints_find_their_image_however_its_accents_are_written(tmp_path: Path):
    name, written = "e\u0301tang.png", "\u00e9tang.png"
    Image.new("L", (8, 8)).save(tmp_path / name)
    assert match_hints({written: ["0,0=red"]}, {name: tmp_path / name}, tmp_path) == {name: ["0,0=red"]}
