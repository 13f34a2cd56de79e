"""Panes are what a naive loop over the samples gives; a message that lies is left out, whole, and with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from schemas.records import Outcome, PathPanes, ProbeBatch, Reason
from schemas.validate import AT_MS_MAX
from streams.core.panes import BUCKETS, Flush, Rejected, bucket_mid_ms

PANE_MS = 1000
NOW = 1_700_000_000_400
PRIMARIES, AGENTS = ("eu-1", "us-1"), ("a", "b")
TARGETS, METHODS = ("t-1", "t-2", "t-3"), ("icmp", "tcp-connect")
LATENESS_MS = 6 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Probe:
    """One sample, with names instead of indices."""

    target: str
    method: str
    sent_offset_ms: float
    outcome: Outcome
    rtt_ms: float  # NaN unless answered


@dataclass(frozen=True, slots=True)
class Message:
    agent: str
    primary: str
    started_at_ms: int
    probes: tuple[Probe, ...]
    targets: tuple[str, ...] = TARGETS
    methods: tuple[str, ...] = METHODS

    def batch(self) -> ProbeBatch:
        return ProbeBatch.of(
            agent_id=self.agent,
            primary_region=self.primary,
            started_at_ms=self.started_at_ms,
            targets=list(self.targets),
            methods=list(self.methods),
            target_index=[self.targets.index(p.target) for p in self.probes],
            method_index=[self.methods.index(p.method) for p in self.probes],
            sent_offset_ms=[p.sent_offset_ms for p in self.probes],
            rtt_ms=[p.rtt_ms for p in self.probes],
            outcome=[p.outcome for p in self.probes],
            code=[0] * len(self.probes),
        )


@dataclass(slots=True)
class Pane:
    """What the naive loop keeps: a list of what was answered, and a count of everything."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    rtt_us: list[int] = field(default_factory=list)
    buckets: Counter[int] = field(default_factory=Counter)

    def row(self) -> tuple[Any, ...]:
        return (
            tuple(self.outcomes[o] for o in Outcome),
            sum(self.rtt_us),
            min(self.rtt_us, default=0),
            tuple(sorted(self.buckets.items())),
        )


Rows = dict[tuple[Any, ...], tuple[Any, ...]]  # (primary, agent, target, method, pane) -> its content


def bucket_of(rtt_ms: float) -> int:
    """By arithmetic instead of by bits: octaves from 2^-6 ms on, each in 128 equal parts."""
    number = 0
    value = Fraction(rtt_ms) * 64
    while value >= 2:
        value, number = value / 2, number + 128
    return max(0, min(number + int((value - 1) * 128), BUCKETS - 1)) if value >= 1 else 0


def naive(messages: list[Message]) -> Rows:
    panes: dict[tuple[Any, ...], Pane] = {}
    for message in messages:
        for probe in message.probes:
            at_ms = (message.started_at_ms + Fraction(probe.sent_offset_ms)) // PANE_MS * PANE_MS
            pane = panes.setdefault((message.primary, message.agent, probe.target, probe.method, at_ms), Pane())
            pane.outcomes[probe.outcome] += 1
            if probe.outcome is Outcome.ANSWERED:
                pane.rtt_us.append(round(probe.rtt_ms * 1000))
                pane.buckets[bucket_of(probe.rtt_ms)] += 1
    return {key: pane.row() for key, pane in panes.items()}


def rows_of(panes: dict[str, PathPanes]) -> Rows:
    found: Rows = {}
    for primary, of in panes.items():
        assert of.pane_ms == PANE_MS
        columns, entry = of.columns(), 0
        for i, at_ms in enumerate(columns["pane_at_ms"].tolist()):
            upto = entry + int(columns["buckets"][i])
            buckets = list(
                zip(columns["bucket"][entry:upto].tolist(), columns["bucket_count"][entry:upto].tolist(), strict=True)
            )
            assert buckets == sorted(buckets)
            entry = upto
            key = (
                primary,
                of.agents[columns["agent_index"][i]],
                of.targets[columns["target_index"][i]],
                of.methods[columns["method_index"][i]],
                at_ms,
            )
            assert key not in found, "a pane stands in one row"
            found[key] = (
                tuple(columns["outcomes"][i].tolist()),
                int(columns["rtt_sum_us"][i]),
                int(columns["rtt_min_us"][i]),
                tuple(buckets),
            )
        assert entry == len(columns["bucket"]) == len(columns["bucket_count"])
    return found


