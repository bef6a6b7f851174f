from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.scale import shards
from service.bulk import locations
from tests.service.bulk.shards import assert_rows, opened


def test_the_set_has_every_format_and_is_made_again_from_its_seed(tmp_path: Path) -> None:
    count, classes = len(shards.FORMATS) + 1, 11
    made = list(shards.written(tmp_path, 12 * count * 4 * classes, shards=count, classes=classes))
    assert [str(path) for path, _ in made] == locations.shards([str(tmp_path)], {})
    assert len({rows for _, rows in made}) > 1
    for index, (path, rows) in enumerate(made):
        with opened(str(path)) as shard:
            assert shard.rows == rows
            assert_rows(
                shard.read(0, rows), shards.contents(index, rows, classes, "float32", seed=0)
            )


def test_a_format_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["shards", str(tmp_path), "--formats", "npz,csv"])
    with pytest.raises(SystemExit):
        shards.main()
    assert "--formats: csv: give some of npz, npz-deflated" in capsys.readouterr().err
