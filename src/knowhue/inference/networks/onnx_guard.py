"""What an ONNX file from a stranger must not do: name other files, or places in memory, to read weights from.

A tensor may say that its values lie elsewhere, in a file by name or at an address. Our files never do. The runtime
checks such names too, and differently from version to version; here it is not asked. Message and field numbers
are those of `onnx.proto3` (ONNX 1.23), the encoding is protobuf's.
"""

from collections.abc import Iterator

_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "elsewhere", 14: "elsewhere"},
}
"""By kind of message, which fields lead to a tensor's `external_data` (13) or `data_location` (14)."""

_VARINT, _EIGHT_BYTES, _MESSAGE, _FOUR_BYTES = 0, 1, 2, 5
_FIXED = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}


def reads_elsewhere(data: bytes) -> bool:
    """Whether any tensor of an ONNX model, however deep, says that its values lie outside the file.

    Raises:
        ValueError: the bytes are not the encoding of a message.
    """
    waiting = [("model", 0, len(data))]
    while waiting:
        kind, start, end = waiting.pop()
        for number, encoding, first, last in _fields(data, start, end):
            part = _PARTS[kind].get(number)
            if part == "elsewhere":
                return True
            if part is not None and encoding == _MESSAGE:
                waiting.append((part, first, last))
    return False


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, encoding, first byte and end of each field of the message at `start` to `end`."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        first = at
        if tag & 7 == _VARINT:
            _, at = _varint(data, at, end)
        elif tag & 7 == _MESSAGE:
            length, first = _varint(data, at, end)
            at = first + length
        elif tag & 7 in _FIXED:
            at += _FIXED[tag & 7]
        else:
            raise ValueError(f"protobuf wire type {tag & 7} at byte {first}")
        if at > end:
            raise ValueError(f"a field beyond its message at byte {first}")
        yield tag >> 3, tag & 7, first, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where the next byte is."""
    value = shift = 0
    while at < end and shift < 70:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError(f"an endless number at byte {at}")
