"""``lossd score`` of many shards: what it prints, what it refuses, and what survives a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale import kills
from kernels import LossAccumulator
from service.bulk.cuts import LARGEST, SENT, Size, exactly, shared
from service.bulk.journal import size_in
from service.bulk.run import Progress
from service.cli import bulk_progress, bulk_workers
from service.cli.bulk_options import Asked
from service.process import cores
from tests.service.bulk.corpora import Corpus
from tests.service.cli.score_command import machine, refusal, run


def corpus(rows: tuple[int, ...] = (40, 7, 60), classes: int = 5) -> Corpus:
    rng = np.random.default_rng(3)
    return Corpus(
        [
            {
                "logits": rng.normal(0, 3, (count, classes)).astype(np.float32),
                "labels": rng.integers(0, classes, count),
            }
            for count in rows
        ],
        {},
    )


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Folder with three shards."""
    folder = tmp_path / "shards"
    folder.mkdir()
    corpus().written(folder)
    return folder


@pytest.mark.parametrize(
    ("names", "most"),
    [
        (["a.safetensors", "b.npy"], 2**34),
        (["a.safetensors", "b.npz"], 2**31),
        (["s3://bucket/a.safetensors"], 2**31),
    ],
)
def test_processes_are_started_where_there_is_work_for_them(names: list[str], most: int) -> None:
    for more, processes in ((-1, 0), (0, cores.available())):
        assert bulk_workers.processes_for(Asked(), names, most + more) == processes
    assert bulk_workers.processes_for(Asked(workers=3), names, 1) == 3


@pytest.mark.parametrize(
    ("asked", "total", "size"),
    [
        (Asked(), 10**9, exactly(LARGEST)),
        (Asked(workers=2), 10**12, exactly(LARGEST)),
        (Asked(workers=8), 10**9, shared(10**9, 8)),
        (Asked(workers=8, piece_bytes=5), 10**9, exactly(5)),
        (Asked(servers="http://a,http://b"), 10**12, exactly(SENT)),
        (Asked(part="3/64", workers=1), 10**10, shared(10**10, 256)),
        (Asked(scheduler="tcp://a"), 10**10, shared(10**10, 256)),
    ],
)
def test_each_worker_has_several_pieces(asked: Asked, total: int, size: Size) -> None:
    assert bulk_workers.size_of(asked, ["a.npy"])(total) == size


def test_pieces_of_a_journal_stay_as_they_are(shards: Path, tmp_path: Path) -> None:
    """They are as large as when it was begun, wherever it is gone on with or merged."""
    parts = ["--journal", tmp_path / "0.db", "--part", "0/2", "--piece-bytes", 200]
    assert run(shards, *parts).exit_code == 0
    path = tmp_path / "0.db"
    for asked in Asked(journal=path), Asked(merge=str(path)):
        assert bulk_workers.size_of(asked, [])(10**12) == exactly(200)
    parts[1:4:2] = [tmp_path / "1.db", "1/2"]
    assert run(shards, *parts).exit_code == 0
    merged = machine(shards, "--merge", tmp_path / "*.db")
    assert merged == machine(shards, "--piece-bytes", 200)
    (tmp_path / "none").write_bytes(b"no journal")
    assert size_in(tmp_path / "none") is None


def test_parts_are_merged_while_others_run(shards: Path, tmp_path: Path) -> None:
    """Merging keeps what it has merged: its journals are not needed any more."""
    size = ["--piece-bytes", 200]
    for part in range(4):
        more = ["--journal", tmp_path / f"part-{part}.db", "--part", f"{part}/4"]
        assert run(shards, *more, *size).exit_code == 0
    merge = ["--merge", tmp_path / "part-*.db", "--journal", tmp_path / "part-total.db"]
    others = [tmp_path / f"part-{part}.db" for part in (2, 3)]
    running = [other.with_name(f"{other.name}-wal") for other in others]
    for wal in running:
        wal.touch()
    early = run(shards, *merge, "--json")
    assert early.exit_code == 5
    assert "no journal has its result" in early.stderr
    for wal in running:
        wal.unlink(missing_ok=True)
    for part in (0, 1):
        (tmp_path / f"part-{part}.db").unlink()
    assert machine(shards, *merge) == machine(shards, *size)
    for other in others:
        other.unlink()
    assert machine(shards, *merge) == machine(shards, *size)
    machine(shards, "--journal", tmp_path / "run.db", *size)
    merge[-1] = tmp_path / "run.db"
    assert "run.db is the journal of a run" in refusal(shards, *merge)


