"""What an ONNX file from a stranger must not do: read its weights from elsewhere, or run for ever.

A tensor may say that its values lie in another file or at an address in memory; an operator may hold a graph of its
own and repeat it. Files of `knowhue export` do neither. The runtime would follow both, so here the file is looked
through before the runtime sees it. Message and field numbers are those of `onnx.proto3` (ONNX 1.23), the encoding is
protobuf's.
"""

from collections.abc import Iterator

OPERATORS = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose",
    "DequantizeLinear", "Div", "Einsum", "Equal", "Erf", "Exp", "Expand", "Flatten", "Gather", "GatherND",
    "Gelu", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization",
    "LayerNormalization", "LeakyRelu", "Log", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad", "Pow",
    "QuantizeLinear", "Range", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "Relu",
    "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh",
    "TopK", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""What our exporter and quantiser write, and their like: none repeats a graph, none is random."""
_DOMAINS = frozenset({"", "ai.onnx"})
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {4: "operator", 5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "elsewhere", 14: "elsewhere"},
}
"""By kind of message, which fields lead to an operator, or to a tensor's `external_data` or `data_location`."""

_VARINT, _EIGHT_BYTES, _MESSAGE, _FOUR_BYTES = 0, 1, 2, 5
_FIXED = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}


def reads_elsewhere(data: bytes) -> bool:
    """Whether any tensor of an ONNX model, however deep, says that its values lie outside the file.

    Raises:
        ValueError: the bytes are not the encoding of a message.
    """
    return any(part == "elsewhere" for part, _, _, _ in _parts(data))


def foreign_operator(data: bytes) -> str | None:
    """The name of an operator of an ONNX model, however deep, that is none of `OPERATORS`; None if there is none.

    An operator that the model defines itself is foreign, too.

    Raises:
        ValueError: the bytes are not the encoding of a message.
    """
    for part, encoding, first, last in _parts(data):
        if part == "function":
            return "a function of its own"
        if part in ("operator", "domain") and encoding == _MESSAGE:
            name = data[first:last].decode("utf-8", "replace")
            if name not in (OPERATORS if part == "operator" else _DOMAINS):
                return ascii(name)[1:-1][:60]
    return None


def _parts(data: bytes) -> Iterator[tuple[str, int, int, int]]:
    """What `_PARTS` names, encoding, first byte and end of each such field, wherever it lies."""
    waiting = [("model", 0, len(data))]
    while waiting:
        kind, start, end = waiting.pop()
        for number, encoding, first, last in _fields(data, start, end):
            part = _PARTS[kind].get(number)
            if part is not None:
                yield part, encoding, first, last
            if part in _PARTS and encoding == _MESSAGE:
                waiting.append((part, first, last))


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
