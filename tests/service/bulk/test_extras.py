from __future__ import annotations

import pytest

from service.bulk.extras import MissingPackage, extra
from service.errors import InvalidOption


def test_a_missing_package_names_its_extra() -> None:
    with pytest.raises(MissingPackage) as raised, extra("bulk", "a.parquet: Parquet"):
        raise ModuleNotFoundError("No module named pyarrow", name="pyarrow")
    assert raised.value.message == (
        "a.parquet: Parquet needs the package pyarrow: pip install 'lossd[bulk]'"
    )
    assert isinstance(raised.value, InvalidOption)


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), extra("bulk", "it"):
        _ = 1 / 0