def test_the_loss_is_that_of_all_rows_in_order(shards: Path) -> None:
    accumulator: LossAccumulator = corpus().accumulated()
    answers = [
        machine(*files, "--worst", 2, *more)
        for files, more in (
            ([shards], []),
            ([shards / "*.npz"], ["--piece-bytes", 200]),
            (sorted(shards.iterdir()), ["--workers", 0]),
        )
    ]
    for answer in answers:
        assert {name: answer[name] for name in ("count", "weight_sum", "loss_sum")} == (
            accumulator.sums()
        )
        assert np.float32(answer["loss"]) == accumulator.result()
        assert (answer["shards"], answer["rows"], answer["failed"]) == (3, 107, [])
        del answer["pieces"]
    assert answers[0] == answers[1] == answers[2]
    worst = answers[0]["worst"][0]
    tensors = corpus().shards[int(Path(worst["shard"]).stem[-1])]
    assert tensors["labels"][worst["position"][0]] == worst["label"]


def test_a_person_reads_the_same(shards: Path) -> None:
    text = run(shards).stdout
    assert "loss sum" in text
    assert "shards           3" in text
    assert "│ shard-" in text


def test_what_fails_is_named_and_the_rest_is_scored(shards: Path) -> None:
    (shards / "shard-1.npz").write_bytes(b"PK\3\4 and no more")
    bad = corpus().shards[2]
    bad["labels"][33] = 5
    np.savez(shards / "shard-2.npz", **bad)  # type: ignore[arg-type]
    result = run(shards, "--json", "--piece-bytes", 200)
    assert result.exit_code == 5
    answer = json.loads(result.stdout)
    assert [failure["shard"] for failure in answer["failed"]] == [
        str(shards / "shard-1.npz"), str(shards / "shard-2.npz"),
    ]  # fmt: skip
    assert answer["failed"][0]["rows"] is None
    first, stop = answer["failed"][1]["rows"]
    assert first <= 33 < stop
    assert answer["count"] == 40 + 60 - (stop - first)
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"lossd: {shards / 'shard-1.npz'}: ")
    assert f"shard-2.npz, rows {first} to {stop}: labels[33] is 5" in lines[1]
    assert lines[2] == "lossd: 2 pieces or shards have no result; the rest is scored"


