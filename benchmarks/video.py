"""Time to colour a video per frame, and what its stages take; the floor decodes and encodes the same frames.

The video pans over a photo with grain. CPU time is that of all threads and hardly depends on other processes.

    python benchmarks/video.py PHOTO [--frames 100] [--width 640] [--height 480] [--model built-in]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np

from knowhue.color import FloatArray
from knowhue.images.image import Image
from knowhue.images.reading import read_image
from knowhue.images.vips import shrink
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.video import Steadier, colorize_video
from knowhue.inference.video_reading import Video
from knowhue.inference.video_writing import write_video

RATE = 25


def main() -> None:
    """Time the whole and its parts, and print milliseconds per frame."""
    args = _read_arguments()
    colorizer = Colorizer.load(args.model)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.mp4", Path(folder) / "out.mp4"
        draw_video(source, args)
        colorize_video(colorizer, source, out, overwrite=True)  # compiles
        inputs = [colorizer.at_one_size().network_input(frame) for frame in pan(args)]
        answers = [answer.colours[0] for answer in colorizer.at_one_size().predict(inputs)]
        ways: dict[str, Callable[[], object]] = {
            "floor: decode and encode": lambda: copy(out, Path(folder) / "copy.mp4"),
            "coloured": lambda: colorize_video(colorizer, source, out, overwrite=True),
            "the network": lambda: colorizer.at_one_size().predict(inputs),
            "steadying": lambda: steady(inputs, answers),
        }
        for name, work in ways.items():
            wall, cpu = zip(*(_cost(work) for _ in range(args.runs)), strict=True)
            a_frame = [1000 * min(each) / args.frames for each in (wall, cpu)]
            print(f"{name:26}{a_frame[0]:7.1f} ms by the clock, {a_frame[1]:6.1f} ms of CPU per frame")


def pan(args: argparse.Namespace) -> Iterator[Image]:
    """Frames of a camera that moves to the right over a photo, in gray, with grain."""
    photo = read_image(args.photo).pixels
    wide = shrink(photo, args.height, args.width + 2 * args.frames).mean(2, keepdims=True)
    generator = np.random.default_rng(0)
    for start in range(args.frames):
        frame = 255 * wide[:, 2 * start : 2 * start + args.width]
        grain = generator.normal(0, 3, frame.shape)
        yield Image.of((frame + grain).clip(0, 255).round().astype(np.uint8))


def draw_video(target: Path, args: argparse.Namespace) -> None:
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", RATE, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = args.width, args.height, "yuv420p"
        for image in pan(args):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image.pixels[..., 0]), "gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def copy(source: Path, target: Path) -> None:
    """Decode and encode a coloured video as `colorize_video` does."""
    with closing(Video(source)) as video, closing(video.frames()) as frames:
        write_video(video, target, target.suffix, frames)


def steady(inputs: list[FloatArray], answers: list[FloatArray]) -> None:
    steadier = Steadier()
    for lightness, chroma in zip(inputs, answers, strict=True):
        steadier.step(lightness, chroma)


def _cost(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photo", type=Path, help="photo over which the camera pans")
    parser.add_argument("--frames", type=int, default=100, help="number of frames")
    parser.add_argument("--width", type=int, default=640, help="width of a frame, pixels")
    parser.add_argument("--height", type=int, default=480, help="height of a frame, pixels")
    parser.add_argument("--model", default="built-in", help="built-in, a run folder, or an exported file")
    parser.add_argument("--runs", type=int, default=3, help="runs, of which the least counts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
