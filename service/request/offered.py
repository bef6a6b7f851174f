"""Float types that a server takes, and the check of a message's tensors against them."""

from __future__ import annotations

from kernels import InvalidInput, dtypes
from kernels.dtypes import FLOATS, DType
from service.codecs.base import Arrays
from service.settings import Settings, SettingsError, variable


def offered_dtypes(settings: Settings) -> tuple[DType, ...]:
    """Float types that ``settings.dtypes`` names. Raises ``SettingsError``."""
    names = [name.strip() for name in settings.dtypes.split(",")]
    known = {dtype.name: dtype for dtype in FLOATS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(
            f"{variable('dtypes')} is {settings.dtypes!r}: {unknown[0]!r} is none of "
            f"{', '.join(known)}"
        )
    return tuple([known[name] for name in dict.fromkeys(names)])


def check_dtypes(tensors: Arrays, offered: tuple[DType, ...]) -> None:
    """Raise ``InvalidInput`` where a tensor that kernels read is of a float type not offered.

    Those are logits, log-probabilities and class probabilities: weights are converted.
    """
    if len(offered) == len(FLOATS):
        return
    for name in ("logits", "log_probs", "labels", "target_logits", "target_log_probs"):
        dtype = dtypes.of(tensors[name]) if name in tensors else None
        if dtype in FLOATS and dtype not in offered:
            listed = ", ".join(each.name for each in offered)
            raise InvalidInput(
                f"{name} are {dtype.name}, and this server takes {listed}: convert them, or have "
                f"{dtype.name} added to {variable('dtypes')} where it is started",
                field=name,
            )
