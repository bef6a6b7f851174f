"""Text of the documentation page: the formats, a recipe for each, and the table of errors."""

from service.problems import TABLE

_INTRODUCTION = """
A loss server: logits and labels in, the cross-entropy loss and its per-element values out, with
PyTorch's meaning. Every route of `/v1` takes and answers JSON (`application/json`), safetensors
(`application/x-safetensors`) and `.npz` as `numpy.savez` writes it (`application/x-npz`). Under
`/v2` the same losses are models of the Open Inference Protocol, as clients of Triton and KServe
speak it.

The options may stand in the query string; in the body beside the tensors (JSON); or in
`__metadata__` (safetensors), where notes of others are passed over. What may be absent may be null.
The answer has the format of the request, unless `Accept` asks for another. In JSON, not-a-number
and the infinities are `NaN`, `Infinity` and `-Infinity`: on input bare or as strings (`"-Inf"` and
`"nan"` are read, too), on output always as strings. So a typed client reads a number or one of
these three strings, or asks for a binary format. A file is sent by `curl --data-binary @FILE`: with
`-d @FILE`, curl leaves out newlines, which breaks binary formats.

Where the server has tokens, this page opens without one; the Authorize button takes a token, and
sends it with each request that is tried out.
"""

_SAFETENSORS = """
| bytes | content |
|---|---|
| 8 | N, the length of the header: an unsigned integer, little-endian |
| N | the header: JSON, `{"logits": {"dtype": "F32", "shape": [4, 5], "data_offsets": [32, 112]}}` |
| the rest | the tensors' elements |

`data_offsets` are a tensor's first byte and the byte after its last, counted from the end of the
header; together the tensors fill the rest without a gap. Elements are little-endian and in C order.
The dtypes are F16, BF16, F32 and F64, and I8 to I64 and U8 to U64 for labels. Options may stand in
the header as texts: `"__metadata__": {"reduction": "sum"}`. Large bodies need the least memory
where the labels come before the logits.

The numpy `save` of the safetensors library writes wrong bytes for arrays that are not C-contiguous,
such as slices and transposes: pass it `numpy.ascontiguousarray(array)`. `tobytes` always writes
C order.

```python
import json, urllib.request, numpy as np
labels, logits = np.array([1, 4, 3, 2], "<i8"), np.zeros((4, 5), "<f4")
text = json.dumps({
    "labels": {"dtype": "I64", "shape": labels.shape, "data_offsets": [0, 32]},
    "logits": {"dtype": "F32", "shape": logits.shape, "data_offsets": [32, 112]},
}).encode()
body = len(text).to_bytes(8, "little") + text + labels.tobytes() + logits.tobytes()
headers = {"Content-Type": "application/x-safetensors", "Accept": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8000/v1/cross_entropy", body, headers)
print(urllib.request.urlopen(request).read().decode())
```
"""

_NPZ = """
A ZIP archive, stored or deflated, with one member `NAME.npy` for each tensor:

| bytes of a member | content |
|---|---|
| 6 | byte 0x93 and `NUMPY` |
| 2 | the version, 1 and 0 |
| 2 | N, the length of the header: an unsigned integer, little-endian |
| N | the header: `{'descr': '<f4', 'fortran_order': False, 'shape': (4, 5), }` and a newline |
| the rest | the elements, little-endian, in C order or in Fortran order as the header says |

bfloat16 is `'<V2'`: two opaque bytes an element. There is no place for options: they stand in the
query string.

```python
import io, urllib.request, numpy as np
file = io.BytesIO()
np.savez(file, labels=np.array([1, 4, 3, 2]), logits=np.zeros((4, 5), np.float32))
address = "http://127.0.0.1:8000/v1/cross_entropy?outputs=loss,rank"
headers = {"Content-Type": "application/x-npz"}
request = urllib.request.Request(address, file.getvalue(), headers)
answer = np.load(io.BytesIO(urllib.request.urlopen(request).read()))
print(answer["loss"], answer["rank"])
```
"""

_V2 = """
The JSON of an inference request, then the elements of its binary tensors in the order of `inputs`,
little-endian, in C order, without padding. A binary tensor has no `data` but the parameter
`binary_data_size`, its length in bytes. The request header field `Inference-Header-Content-Length`
says how long the JSON is. With the parameter `binary_data_output` the answer has this layout, too;
without it the answer is JSON.

```python
import json, urllib.request, numpy as np
labels, logits = np.array([1, 4, 3, 2], "<i8"), np.zeros((4, 5), "<f4")
text = json.dumps({"parameters": {"label_smoothing": 0.1}, "inputs": [
    {"name": name, "datatype": kind, "shape": x.shape, "parameters": {"binary_data_size": x.nbytes}}
    for name, kind, x in (("labels", "INT64", labels), ("logits", "FP32", logits))]}).encode()
body = text + labels.tobytes() + logits.tobytes()
headers = {"Inference-Header-Content-Length": str(len(text))}
address = "http://127.0.0.1:8000/v2/models/cross_entropy/infer"
answer = urllib.request.urlopen(urllib.request.Request(address, body, headers))
print(answer.read().decode())
```
"""


_ERRORS = """
Every error is an RFC 9457 problem (`application/problem+json`). `type` is `urn:lossd:problem:` and
the name; `detail` says what was wrong and what would be right; `field`, `where` and `position` name
what is at fault.

| status | name | meaning | advice |
|---|---|---|---|
""" + "\n".join(
    f"| {row.status} | `{row.name}` | {row.title}. | {row.advice} |" for row in TABLE.values()
)

# Of each section only the title is shown until it is clicked.
DESCRIPTION = _INTRODUCTION + "".join(
    f"\n<details>\n<summary>{title}</summary>\n\n{text.strip()}\n\n</details>\n"
    for title, text in (
        ("Layout of safetensors, and a request in Python", _SAFETENSORS),
        ("Layout of npz, and a request in Python", _NPZ),
        ("Layout of binary requests of V2, and a request in Python", _V2),
        ("Table of errors", _ERRORS),
    )
)
