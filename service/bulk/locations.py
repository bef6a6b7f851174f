"""Arguments of a command, as the locations of shards: paths, folders, patterns and URLs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from service.bulk import files, formats
from service.bulk.formats import npy
from service.errors import DecodeError

# Names of tensors, which files may call otherwise.
NAMES = tuple(formats.wanted({}))


def shards(arguments: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Locations of the shards that ``arguments`` name, in their order.

    What a pattern matches, or a folder holds, is in natural order: shard-2 precedes shard-10. Of
    .npy files, which are one for each tensor, those with the logits are the shards; ``names`` are
    the tensors' names, as ``formats.opened`` takes them. Raises ``DecodeError`` for a pattern or
    folder without shards, a shard that is named twice, and a .npy file that belongs to none; and
    ``MissingPackage``. Paths are not looked for: a shard that is not there is an error of its own.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        for location in _matched(argument):
            if (other := found.get(location)) is not None:
                also = "" if other == argument else f", by {other} and by {argument}"
                raise DecodeError(f"{location} is given twice{also}: it would count twice")
            found[location] = argument
    return _together(list(found), formats.wanted(names))


def natural(location: str) -> tuple[tuple[str, int, str], ...]:
    """Key that sorts texts with the numbers in them by their value: shard-2 before shard-10."""
    # Each text is followed by digits, or by none at the end; equal numbers by how they are written.
    parts = re.findall(r"([^0-9]*)([0-9]*)", location)
    return tuple((text, int(digits or -1), digits) for text, digits in parts)


def _matched(argument: str) -> Iterator[str]:
    if files.is_url(argument):
        if urlsplit(argument).scheme == "file" and "::" not in argument:
            yield from _matched(urlsplit(argument).path)
            return
        yield from _matched_urls(argument)
        return
    # A name may have brackets of its own.
    if glob.has_magic(argument) and not os.path.lexists(argument):
        found = glob.glob(argument, recursive=True)
        if not found:
            raise DecodeError(f"{argument} matches no file")
        yield from sorted(map(os.path.normpath, found), key=natural)
    elif os.path.isdir(argument) and files.suffix(argument) not in formats.READERS:
        names = os.listdir(argument)
        yield from _known(argument, [os.path.join(argument, name) for name in names])
    else:
        yield os.path.normpath(argument)


def _matched_urls(argument: str) -> Iterator[str]:
    # In a URL of HTTP a question mark begins its query.
    pattern = r"[*\[]" if urlsplit(argument).scheme in ("http", "https") else r"[*\[?]"
    folder = argument.endswith("/") and files.suffix(argument) not in formats.READERS
    if not folder and not re.search(pattern, argument):
        yield argument
        return
    system, path = files.file_system(argument)
    with files.library_errors(argument):
        found = system.ls(path, detail=False) if folder else system.glob(path)
    urls = [str(system.unstrip_protocol(name)) for name in found]
    if folder:
        yield from _known(argument, urls)
    elif not urls:
        raise DecodeError(f"{argument} matches no file")
    else:
        yield from sorted(urls, key=natural)


def _known(folder: str, found: Sequence[str]) -> list[str]:
    kept = [location for location in found if files.suffix(location) in formats.READERS]
    if not kept:
        raise DecodeError(f"the folder {folder} holds no {', '.join(formats.READERS)}")
    return sorted(kept, key=natural)


def _together(locations: Sequence[str], wanted: Mapping[str, str]) -> list[str]:
    """``locations`` without the .npy files that belong to the logits in another one."""
    kept, beside = [], set[str]()
    for location in locations:
        together = npy.named(location, wanted) if files.suffix(location) == ".npy" else None
        if together is not None:
            beside.update(path for ours, path in together.items() if ours != "logits")
    for location in locations:
        if location in beside:
            continue
        if files.suffix(location) == ".npy" and npy.named(location, wanted) is None:
            raise DecodeError(
                f"{location} is one tensor, and its name does not say of which shard: name the "
                f"files {wanted['logits']}-007.npy and {wanted['labels']}-007.npy, or "
                f"007/{wanted['logits']}.npy and 007/{wanted['labels']}.npy"
            )
        kept.append(location)
    return kept