def flush_of(batches: list[ProbeBatch], appended_at_ms: int = NOW) -> tuple[dict[str, PathPanes], list[Rejected]]:
    flush = Flush(pane_ms=PANE_MS, ahead_ms_max=5000, lateness_ms_max=LATENESS_MS)
    found = [flush.add(batch, offset, appended_at_ms) for offset, batch in enumerate(batches)]
    panes, later = flush.condense()
    return panes, [r for r in found if r is not None] + later


def condensed(messages: list[Message]) -> Rows:
    panes, rejected = flush_of([m.batch() for m in messages])
    assert not rejected
    return rows_of(panes)


def _float32(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(float(np.float32(low)), float(np.float32(high)), width=32)


# Mostly a path's usual times, so that buckets fill; sometimes anything that is allowed.
_RTT = st.one_of(_float32(20.0, 24.0), _float32(20.0, 300.0), _float32(0.0009765625, 65535.0))
_PROBE = st.one_of(
    st.builds(
        Probe,
        st.sampled_from(TARGETS),
        st.sampled_from(METHODS),
        _float32(0, 2500),
        st.just(Outcome.ANSWERED),
        _RTT,
    ),
    st.builds(
        Probe,
        st.sampled_from(TARGETS),
        st.sampled_from(METHODS),
        _float32(0, 2500),
        st.sampled_from([o for o in Outcome if o is not Outcome.ANSWERED]),
        st.just(float("nan")),
    ),
)


@st.composite
def _message(draw: st.DrawFn) -> Message:
    probes = tuple(draw(st.lists(_PROBE, min_size=1, max_size=12)))
    # Tables of names differ from agent to agent: another order, more than is used, only what is used.
    targets = draw(st.permutations(TARGETS))
    methods = draw(st.permutations(METHODS))
    if draw(st.booleans()):
        methods = list(dict.fromkeys(p.method for p in probes))
    return Message(
        agent=draw(st.sampled_from(AGENTS)),
        primary=draw(st.sampled_from(PRIMARIES)),
        # Hours apart: most of the panes between do not exist, and rows are numbered by sorting.
        started_at_ms=NOW - draw(st.one_of(st.integers(0, 4000), st.integers(LATENESS_MS // 2, LATENESS_MS))),
        probes=probes,
        targets=tuple(targets),
        methods=tuple(methods),
    )


_MESSAGES = st.lists(_message(), min_size=1, max_size=8)


@settings(max_examples=120)
@given(_MESSAGES)
def test_panes_are_what_a_loop_over_the_samples_gives(messages: list[Message]) -> None:
    assert condensed(messages) == naive(messages)


@settings(max_examples=60)
@given(_MESSAGES, st.randoms(use_true_random=False))
def test_neither_the_order_of_messages_nor_that_of_samples_changes_a_row(messages: list[Message], random: Any) -> None:
    shuffled = [replace(m, probes=tuple(random.sample(m.probes, len(m.probes)))) for m in messages]
    random.shuffle(shuffled)
    assert condensed(shuffled) == condensed(messages)


@settings(max_examples=60)
@given(_MESSAGES, st.randoms(use_true_random=False))
def test_a_message_cut_into_messages_of_one_sample_gives_the_same_panes(messages: list[Message], random: Any) -> None:
    single = [replace(m, probes=(p,)) for m in messages for p in m.probes]
    random.shuffle(single)
    assert condensed(single) == condensed(messages)


def _seeded(seed: int, samples: int, agents: int, outliers: float, backlog_ms: int) -> list[Message]:
    random = np.random.default_rng(seed)
    messages = []
    for agent in range(agents):
        probes = []
        for _ in range(samples):
            rtt = float(np.float32(random.gamma(2, 3) + 40 * (agent + 1)))
            rtt = float(np.float32(random.uniform(1000, 60_000))) if random.random() < outliers else rtt
            outcome = Outcome(int(random.choice(len(Outcome), p=[0.9, 0.05, 0.02, 0.01, 0.01, 0.01])))
            offset = float(np.float32(random.uniform(0, 1000)))
            rtt = rtt if outcome is Outcome.ANSWERED else float("nan")
            probes.append(Probe(TARGETS[int(random.integers(3))], METHODS[0], offset, outcome, rtt))
        started = NOW - int(random.integers(0, backlog_ms))
        messages.append(Message(f"agent-{agent}", PRIMARIES[agent % 2], started, tuple(probes), TARGETS, METHODS[:1]))
    return messages


@pytest.mark.parametrize(
    ("samples", "agents", "outliers", "backlog_ms"),
    [
        pytest.param(3000, 2, 0.0, 1, id="many-samples-in-one-pane"),
        pytest.param(1500, 3, 0.05, 1, id="outliers-far-above-the-least"),
        pytest.param(20, 40, 0.02, LATENESS_MS, id="clocks-apart-and-a-long-backlog"),
        pytest.param(1, 60, 0.0, LATENESS_MS, id="one-sample-a-message"),
    ],
)
def test_large_flushes_too(samples: int, agents: int, outliers: float, backlog_ms: int) -> None:
    messages = _seeded(7, samples, agents, outliers, backlog_ms)
    assert condensed(messages) == naive(messages)


def test_a_target_that_an_agent_names_twice_is_one_path() -> None:
    probes = [Probe("t-1", "icmp", 0, Outcome.ANSWERED, 10), Probe("t-1", "icmp", 1, Outcome.ANSWERED, 20)]
    twice = replace(Message("a", "eu-1", NOW, tuple(probes)), targets=("t-1", "t-1")).batch()
    panes, rejected = flush_of([replace(twice, target_index=np.array([0, 1], "<u2").tobytes())])
    assert not rejected
    assert [row[:3] for row in rows_of(panes).values()] == [((2, 0, 0, 0, 0, 0), 30_000, 10_000)]


def test_primaries_come_in_the_order_of_their_first_message() -> None:
    probe = (Probe("t-1", "icmp", 0, Outcome.ANSWERED, 10),)
    panes, _ = flush_of([Message("a", p, NOW, probe).batch() for p in ("us-1", "eu-1", "us-1")])
    assert list(panes) == ["us-1", "eu-1"]


def test_a_flush_of_nothing_is_nothing() -> None:
    assert flush_of([]) == ({}, [])


GOOD = Message(
    "a",
    "eu-1",
    NOW - 300,
    (Probe("t-1", "icmp", 0, Outcome.ANSWERED, 10), Probe("t-2", "icmp", 1, Outcome.TIMED_OUT, float("nan"))),
)
NAN = float("nan")


def _with(**columns: Any) -> ProbeBatch:
    """The good message with some columns, or other fields, replaced; columns are arrays, packed here."""
    packed: dict[str, Any] = {
        name: np.asarray(value, ProbeBatch.COLUMNS[name]).tobytes() if name in ProbeBatch.COLUMNS else value
        for name, value in columns.items()
    }
    return replace(GOOD.batch(), **packed)


BAD: dict[str, tuple[ProbeBatch, Reason, str]] = {
    "an answered probe without a time": (_with(rtt_ms=[NAN, NAN]), Reason.OUT_OF_RANGE, "rtt_ms"),
    "a negative time": (_with(rtt_ms=[-10, NAN]), Reason.OUT_OF_RANGE, "rtt_ms"),
    "no time at all": (_with(rtt_ms=[0, NAN]), Reason.OUT_OF_RANGE, "rtt_ms"),
    "an infinite time": (_with(rtt_ms=[np.inf, NAN]), Reason.OUT_OF_RANGE, "rtt_ms"),
    "a time beyond a minute": (_with(rtt_ms=[65_536, NAN]), Reason.OUT_OF_RANGE, "rtt_ms"),
    "a time on a probe that timed out": (_with(rtt_ms=[10, 10]), Reason.OUT_OF_RANGE, "rtt_ms"),
    "a target beyond the table": (_with(target_index=[0, 3]), Reason.OUT_OF_RANGE, "3 targets"),
    "a method beyond the table": (_with(method_index=[2, 0]), Reason.OUT_OF_RANGE, "2 methods"),
    "an outcome that nobody knows": (_with(outcome=[0, 6], rtt_ms=[10, NAN]), Reason.OUT_OF_RANGE, "outcome 6"),
    "an offset that is no number": (_with(sent_offset_ms=[0, NAN]), Reason.OUT_OF_RANGE, "sent_offset_ms"),
    "an offset before the start": (_with(sent_offset_ms=[-1, 0]), Reason.OUT_OF_RANGE, "sent_offset_ms"),
    "an offset of more than ten minutes": (
        _with(sent_offset_ms=[0, 600_001], started_at_ms=NOW - 3_600_000),
        Reason.OUT_OF_RANGE,
        "sent_offset_ms",
    ),
    "a column too short": (_with(rtt_ms=[10]), Reason.OUT_OF_RANGE, "column rtt_ms has 4 bytes, not 8"),
    "a column too long": (_with(method_index=[0, 0, 0]), Reason.OUT_OF_RANGE, "column method_index"),
    "half a number": (replace(GOOD.batch(), target_index=b"\0\0\0"), Reason.OUT_OF_RANGE, "column target_index"),
    "no samples": (
        _with(**{name: [] for name in ProbeBatch.COLUMNS}),
        Reason.OUT_OF_RANGE,
        "the batch is empty",
    ),
    "a primary that is no region id": (_with(primary_region="EU 1"), Reason.OUT_OF_RANGE, "primary_region"),
    "a target that is no region id": (_with(targets=["t-1", "", "t-3"]), Reason.OUT_OF_RANGE, "target"),
    "a method that is no method": (_with(methods=["icmp", "TCP!"]), Reason.OUT_OF_RANGE, "method"),
    "an agent without a name": (_with(agent_id=""), Reason.OUT_OF_RANGE, "agent_id"),
    "no targets": (_with(targets=[]), Reason.OUT_OF_RANGE, "0 targets"),
    "no methods": (_with(methods=[]), Reason.OUT_OF_RANGE, "0 methods"),
    "a start before the epoch": (_with(started_at_ms=-1), Reason.OUT_OF_RANGE, "started_at_ms"),
    "a start beyond all reason": (_with(started_at_ms=AT_MS_MAX + 1), Reason.OUT_OF_RANGE, "started_at_ms"),
    "a start in the future": (_with(started_at_ms=NOW + 5001), Reason.FROM_THE_FUTURE, "check its clock"),
    "an offset into the future": (_with(sent_offset_ms=[0, 5301]), Reason.FROM_THE_FUTURE, "check its clock"),
    "a start too long ago": (_with(started_at_ms=NOW - LATENESS_MS - 1), Reason.TOO_LATE, "before the broker"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_message_is_left_out_with_its_reason_and_the_others_stay_as_without_it(kind: str) -> None:
    bad, reason, said = BAD[kind]
    others = [m.batch() for m in _seeded(3, 4, 5, 0.0, 60_000)]
    panes, rejected = flush_of([*others[:2], bad, *others[2:]])
    assert [(r.offset, r.reason) for r in rejected] == [(2, reason)]
    assert said in rejected[0].detail
    assert rows_of(panes) == rows_of(flush_of(others)[0])


@settings(max_examples=100)
@given(st.lists(st.one_of(_message(), st.sampled_from(sorted(BAD))), min_size=1, max_size=10))
def test_however_good_and_bad_messages_mix_each_is_judged_for_itself(mixed: list[Message | str]) -> None:
    panes, rejected = flush_of([BAD[m][0] if isinstance(m, str) else m.batch() for m in mixed])
    expected = {offset: BAD[m][1] for offset, m in enumerate(mixed) if isinstance(m, str)}
    event(f"{len(expected)} bad")
    assert {r.offset: r.reason for r in rejected} == expected
    assert len(rejected) == len(expected)
    assert rows_of(panes) == naive([m for m in mixed if isinstance(m, Message)])


def test_exactly_as_far_ahead_and_as_late_as_allowed_is_good() -> None:
    bounds = [_with(started_at_ms=NOW + 5000, sent_offset_ms=[0, 0]), _with(started_at_ms=NOW - LATENESS_MS)]
    assert flush_of(bounds)[1] == []


@settings(max_examples=300)
@given(_float32(2.0**-6, 65_535.996))
def test_the_middle_of_a_bucket_is_within_0_8_percent_of_any_value_in_it(rtt_ms: float) -> None:
    probe = Probe("t-1", "icmp", 0, Outcome.ANSWERED, rtt_ms)
    (panes, _) = flush_of([Message("a", "eu-1", NOW, (probe,)).batch()])
    middle = float(bucket_mid_ms(panes["eu-1"].columns()["bucket"])[0])
    assert middle == pytest.approx(rtt_ms, rel=0.008)


def test_what_is_faster_than_the_first_bucket_is_counted_in_it() -> None:
    probes = tuple(Probe("t-1", "icmp", 0, Outcome.ANSWERED, 2.0**-exponent) for exponent in (7, 10, 20))
    ((outcomes, total_us, least_us, buckets),) = condensed([Message("a", "eu-1", NOW, probes)]).values()
    assert (outcomes[0], total_us, least_us) == (3, 8 + 1, 0)
    assert buckets == ((0, 3),)
