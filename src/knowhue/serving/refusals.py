"""Why a request is not answered as it wished: a status, one line, and a word for the metrics."""

import json
from collections.abc import Mapping

from knowhue.errors import ConfigError, ExtraError, ImageError, KnowhueError, RunError, WeightsError
from knowhue.inference.pipeline import Busy, Late, Stopping
from knowhue.inference.requests import NoImageError


class Refusal(Exception):
    """A request that is not let through.

    Attributes:
        status: of HTTP.
        reason: one word for the metrics.
        headers: further ones.
    """

    def __init__(
        self, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


STATUSES: dict[type[Exception], tuple[int, str]] = {
    Busy: (429, "busy"),
    Stopping: (503, "stopping"),
    Late: (504, "late"),
    NoImageError: (415, "kind"),
    ExtraError: (415, "kind"),
    ImageError: (422, "image"),
    ConfigError: (422, "option"),
    RunError: (422, "format"),
    WeightsError: (500, "model"),
}
"""Status and reason of errors; the first that fits."""


def refusal_of(error: KnowhueError) -> Refusal | None:
    """How an error is answered; None if it is the server's own."""
    found = next((known for kind, known in STATUSES.items() if isinstance(error, kind)), None)
    headers = {"retry-after": str(error.retry_after_seconds)} if isinstance(error, Busy) else {}
    return None if found is None else Refusal(*found, str(error), headers)


def one_line(message: str) -> bytes:
    r"""The body of every answer that is an error.

    >>> one_line("Two\nlines.")
    b'{"error": "Two lines."}'
    """
    return json.dumps({"error": " ".join(message.split())}).encode()
