"""Packages of the extras, imported where they are needed and no sooner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import InvalidOption


class MissingPackage(InvalidOption):
    """Package that an extra of lossd installs, and that is not there."""


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Name the extra that installs what an import within does not find, and its ``purpose``.

    Raises ``MissingPackage``.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"{purpose} needs the package {error.name}: pip install 'lossd[{name}]'"
        ) from None
