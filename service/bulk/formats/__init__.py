"""Formats of shards, by suffix, and shards made of what their readers find."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from service.bulk import files
from service.bulk.formats import hdf5, npy, npz, parquet, safetensors, sparse, zarr
from service.bulk.formats.base import Held, Tensor
from service.bulk.shard import TENSORS, Shard, TensorSpec
from service.codecs.base import BOOLEAN, Array, numbers
from service.codecs.missing import missing
from service.errors import DecodeError

READERS: Mapping[str, Callable[[str, Mapping[str, str]], Held]] = {
    ".npz": npz.opened,
    ".npy": npy.opened,
    ".safetensors": safetensors.opened,
    ".parquet": parquet.opened,
    ".zarr": zarr.opened,
    ".h5": hdf5.opened,
    ".hdf5": hdf5.opened,
}

# Tensors that a shard's reader looks for.
_WANTED = (*TENSORS, sparse.CLASSES, sparse.LOG_PROBS)


def opened(location: str, names: Mapping[str, str]) -> Shard:
    """Open the shard at ``location``, whose suffix says its format.

    ``names`` are its tensors', by ours, where they differ. Raises ``DecodeError``, whose text names
    the shard, the tensor and the reason, and ``MissingPackage``.
    """
    suffix = files.suffix(location)
    with _named(location):
        if suffix not in READERS:
            raise DecodeError(
                f"suffix {suffix or 'none'} is none that is read: {', '.join(READERS)}"
            )
        held = READERS[suffix](location, wanted(names))
        try:
            return _Shard(location, held)
        except BaseException:
            held.close()
            raise


def fingerprint(location: str, names: Mapping[str, str]) -> str:
    """Text that changes when the shard does. Raises as ``opened``."""
    with _named(location):
        if files.suffix(location) != ".npy":
            return files.fingerprint(location)
        together = npy.together(location, wanted(names))
        return " ".join(f"{name}:{files.fingerprint(path)}" for name, path in together.items())


def wanted(names: Mapping[str, str]) -> dict[str, str]:
    """Names of the tensors in a file, by ours, of which ``names`` has those that differ."""
    return {name: names.get(name, name) for name in _WANTED}


class _Shard:
    """Shard of the tensors that a format's reader found."""

    def __init__(self, location: str, held: Held) -> None:
        self._location, self._close = location, held.close
        self._tensors = _checked(held)
        self.options: Mapping[str, object] = held.options
        self.rows: int = self._tensors["logits"].shape[0]
        self.tensors: Mapping[str, TensorSpec] = {
            name: TensorSpec(tensor.row.name, tensor.shape)
            for name, tensor in self._tensors.items()
        }
        self.starts: Sequence[int] = self._tensors["logits"].starts

    def read(self, first: int, stop: int) -> Mapping[str, Array]:
        """Rows [first, stop) of all tensors; ``weight`` as it is. Raises ``DecodeError``."""
        found = {}
        with _named(self._location):
            for name, tensor in self._tensors.items():
                whole = name == "weight"
                rows = tensor.read(0, tensor.shape[0]) if whole else tensor.read(first, stop)
                found[name] = numbers(rows)
        return found

    def close(self) -> None:
        self._close()


def _checked(held: Held) -> dict[str, Tensor]:
    """The tensors of ``held`` that are scored, whose rows are as many. Raises ``DecodeError``."""
    tensors = dict(held.tensors)
    teacher = [tensors.pop(name, None) for name in (sparse.CLASSES, sparse.LOG_PROBS)]
    for name in ("logits", "labels"):
        if name not in tensors and (name == "logits" or None in teacher):
            advise = f"give --name {name}={{}}".format
            raise DecodeError(missing(name, tensors, held.others, advise), where=name)
    for name, tensor in tensors.items():
        if not tensor.shape:
            raise DecodeError(f"{name} is one number, without an axis", where=name)
        if tensor.row.name == "bool" and name not in BOOLEAN:
            raise DecodeError(f"{name} is Boolean: it has to be of numbers", where=name)
    classes, log_probs = teacher
    if "labels" not in tensors and classes is not None and log_probs is not None:
        tensors["labels"] = sparse.Teacher(classes, log_probs, tensors["logits"])
    rows = tensors["logits"].shape[0]
    for name, tensor in tensors.items():
        if name != "weight" and tensor.shape[0] != rows:
            raise DecodeError(
                f"{name} has {tensor.shape[0]:,} rows and logits {rows:,}: the first axis of each "
                "is the rows",
                where=name,
            )
    return tensors


@contextmanager
def _named(location: str) -> Iterator[None]:
    """Name the shard in what is raised of it."""
    try:
        yield
    except DecodeError as error:
        raise DecodeError(f"{location}: {error.message}", where=error.where) from error
    except OSError as error:
        # A file of several has a name of its own.
        other = f"{error.filename}: " if error.filename not in (None, location) else ""
        raise DecodeError(f"{location}: {other}{error.strerror or error}") from None
