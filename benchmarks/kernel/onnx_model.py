"""ONNX model of one node, encoded by hand, so that the ``onnx`` package is not needed.

Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3);
the encoding is protobuf's: varints and length-prefixed bytes.
"""

from __future__ import annotations

from kernels.dtypes import FLOAT16, FLOAT32, DType

# TensorProto.DataType
ELEMENT = {FLOAT32: 1, FLOAT16: 10}
_INT64 = 7
_OPSET = 13
_IR_VERSION = 8


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, element: int, shape: tuple[int, ...]) -> bytes:
    """Encode a ValueInfoProto."""
    dimensions = b"".join(_field(1, _field(1, size)) for size in shape)
    tensor = _field(1, element) + _field(2, dimensions)
    return _field(1, name) + _field(2, _field(1, tensor))


def cross_entropy_model(shape: tuple[int, ...], dtype: DType) -> bytes:
    """Model whose "loss" is the mean SoftmaxCrossEntropyLoss of "logits" and int64 "labels"."""
    node = _field(1, "logits") + _field(1, "labels") + _field(2, "loss")
    node += _field(4, "SoftmaxCrossEntropyLoss")
    graph = _field(1, node) + _field(2, "loss")
    graph += _field(11, _tensor("logits", ELEMENT[dtype], shape))
    graph += _field(11, _tensor("labels", _INT64, (shape[0], *shape[2:])))
    graph += _field(12, _tensor("loss", ELEMENT[dtype], ()))
    opset = _field(1, "") + _field(2, _OPSET)
    return _field(1, _IR_VERSION) + _field(8, opset) + _field(7, graph)