def test_a_report_is_that_of_one_file(shards: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", **corpus().whole())  # type: ignore[arg-type]
    one, many = tmp_path / "one.json", tmp_path / "many.json"
    summary = run(tmp_path / "whole.npz", "--report", one).stdout
    more = ["--piece-bytes", 200, "--journal", tmp_path / "journal"]
    assert run(shards, "--report", many, *more).stdout == summary
    assert many.read_bytes() == one.read_bytes()
    answer = machine(shards, "--report", many, *more)  # from the journal alone
    assert many.read_bytes() == one.read_bytes()
    for element in answer["worst"]:
        number = int(Path(element["shard"]).stem[-1])
        assert element["index"][0] == (0, 40, 47)[number] + element["position"][0]


def test_results_by_element_are_written(shards: Path, tmp_path: Path) -> None:
    machine(shards, "--per-element", tmp_path / "out", "--piece-bytes", 200)
    with np.load(tmp_path / "out" / "shard-2.per_element.npz") as found:
        logits = corpus().shards[2]["logits"]
        assert np.array_equal(found["prediction"], logits.argmax(1))
        assert found["per_element"].shape == (60,)


def test_a_shard_that_changed_since_is_told(shards: Path, tmp_path: Path) -> None:
    journal = ["--journal", tmp_path / "journal"]
    before = machine(shards, *journal)
    os.utime(shards / "shard-1.npz", ns=(1, 1))
    result = run(shards, "--json", *journal)
    assert "shard-1.npz changed since the journal was begun" in result.stderr
    assert json.loads(result.stdout) == before
    assert "worst was 5, and is 4 now" in refusal(shards, "--worst", 4, *journal)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--piece-bytes", "0"], "--piece-bytes 0: "),
        (["--workers", "many"], "--workers many: "),
        (["--name", "logit=x"], "give one of logits, labels"),
        (["--bins", "3"], "--bins is for a report"),
        (["--temperature", "0"], "temperature"),
        (["--workers", "1", "--servers", "http://a"], "exclude each other"),
        (["--report", "a.json", "--per-element", "out"], "--per-element"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told_in_a_line(shards: Path, arguments: list[str], message: str) -> None:
    assert message in refusal(shards, *arguments)
    assert "matches no file" in refusal(shards / "*.parquet")


def test_names_of_tensors_may_be_others(tmp_path: Path) -> None:
    tensors = corpus().shards[0]
    np.savez(tmp_path / "a.npz", output=tensors["logits"], y=tensors["labels"])
    assert machine(tmp_path / "a.npz", "--name", "logits=output,labels=y")["count"] == 40


def test_killed_or_stopped_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    """The client is killed, then stopped by Ctrl-C, then one of its workers is killed."""
    shards = corpus((900, 0, 700, 400)).written(tmp_path)
    journal = tmp_path / "journal"
    arguments = kills.command(shards, journal, "--workers", "1", "--piece-bytes", "40")
    wanted = run(*shards, "--json", "--piece-bytes", 40).stdout
    wal = tmp_path / "journal-wal"
    held = [0]
    for number, victim in ((signal.SIGKILL, "client"), (signal.SIGINT, "client"), (9, "worker")):
        before = wal.stat().st_size if wal.exists() else 0
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        # Some pieces more are in the journal.
        while process.poll() is None and (
            not wal.exists() or wal.stat().st_size in range(before, before + 240_000)
        ):
            time.sleep(0.001)
        children = kills.children(process.pid)
        assert len(children) == 1
        os.kill(process.pid if victim == "client" else children[0], number)
        stdout, stderr = process.communicate()
        if victim == "worker":
            assert (process.returncode, stdout) == (0, wanted), stderr
            continue
        assert stdout == ""
        held.append(kills.held(journal))
        assert held[-2] < held[-1] < 1000
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert f"stopped after {held[-1]} of 1,000 pieces, kept in {journal}" in stderr
    assert kills.held(journal) == 1000


def test_progress_says_rate_time_and_loss() -> None:
    progress = Progress(30, 2, 100, 10, 5_000_000, 1.25)
    assert bulk_progress.details(progress, 2.0) == (
        "2.5 MB/s, 00:00:14 left, loss so far 1.25, 2 failed"
    )
    assert bulk_progress.details(Progress(0, 0, 9, 0, 0, float("nan")), 1.0) == ""
    assert bulk_progress.duration(90061) == "1 d 01:01:01"


def test_without_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bulk_progress, "EVERY", 0.0)
    with bulk_progress.shown() as shown:
        shown.opening(2)
        shown.opened(1)
        shown.scoring()
        shown.told(Progress(3, 0, 1200, 0, 0, 1.5))
    assert capsys.readouterr().err == "scored 3 of 1,200 pieces, loss so far 1.5\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "holds no token"),
        (b"# none yet\n\n", "holds no token"),
        (b"\xff\n", "cannot be read: not a text"),
        ("d\u00e9j\u00e0\n".encode(), "line 1 is not of visible ASCII characters"),
    ],
    ids=["gone", "empty", "a comment", "no text", "accents"],
)
def test_a_file_without_a_token_is_refused(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    paths = corpus().written(tmp_path)
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    told = refusal(*paths, "--servers", "http://127.0.0.1:9", "--token-file", file)
    assert f"--token-file {file}" in told
    assert reason in told
