"""The HTTP half of lossd: bytes come in, the kernels are called, bytes go out."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("lossd")
except PackageNotFoundError:  # run from a source tree that is not installed
    VERSION = "0+source"
