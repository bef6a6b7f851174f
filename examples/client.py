"""Client of lossd, NumPy arrays in and out; python examples/client.py URL shows a request."""

import json
import sys
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
from safetensors.numpy import load, save


class Refused(Exception):
    """An error of the server: its ``detail``; ``problem`` is the whole answer as a dict."""

    def __init__(self, problem: dict) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


def ask(url: str, tensors: dict, token: str | None = None, **options: object) -> dict:
    """Return the outputs of the route at ``url``; ``options`` are those of docs/options.md."""
    # For a slice or a transpose, safetensors' save writes wrong bytes without an error.
    body = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    headers = authorization | {"Content-Type": "application/x-safetensors"}
    try:
        with urlopen(Request(f"{url}?{urlencode(options)}", body, headers), timeout=120) as answer:
            return load(answer.read())
    except HTTPError as error:
        if error.headers.get_content_type() != "application/problem+json":
            raise  # the error of a proxy, not of lossd
        raise Refused(json.load(error)) from None


if __name__ == "__main__":
    given = {"logits": np.float32([[0, 1], [3, 1]]).T, "labels": np.array([0, 1])}
    print(ask(f"{sys.argv[1]}/v1/cross_entropy", given, outputs="loss,rank"))
