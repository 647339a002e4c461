"""A server's settings: where it listens, who may call it, and how much it takes on at once."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from knowhue.config import Count, CountOrNone, NotNegative, Positive, Section
from knowhue.errors import ConfigError, plural
from knowhue.inference.pipeline import Limits

MIB = 1 << 20
_BYTES_A_PIXEL = 9  # three copies of three channels: what was read, what is painted, what is encoded
SHORTEST_TOKEN = 16


class ServerSettings(Section):
    """Everything that is settled before a server starts.

    Raises:
        ConfigError: others could reach it without a token, or the token can be guessed.
    """

    host: str = "127.0.0.1"
    """address that it listens on"""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """port; 0 takes any free one"""
    token: str | None = Field(default=None, repr=False)
    """what a client must show: `Authorization: Bearer ...`"""
    no_auth: bool = False
    """let everybody in who can reach it"""
    hosts: tuple[str, ...] = ()
    """further names, beside the loopback's, by which browsers may call it"""
    max_upload_mib: Positive = 64
    """size of one request"""
    max_held_mib: Positive = 512
    """uploads, and answers not read yet, held in memory at once"""
    max_pixels: Count = 100_000_000
    """pixels of one image, by its header"""
    queue_length: Count = 64
    """requests accepted at once; more are answered 429"""
    batch_size: Count = 8
    """images that the network predicts together"""
    batch_wait_ms: NotNegative = 5
    """how long an image waits for company, if more are to come"""
    workers: CountOrNone = 0
    """threads that decode and paint; 0 is one a processor"""
    request_seconds: Positive = 60
    """from upload to answer"""
    upload_seconds: Positive = 30
    """for an upload, beside a second for each 128 KiB that came"""
    stop_seconds: Positive = 10
    """for sending the last answers when stopping"""
    studies: tuple[Path, ...] = ()
    """study folders that the page shows"""

    @property
    def limits(self) -> Limits:
        """How much one model takes on at once: an image of `max_pixels` and 8 bits fills it."""
        return Limits(
            self.workers,
            self.batch_size,
            _BYTES_A_PIXEL * self.max_pixels,
            batch_wait_seconds=self.batch_wait_ms / 1000,
            queue_length=self.queue_length,
            item_seconds=self.request_seconds,
        )

    @model_validator(mode="after")
    def _is_safe(self) -> "ServerSettings":
        if self.token is not None and self.no_auth:
            raise ConfigError(
                "`token` should be left out with `no_auth`. Found both; `--no-auth` lets everybody in."
            )
        # it travels in a header and in an address
        if self.token is not None and not re.fullmatch(rf"[!-~]{{{SHORTEST_TOKEN},}}", self.token):
            raise ConfigError(
                f"`token` should have {SHORTEST_TOKEN} or more letters, digits or signs of ASCII, and no spaces. Found "
                f"{plural(len(self.token), 'character')}; `python -c 'import secrets; print(secrets.token_urlsafe())'` "
                "makes one."
            )
        if not is_loopback(self.host) and self.token is None and not self.no_auth:
            raise ConfigError(
                f"Refusing to listen on {self.host} without authentication: `export KNOWHUE_TOKEN=...` first, or add "
                "`--no-auth` to let everybody in."
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine alone.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.5", "example.org")]
    [True, True, True, False, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
