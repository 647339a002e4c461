"""Which of two kinds of answer a client would rather have, by its `Accept` header (RFC 9110, 12.5.1)."""

import re
from urllib.request import parse_http_list

JSON = "application/json"
_PART = re.compile(r'(?:[^;"]|"(?:\\.|[^"\\])*")+')
_QUALITY = re.compile(r"q\s*=\s*(0(?:\.\d*)?|1(?:\.0*)?)", re.IGNORECASE | re.ASCII)


def prefers_json(accept: str, image: str) -> bool:
    """Whether a client would rather have JSON than an image of some media type.

    The image is what comes where nothing is said, where both are equally welcome by equally exact words, and where
    neither is. `application/json, */*`, which many clients send, is for JSON.

    >>> prefers_json("image/jpeg, application/json;q=0.1", "image/jpeg")
    False
    >>> prefers_json("application/json, image/*;q=0.5", "image/jpeg")
    True
    """
    return quality(accept, JSON) > quality(accept, image)


def quality(accept: str, kind: str) -> tuple[float, int]:
    """How welcome a media type is, 0 to 1, and how exactly it is named: by `*/*` 0, `image/*` 1, `image/png` 2.

    What is exact goes before what is not, whatever its weight. Parameters of a type are not told apart.

    >>> quality("image/*;q=0.5, */*;q=0.1", "image/png")
    (0.5, 1)
    """
    names = {"*/*": 0, f"{kind.partition('/')[0]}/*": 1, kind: 2}
    found = {names[name]: weight for name, weight in _ranges(accept) if name in names}
    exact = max(found, default=0)
    weight = found.get(exact, 0.0)
    return weight, exact if weight else 0


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Media ranges and their weights; what cannot be read is left out."""
    ranges = []
    for element in parse_http_list(accept):
        name, *parameters = [part.strip() for part in _PART.findall(element)] or [""]
        weights = [each for each in parameters if each[:1].lower() == "q" and each[1:].lstrip()[:1] == "="]
        read = [_QUALITY.fullmatch(each) for each in weights[-1:]]
        if name and None not in read:
            ranges.append((name.lower(), float(read[0][1]) if read and read[0] else 1.0))
    return ranges
