"""The commands in docs/serve.md work, and its numbers are the server's."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import typer.main
from fake_server import MatchingNetwork, photo, running

from knowhue.apps.cli import app
from knowhue.images.image import Image
from knowhue.images.writing import encode_image
from knowhue.inference.colorizer import Colorizer
from knowhue.serving.limits import MAX_HEADER_BYTES, MAX_HEADERS, READING_SECONDS
from knowhue.serving.run import MAX_CONNECTIONS
from knowhue.serving.schemas import MOST_HINTS, ColourOptions, Format
from knowhue.serving.settings import ServerSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^curl .*$", TEXT, flags=re.M)


def test_the_client_of_the_documentation_is_the_tested_one():
    client = (ROOT / "tests" / "serving" / "api_client.py").read_text(encoding="utf-8")
    assert re.findall(r"```python\n(.*?)```", TEXT, flags=re.S) == [client]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_curl_command_is_answered(tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(photo(width=64, height=48))
    (tmp_path / "other.jpg").write_bytes(
        encode_image(Image.of(np.full((8, 8, 3), (200, 40, 40), np.uint8)), ".jpg")
    )
    assert len(COMMANDS) >= 8
    with running({"fake": Colorizer(MatchingNetwork())}) as (host, port, _):
        for command in COMMANDS:
            typed = command.replace("127.0.0.1:7860", f"{host}:{port}").replace("curl", "curl -sS --fail", 1)
            done = subprocess.run(
                ["bash", "-c", typed], check=False, cwd=tmp_path, capture_output=True, timeout=60
            )
            assert done.returncode == 0, (command, done.stderr)
    assert (tmp_path / "colour.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert (tmp_path / "colour.png").read_bytes()[1:4] == b"PNG"


def test_every_option_of_the_command_exists():
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    lines = re.findall(r"^knowhue serve.*?(?=#|$)", TEXT, flags=re.M)
    asked = {option for line in lines for option in re.findall(r"--[a-z-]+", line)}
    inline = {option for option in re.findall(r"`(--[a-z-]+)", TEXT)}
    assert asked | inline <= known
    assert {"--model", "--study", "--host", "--no-page", "--no-auth", "--allowed-host"} <= asked | inline


def test_options_and_limits_are_the_servers():
    for option in ColourOptions.model_fields:
        assert f"`{option}`" in TEXT, option
    for kind in get_args(Format):
        assert f"`{kind}`" in TEXT, kind
    limits = ServerSettings()
    for said in (
        f"| one request | {limits.max_upload_mib:g} MiB |",
        f"| one image | {limits.max_pixels // 1_000_000} megapixels |",
        f"| uploads held at once | {limits.max_held_mib:g} MiB |",
        f"| requests accepted at once | {limits.queue_length} |",
        f"| images predicted in one batch | {limits.batch_size} |",
        f"| a request | {limits.request_seconds:g} s |",
        f"| an upload | {limits.upload_seconds:g} s,",
        f"| headers | {MAX_HEADERS}, {MAX_HEADER_BYTES // 1024} KiB |",
        f"| connections | {MAX_CONNECTIONS} |",
        f"| reading a response | {READING_SECONDS:g} s,",
        f"`hints` (up to {MOST_HINTS})",
    ):
        assert said in TEXT, said
