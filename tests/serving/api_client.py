import json
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def colorize(
    photo: Path, server: str = "http://127.0.0.1:7860", token: str = ""
) -> tuple[bytes, dict[str, Any]]:
    """The coloured image's file and its description: `label`, `probability`, `warnings`, ..."""
    headers = {"Content-Type": "image/*", "Accept": "application/json", "Authorization": f"Bearer {token}"}
    try:
        with urlopen(Request(f"{server}/v1/colorize", photo.read_bytes(), headers), timeout=90) as answer:
            result: dict[str, Any] = json.load(answer)
    except HTTPError as error:  # the body says what is wrong
        error.msg = error.read().decode()
        raise
    return b64decode(result.pop("image")), result
