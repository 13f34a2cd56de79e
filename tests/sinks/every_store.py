"""What both stores promise, one suite for both: whole rows, nothing twice, nothing back, old or new and never a mix."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.errors import CodecError, StoreUnavailableError
from schemas.records import Reason
from tests.infra.commands import fails, lines, proxima, succeeds
from tests.sinks.rankings import PRIMARIES, ranking
from tests.sinks.store_targets import AT_MS, TARGETS, StoreTarget, configuration, meta, weights

P = PRIMARIES[0]
ALL_MS = (AT_MS - 3_600_000, AT_MS + 9_000_000)


def fill(store: StoreTarget, ticks: range, sequences: range) -> None:
    sink = store.open()
    for tick in ticks:
        sink.add(weights(P, tick), meta("path-weights", tick))
    for sequence in sequences:
        sink.add(ranking(P, sequence), meta("failover-rankings", sequence))
    sink.flush()
    sink.close()


class EveryStore:
    """`store`: migrated once for all tests of a class, which keep to primaries of their own or to what they say."""

    def test_migrating_again_or_by_five_at_once_does_it_once(self, new_store: StoreTarget) -> None:
        with pytest.raises(StoreUnavailableError, match="stores migrate"):
            new_store.reader().latest(P)
        with ThreadPoolExecutor(5) as pool:
            done = list(pool.map(lambda _: new_store.reader().migrate(), range(5)))
        assert sorted(map(len, done)) == [0, 0, 0, 0, 1], done
        assert new_store.reader().migrate() == []
        assert new_store.reader().latest(P) is None

    def test_what_was_measured_and_decided_is_read_back_whole_and_in_order(self, store: StoreTarget) -> None:
        ticks, sequences = range(0, 7200, 600), range(1, 8)
        fill(store, ticks, sequences)
        fill(store, ticks, sequences)  # as after a crash
        with store.reader() as reader:
            found = list(reader.metrics(P, *ALL_MS))
            expected = [(weights(P, tick), target) for tick in ticks for target in sorted(TARGETS)]
            assert [(m.decided_at_ms, m.target_region) for m in found] == [(w.decided_at_ms, t) for w, t in expected]
            for metric, (record, target) in zip(found, expected, strict=True):
                path = record.paths()[target]
                assert metric.values == {name: getattr(path, name) for name in metric.values}
                assert metric.evidence_at_ms == record.evidence_at_ms
            assert list(reader.rankings(P, *ALL_MS)) == [ranking(P, s) for s in sequences]
            assert reader.latest(P) == ranking(P, 7)
            # From a moment on, up to before another.
            some = [m.decided_at_ms for m in reader.metrics(P, AT_MS + 600_000, AT_MS + 1_200_000)]
            assert some == [AT_MS + 600_000] * len(TARGETS)
            assert [r.sequence for r in reader.rankings(P, AT_MS + 2000, AT_MS + 4000)] == [2, 3]

    def test_a_lower_sequence_never_replaces_a_higher_one_whoever_writes(self, store: StoreTarget) -> None:
        primary = "race-1"
        sinks = [store.open() for _ in range(4)]
        for number, sink in enumerate(sinks):
            for sequence in range(number + 1, 41, 4):
                sink.add(ranking(primary, sequence), meta("failover-rankings", sequence))
        writers = [threading.Thread(target=sink.flush) for sink in sinks]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        sinks.append(store.open())
        sinks[-1].add(ranking(primary, 39), meta("failover-rankings", 50))
        sinks[-1].flush()
        for sink in sinks:
            sink.close()
        with store.reader() as reader:
            assert reader.latest(primary) == ranking(primary, 40)
            assert [r.sequence for r in reader.rankings(primary, *ALL_MS)] == list(range(1, 41))
        assert store.latest()[primary] == 40

    def test_what_no_store_can_hold_is_the_records_fault(self, store: StoreTarget) -> None:
        sink = store.open()
        before = store.tables()
        for record, topic in (
            (weights(P, 0, latency_ms=[float("nan")] * 4), "path-weights"),
            (weights(P, 0, weight=[1.0]), "path-weights"),
            (weights("x" * 70_000, 0), "path-weights"),
            (weights("", 0), "path-weights"),
            (weights(P, 0, targets=["y" * 70_000] * 4), "path-weights"),
            (weights(P, 0, decided_at_ms=1 << 62), "path-weights"),
            (ranking(P, 99, decided_at_ms=-1), "failover-rankings"),
            (ranking("z" * 70_000, 99), "failover-rankings"),
        ):
            with pytest.raises(CodecError) as raised:
                sink.add(record, meta(topic, 0))
            assert raised.value.reason in (Reason.OUT_OF_RANGE, Reason.MALFORMED)
        sink.add(configuration(1, primary_region="z" * 70_000), meta("failover-config", 0))  # intake buries it
        sink.flush()
        sink.close()
        assert store.tables() == before

    def test_a_hostile_name_is_only_a_name(self, store: StoreTarget) -> None:
        name = "a'; DROP TABLE rankings; --/2023-11-14T22\"\n"
        sink = store.open()
        sink.add(weights(name, 1, targets=["'", "/", "é", "%s ?"]), meta("path-weights", 1))
        sink.add(ranking(name, 1), meta("failover-rankings", 1))
        sink.flush()
        sink.close()
        with store.reader() as reader:
            assert [m.target_region for m in reader.metrics(name, *ALL_MS)] == sorted(["'", "/", "é", "%s ?"])
            assert list(reader.rankings(name, *ALL_MS)) == [ranking(name, 1)]
            assert list(reader.metrics("a", *ALL_MS)) == []

    def test_what_has_expired_is_not_written(self, store: StoreTarget) -> None:
        sink = store.open()
        sink._settings = sink._settings.model_copy(update={"metrics_ttl_s": 60, "rankings_ttl_s": 60})
        sink.add(weights("old-1", 1), meta("path-weights", 1))
        sink.add(ranking("old-1", 1), meta("failover-rankings", 1))
        sink.flush()
        sink.close()
        with store.reader() as reader:
            assert list(reader.metrics("old-1", *ALL_MS)) == []
            assert list(reader.rankings("old-1", *ALL_MS)) == []
            assert reader.latest("old-1") == ranking("old-1", 1), "the latest is better than none"

    def test_versions_come_into_force_by_compare_and_set_and_are_all_kept(self, new_store: StoreTarget) -> None:
        new_store.reader().migrate()
        topic = [
            configuration(1),
            configuration(4, 3),  # based on nothing that is: rejected, and stays so
            configuration(2),
            configuration(2, 1, author="too late"),
            configuration(3, 2),
            configuration(7, 3),
        ]
        # Read again from the beginning after each record, as after a crash, by two at once. A sink remembers nothing.
        sinks = [new_store.open() for _ in range(2)]
        for read in range(1, len(topic) + 1):
            for sink in sinks:
                for offset, record in enumerate(topic[:read]):
                    sink.add(record, meta("failover-config", offset))
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda sink: sink.flush(), sinks))
        for sink in sinks:
            sink.close()
        with new_store.reader() as reader:
            found = reader.configurations(P)
        assert [v.configuration for v in found] == [topic[0], topic[2], topic[4], topic[5]]
        assert [v.applied_at_ms for v in found] == [AT_MS, AT_MS + 2, AT_MS + 4, AT_MS + 5]

    def test_a_reader_sees_the_old_version_or_the_new_and_never_a_mix(self, new_store: StoreTarget) -> None:
        new_store.reader().migrate()
        done = threading.Event()
        versions = 25

        def write() -> None:
            sink = new_store.open()
            for version in range(1, versions + 1):
                sink.add(configuration(version, author=f"author {version}"), meta("failover-config", version))
                sink.flush()
            sink.close()
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen, looks = 0, 0
        with new_store.reader() as reader:
            while not done.is_set() or seen < versions:
                found = [v.configuration for v in reader.configurations(P)]
                assert found == [configuration(n, author=f"author {n}") for n in range(1, len(found) + 1)]
                assert len(found) >= seen, "what was in force is no more"
                seen, looks = len(found), looks + 1
        writer.join()
        assert looks > versions / 2

    def test_the_command_line_migrates_and_reads(self, new_store: StoreTarget, tmp_path: Path) -> None:
        config = new_store.config(tmp_path)
        said = fails(1, "history", P, "--config", config)
        assert "stores migrate" in said
        assert succeeds("stores", "migrate", "--config", config).startswith("version 1: ")
        assert lines("stores", "migrate", "--config", config, "--json") == [{"done": []}]
        fill(new_store, range(3), range(1, 4))
        found = lines("history", P, "--from", str(AT_MS), "--to", str(AT_MS + 2000), "--metrics", "--json",
                      "--config", config)  # fmt: skip
        assert [(m["decided_at_ms"], m["target_region"]) for m in found] == [
            (AT_MS + 1000 * tick, target) for tick in range(2) for target in sorted(TARGETS)
        ]
        assert found[0]["bandwidth_bps"] is None
        until = ("--from", str(AT_MS), "--to", str(AT_MS + 60_000), "--config", config)
        rankings = lines("history", P, "--json", *until)
        assert [r["sequence"] for r in rankings] == [1, 2, 3]
        far = proxima("history", P, "--metrics", "--from", "-2h", "--to", "2200-01-01T00:00:00Z", "--config", config)
        assert (far.returncode, far.stdout) == (0, "")
        assert far.stderr.startswith(f"nothing is kept of {P} from ")
        assert "not before --to" in fails(2, "history", P, "--from", "-10m", "--to", "-20m", "--config", config)
        assert "can be no region's name" in fails(2, "history", "EU WEST", "--config", config)
        shown = succeeds("history", P, *until).splitlines()
        assert len(shown) == 3
        assert "2023-11-14 22:13:21 UTC  1  us-west-2  NORMAL  HOLD" in shown[0]
