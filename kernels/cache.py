"""Cache of compiled kernels: a file for each function and signature, verified before it is loaded.

Loading unpickles a file and runs the machine code in it: a user who may write to the folder runs
code in this process. So the folder is made for its user alone, and is not used where others may
write to it. The checksum is against damage (a full disk, a torn write, a swapped file), not
against an attacker.

Kernels may also be shipped with the installation, for a CPU that Numba was told to compile for
(``NUMBA_CPU_NAME``): files of the same kind, in a folder that is only read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba import config
from numba.core import caching, compiler, serialize

_log = logging.getLogger(__name__)
_DIGEST = hashlib.sha256().digest_size
# Versions that, with the sources, decide whether a compiled kernel may be loaded.
VERSIONS = f"{numba.__version__} {llvmlite.__version__} {sys.version} {config.BOUNDSCHECK}".encode()

# Code by file name from a child process: loaded before any file, and then written to the cache.
HANDED_OVER: dict[str, bytes] = {}
# Callbacks for the file name and code of each function loaded or compiled here. Where there are
# any, they keep compiled code, and the cache does not.
LISTENERS: list[Callable[[str, bytes], None]] = []
# Functions with a cache, by the name that their files begin with.
DISPATCHERS: dict[str, Any] = {}
_STATE = threading.local()
_once: set[str] = set()


class NotCached(Exception):
    """A kernel is in no cache, and may not be compiled inside ``loading_only``."""


@contextmanager
def loading_only() -> Iterator[None]:
    """Raise ``NotCached`` in this thread instead of compiling a function that is in no cache."""
    _STATE.loading_only = True
    try:
        yield
    finally:
        _STATE.loading_only = False


@cache
def folder() -> Path | None:
    """Folder of compiled kernels, made if need be; None, which is logged, where there is none.

    NUMBA_CACHE_DIR names it. Without that it lies beside the sources or, where these are not to be
    written, in the user's own cache.
    """
    refused = []
    for parent in _parents():
        path = parent / "lossd"
        why = _why_not(path)
        if why is None:
            return path
        refused.append(f"{path} ({why})")
    _log.warning(
        "compiled kernels are not kept, so each start compiles them: no cache in %s",
        " or ".join(refused),
    )
    return None


def _parents() -> list[Path]:
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR)]
    users = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return [Path(__file__).parent / "__pycache__", users]


@cache
def shipped() -> Path | None:
    """Folder of the kernels that were compiled with this installation for Numba's CPU, if any."""
    if config.CPU_NAME is None:
        return None
    path = Path(sys.prefix, "share", "lossd", config.CPU_NAME, "lossd")
    try:
        why = _exposed(path.stat())
    except OSError:
        return None
    if why is not None:
        _log.warning("the kernels in %s are not used: %s", path, why)
        return None
    return path


def _why_not(path: Path) -> str | None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
        writable = os.access(path, os.W_OK | os.X_OK)
        if not writable and not any(path.glob("*.kernel")):
            return "it cannot be written"
    except OSError as error:
        return error.strerror or str(error)
    return _exposed(status)


def _exposed(status: os.stat_result) -> str | None:
    """Say why a folder is not to be trusted, if it is not."""
    owners = {0, os.geteuid()} if hasattr(os, "geteuid") else {status.st_uid}
    if status.st_uid not in owners or status.st_mode & 0o002:
        return "another user may write to it"
    return None


def _tell_once(message: str) -> None:
    if message not in _once:
        _once.add(message)
        _log.warning("%s", message)


def _tell_damage(path: Path, how: str) -> None:
    """Warn once, though the file is tried again before its function is compiled anew."""
    _tell_once(f"the cache's {path} is damaged ({how}): compiling it anew")


class KernelCache(caching._Cache):
    """Numba's cache of compiled ``function``; its files are void where ``stamp`` has changed."""

    def __init__(self, function: Any, stamp: bytes) -> None:
        self.function = f"{function.__module__}.{function.__qualname__}"
        # Signatures that were loaded or compiled, as they were asked for.
        self.signatures: list[Any] = []
        self._stamp = hashlib.sha256(stamp + VERSIONS).digest()

    @property
    def cache_path(self) -> str | None:
        path = folder()
        return None if path is None else str(path)

    def enable(self) -> None:
        """Do nothing: Numba's interface asks for it; what is out of date is written anew."""

    disable = flush = enable

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Load the compiled code for ``signature``, or return None. Raises ``NotCached``."""
        target.refresh()
        name = self._name(signature, target.codegen())
        code = HANDED_OVER.pop(name, None)
        if code is not None:
            self._keep(name, code)
        else:
            paths = (path / name for path in (folder(), shipped()) if path is not None)
            code = next((read for path in paths if (read := self._read(path)) is not None), None)
        if code is not None:
            try:
                result = compiler.CompileResult._rebuild(target, *serialize.loads(code))
            except Exception as error:  # unpickling may raise any class
                _tell_once(f"the compiled {name} cannot be loaded ({error!r}): compiling it anew")
            else:
                self.signatures.append(signature)
                for listener in LISTENERS:
                    listener(name, code)
                return result
        if getattr(_STATE, "loading_only", False):
            raise NotCached(name)
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep the code compiled for ``signature``; warn once where that is not possible."""
        name = self._name(signature, result.codegen)
        code = bytes(serialize.dumps(result._reduce()))
        self.signatures.append(signature)
        for listener in LISTENERS:
            listener(name, code)
        if not LISTENERS:
            self._keep(name, code)

    def _name(self, signature: Any, codegen: Any) -> str:
        # A change of sources replaces the file; another Python or CPU, which may share the folder,
        # makes another name.
        key = repr((signature, codegen.magic_tuple(), VERSIONS)).encode()
        return f"{self.function}-{hashlib.sha256(key).hexdigest()[:32]}.kernel"

    def _keep(self, name: str, code: bytes) -> None:
        """Write a file: a checksum of all the rest, the stamp, the name's digest, the code."""
        path = folder()
        if path is not None:
            rest = self._stamp + hashlib.sha256(name.encode()).digest() + code
            _write(path / name, hashlib.sha256(rest).digest() + rest)

    def _read(self, path: Path) -> bytes | None:
        try:
            # Opening a pipe would wait for its writer, and a device may have no end.
            if not (stat.S_ISREG(path.stat().st_mode) or path.is_dir()):
                _tell_damage(path, "no regular file")
                return None
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _tell_damage(path, error.strerror or str(error))
            return None
        checksum, rest = content[:_DIGEST], content[_DIGEST:]
        named = hashlib.sha256(path.name.encode()).digest()
        if hashlib.sha256(rest).digest() != checksum or rest[_DIGEST : 2 * _DIGEST] != named:
            _tell_damage(path, "checksum")
            return None
        return rest[2 * _DIGEST :] if rest[:_DIGEST] == self._stamp else None


def cached(dispatcher: Any, stamp: bytes) -> Any:
    """Give Numba's ``dispatcher`` a ``KernelCache``, and return it."""
    made = KernelCache(dispatcher.py_func, stamp)
    dispatcher._cache = made
    DISPATCHERS[made.function] = dispatcher
    return dispatcher


def _write(path: Path, content: bytes) -> None:
    """Replace ``path`` in one step, so that no process reads a part of it."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        _tell_once(
            f"compiled kernels cannot be kept in {path.parent} ({error.strerror}), so the next "
            "start compiles them again"
        )
