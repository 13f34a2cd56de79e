"""Many that apply a configuration at the same moment: one wins each version, and the others learn who."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.apply import apply_draft
from infra.asking import Answer, known
from infra.configuration import Draft, read_draft
from infra.kafka.reader import BEGINNING, TopicReader
from infra.processes import wait_until
from schemas.codec import decode
from schemas.records import FailoverConfiguration, FailoverRanking
from schemas.topics import named
from tests.infra.conftest import Topics

REGIONS = Path(__file__).parents[2] / "infra" / "examples" / "regions.toml"
MANY = 100
PRIMARY = "eu-west-1"
TARGET = "us-east-1"


def configured(number: int, version: int = 0, based_on: int = 0) -> FailoverConfiguration:
    """Of applier `number`; its weight tells it from all others in what a worker decides by it."""
    return FailoverConfiguration(PRIMARY, [TARGET, "eu-central-1"], version, based_on=based_on, author=f"n{number}",
                                 weights={TARGET: weight(number)})  # fmt: skip


def weight(number: int) -> float:
    return (number + 1) / 1000


def apply_at_once(topics: Topics, of: Callable[[int], FailoverConfiguration]) -> list[Answer]:
    start = threading.Barrier(MANY)

    def apply(number: int) -> Answer:
        draft = Draft(None, [of(number)])
        start.wait(60)
        [answer] = apply_draft(topics.bootstrap, draft, prefix=topics.prefix, timeout_s=60)
        return answer

    with ThreadPoolExecutor(MANY) as pool:
        return list(pool.map(apply, range(MANY)))


def decided_by(topics: Topics) -> dict[int, set[float | None]]:
    """By version in force: the baseline weights of the target that a worker's rankings of it show."""
    found: dict[int, set[float | None]] = {}
    with TopicReader(topics.bootstrap, {named(topics.prefix, "failover-rankings"): BEGINNING}) as reader:
        while not reader.at_end:
            raw = reader.poll(0.1)
            if raw is not None and raw.value is not None:
                r = decode(raw.value, FailoverRanking)
                shown = {c.region_id: c.baseline_weight for c in r.candidates}
                found.setdefault(r.config_version, set()).add(shown[TARGET])
    return found


@pytest.mark.kafka
def test_of_a_hundred_that_apply_at_once_one_wins_each_version_and_the_others_learn_who(worker: Topics) -> None:
    apply_draft(worker.bootstrap, read_draft(REGIONS), prefix=worker.prefix)
    [first] = apply_draft(worker.bootstrap, Draft(None, [configured(MANY)]), prefix=worker.prefix)
    assert (first.version, first.outcome) == (1, "accepted")

    def check(answers: list[Answer], version: int | None = None) -> None:
        assert Counter(a.outcome for a in answers).keys() == {"accepted", "rejected"}
        winners = {a.version: number for number, a in enumerate(answers) if a.outcome == "accepted"}
        assert len(winners) == sum(a.outcome == "accepted" for a in answers), "two won one version"
        assert version is None or winners.keys() == {version}
        # What the worker goes by is the winner's, of each version.
        last = max(winners)
        wait_until(lambda: last in decided_by(worker), 30, f"a ranking by version {last}")
        shown = decided_by(worker)
        for won, number in winners.items():
            assert shown.get(won, {weight(number)}) == {weight(number)}
        assert known(worker.bootstrap, worker.prefix).configurations[PRIMARY].author == f"n{winners[last]}"
        for answer in answers:
            if answer.outcome == "rejected":
                told = {f"version {won} by n{number} is in force" for won, number in winners.items()}
                assert answer.reason.partition(";")[0] in told

    check(apply_at_once(worker, lambda number: configured(number, 2, 1)), version=2)
    check(apply_at_once(worker, configured))  # after whatever is in force
