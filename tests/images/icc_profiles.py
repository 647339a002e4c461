"""ICC profiles made from their definitions (ICC.1:2001-04): primaries, white point and gamma, or a gray curve."""

import struct
from collections.abc import Sequence

import colour
import numpy as np

D50 = (0.9642, 1.0, 0.8249)
WHITES = {"D65": (0.3127, 0.3290), "D50": (0.3457, 0.3585)}
RGB = {
    "adobe": ((0.64, 0.33, 0.21, 0.71, 0.15, 0.06), "D65", 563 / 256),
    "p3": ((0.68, 0.32, 0.265, 0.69, 0.15, 0.06), "D65", 2.2),
    "prophoto": ((0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105), "D50", 1.8),
}
"""xy of the primaries, white point, gamma."""


def rgb_to_xyz(name: str) -> np.ndarray:
    """The matrix from a space's linear RGB to XYZ at its white point, (3, 3)."""
    primaries, white, _ = RGB[name]
    return colour.normalised_primary_matrix(np.reshape(primaries, (3, 2)), np.array(WHITES[white]))


def rgb_profile(name: str) -> bytes:
    """A matrix profile of a space in `RGB`."""
    _, white, gamma = RGB[name]
    to_d50 = colour.adaptation.matrix_chromatic_adaptation_VonKries(
        colour.xy_to_XYZ(WHITES[white]), np.array(D50), "Bradford"
    )
    columns = (to_d50 @ rgb_to_xyz(name)).T
    tags = {
        b"rXYZ": _xyz(columns[0]),
        b"gXYZ": _xyz(columns[1]),
        b"bXYZ": _xyz(columns[2]),
        b"rTRC": _gamma(gamma),
        b"gTRC": _gamma(gamma),
        b"bTRC": _gamma(gamma),
    }
    return _profile(b"RGB ", tags)


def gray_profile(gamma: float = 0.0, curve: Sequence[float] = ()) -> bytes:
    """A gray profile: luminance is a power of the code, or interpolated in `curve` (0 to 1)."""
    table = struct.pack(f">II{len(curve)}H", 0, len(curve), *(round(value * 65535) for value in curve))
    return _profile(b"GRAY", {b"kTRC": b"curv" + table if curve else _gamma(gamma)})


def dot_gain_curve(gain: float = 0.2) -> list[float]:
    """Luminance by code of ink with a dot gain of `gain` at half tone (Murray-Davies; the gain is a parabola)."""
    ink = 1 - np.linspace(0, 1, 256)
    return (1 - ink - gain * 4 * ink * (1 - ink)).clip(0, 1).tolist()


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _gamma(gamma: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, 5) + b"test\0" + bytes(78 + 1),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": _xyz(D50),
        **tags,
    }
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", place + len(body), b"test", 0x02100000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", *(round(value * 65536) for value in D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
