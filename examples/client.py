"""A client of lossd, NumPy arrays in and out; python examples/client.py URL shows a request."""

import json
import sys
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
from safetensors.numpy import load, save


class Refused(Exception):
    """The server's ``detail``; ``problem`` holds status, type, field, advice and the rest."""

    def __init__(self, problem: dict) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


def ask(url: str, tensors: dict, token: str | None = None, **options: object) -> dict:
    """The outputs of a route for ``tensors``; ``options`` as in the table of options."""
    # For a slice or a transpose, safetensors' save writes wrong bytes, and says nothing.
    body = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    headers = authorization | {"Content-Type": "application/x-safetensors"}
    try:
        with urlopen(Request(f"{url}?{urlencode(options)}", body, headers), timeout=120) as answer:
            return load(answer.read())
    except HTTPError as error:
        if error.headers.get_content_type() != "application/problem+json":
            raise  # not lossd's: that of a proxy on the way
        raise Refused(json.load(error)) from None


if __name__ == "__main__":
    given = {"logits": np.float32([[0, 1], [3, 1]]).T, "labels": np.array([0, 1])}
    print(ask(f"{sys.argv[1]}/v1/cross_entropy", given, outputs="loss,rank"))
