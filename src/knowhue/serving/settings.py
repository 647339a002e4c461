"""The settings of a server: where it listens, who has access, and its limits."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from knowhue.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section
from knowhue.errors import ConfigError, plural
from knowhue.inference.pipeline import Limits

MIB = 1 << 20
_BYTES_A_PIXEL = 9  # three copies of three channels: as decoded, as painted, as encoded
SHORTEST_TOKEN = 16


class ServerSettings(Section):
    """Address, access and limits of a server.

    Raises:
        ConfigError: other machines could reach it without a token, or the token is too short.
    """

    host: str = "127.0.0.1"
    """address to listen on"""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """port; 0 for any free one"""
    token: str | None = Field(default=None, repr=False)
    """token that clients must send as `Authorization: Bearer TOKEN`"""
    no_auth: bool = False
    """allow access without a token from every machine that can reach the server"""
    hosts: tuple[str, ...] = ()
    """host names, besides localhost, that browsers can use"""
    max_upload_mib: PositiveFloat = 64
    """largest request, MiB"""
    max_held_mib: PositiveFloat = 512
    """uploads and unsent answers held in memory at once, MiB"""
    max_pixels: PositiveInt = 100_000_000
    """most pixels of an image, by its header"""
    queue_length: PositiveInt = 64
    """requests accepted at once; further ones are answered with 429"""
    batch_size: PositiveInt = 8
    """most images in a batch of the network"""
    batch_wait_ms: NonNegativeFloat = 5
    """how long an image waits for others to fill its batch, ms"""
    workers: NonNegativeInt = 0
    """threads that decode and paint; 0 for one per processor"""
    request_seconds: PositiveFloat = 60
    """time limit from upload to answer, s"""
    upload_seconds: PositiveFloat = 30
    """time limit for an upload, s, plus one second for each 128 KiB received"""
    stop_seconds: PositiveFloat = 10
    """time limit for the last answers when stopping, s"""
    studies: tuple[Path, ...] = ()
    """study folders to show on the page"""

    @property
    def limits(self) -> Limits:
        """The limits of one model; a single image of `max_pixels` at 8 bits fills its memory."""
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
                "`token` should be left out with `no_auth`, which lets everybody in. Found both."
            )
        # the token is sent in a header and in a URL
        if self.token is not None and not re.fullmatch(rf"[!-~]{{{SHORTEST_TOKEN},}}", self.token):
            raise ConfigError(
                f"`token` should have {SHORTEST_TOKEN} or more letters, digits or signs of ASCII, and no spaces. Found "
                f"{plural(len(self.token), 'character')}; `python -c 'import secrets; print(secrets.token_urlsafe())'` "
                "makes one."
            )
        if not is_loopback(self.host) and self.token is None and not self.no_auth:
            remedy = "`export KNOWHUE_TOKEN=...` first, or add `--no-auth` to let everybody in"
            raise ConfigError(f"Refusing to listen on {self.host} without authentication: {remedy}.")
        return self


def is_loopback(host: str) -> bool:
    """Whether a host name or address is reachable from this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.5", "example.org")]
    [True, True, True, False, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
