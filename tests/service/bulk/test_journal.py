"""Journals: whose they are, and what they refuse."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kernels import InvalidInput
from service.bulk import journal as journals
from service.bulk.journal import Journal, Prefix
from service.bulk.plan import Job, Plan, planned
from tests.service.bulk.test_fold import small


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.journal"


def begun(path: Path, plan: Plan, *pieces: int, prefix: int = 0) -> None:
    """Write a journal of some finished pieces."""
    journal = Journal(path, plan)
    total = Prefix(prefix, b"total", None) if prefix else None
    journal.save([(number, b"%d" % number) for number in pieces], total)
    journal.close()


def refusal(path: Path, plan: Plan) -> str:
    with pytest.raises(InvalidInput) as caught:
        Journal(path, plan)
    assert caught.value.field == "journal"
    assert str(path) in caught.value.message
    return caught.value.message


def test_it_has_what_was_saved(path: Path, tmp_path: Path) -> None:
    plan = small().planned(tmp_path, 24)
    begun(path, plan, 3, 1, 7)
    journal = Journal(path, plan)
    assert journal.finished() == [1, 3, 7]
    assert journal.partials(range(1, 4))[3] == b"3"
    assert journal.prefix() is None
    journal.save([(2, b"2")], Prefix(3, b"total", b"report"))
    assert journal.finished() == [3, 7]
    assert journal.prefix() == Prefix(3, b"total", b"report")
    journal.close()


def test_one_run_at_a_time(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_PATIENCE", 0.1)
    plan = small().planned(tmp_path, 24)
    journal = Journal(path, plan)
    assert "another run has this journal open" in refusal(path, plan)
    journal.close()


def test_another_cut_or_another_option_is_refused_by_name(path: Path, tmp_path: Path) -> None:
    corpus = small()
    begun(path, corpus.planned(tmp_path, 24), 1)
    assert "piece_bytes was 24, and is 36 now" in refusal(path, corpus.planned(tmp_path, 36))
    assert "worst was 3, and is 4 now" in refusal(path, corpus.planned(tmp_path, 24, 4))
    warm = corpus._replace(options={"temperature": 2.0})
    text = refusal(path, warm.planned(tmp_path, 24))
    assert "temperature was 1.0, and is 2.0 now" in text


def test_other_shards_are_refused_by_name(path: Path, tmp_path: Path) -> None:
    begun(path, small().planned(tmp_path, 24), 1)
    assert "4 shards that can be read, and there are 3 now" in refusal(
        path, small(3).planned(tmp_path, 24)
    )
    plan = small().planned(tmp_path, 24)
    locations = [source.location for source in plan.sources]
    turned = planned(reversed(locations), plan.job._replace(terms={}), {}, 24)
    assert re.search(
        r"has .*shard-0.npz \(.*\) where there is .*shard-3.npz", refusal(path, turned)
    )
    longer = small()
    longer.shards[2] = small(rows=12).shards[2]
    assert "12 rows" in refusal(path, longer.planned(tmp_path, 24))


def test_a_shard_that_changed_is_scored_anew_unless_it_is_in_the_total(
    path: Path, tmp_path: Path
) -> None:
    corpus = small()
    plan = corpus.planned(tmp_path, 24)
    begun(path, plan, 0, 6, 11, 12, 20)
    os.utime(plan.sources[1].location, ns=(1, 1))
    locations = [source.location for source in plan.sources]
    now = planned(locations, Job({}, {}, 3), {}, 24)
    journal = Journal(path, now)
    assert journal.changed == [now.sources[1]]
    assert journal.finished() == [0, 12, 20]  # pieces 6 to 11 were its
    journal.save([], Prefix(12, b"total", None))
    journal.close()
    os.utime(plan.sources[0].location, ns=(1, 1))
    text = refusal(path, planned(locations, Job({}, {}, 3), {}, 24))
    assert "shard-0.npz changed since" in text
    assert "in the total already" in text
    # Nothing of it is changed by the refusal.
    os.utime(plan.sources[0].location, ns=(2, 2))
    assert "@2 now" in refusal(path, planned(locations, Job({}, {}, 3), {}, 24))


@pytest.mark.parametrize("content", [b"no database at all, but as long as one" * 99, b"PK\3\4"])
def test_other_files_are_refused_and_left_alone(path: Path, tmp_path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "no journal" in refusal(path, small().planned(tmp_path, 24))
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    plan = small().planned(tmp_path, 24)
    assert "unable to open" in refusal(tmp_path / "none" / "journal", plan)
