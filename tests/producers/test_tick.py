"""A tick's rows become a batch; what may have been our own doing is suspect, and no more than that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from producers.probes import Answer
from producers.tick import Disturbance, Tick
from schemas.records import Outcome, ProbeBatch
from schemas.validate import mistakes

LOST, ANSWERED = Answer(Outcome.TIMED_OUT), Answer(Outcome.ANSWERED, 100.0)


def batch(
    probes: Sequence[tuple[float, float, Answer]], *disturbances: Disturbance, turns: int | None = None
) -> ProbeBatch | None:
    """Of probes as (due, ended, answer), target 0 and 1 in turn, in a tick that began at 999 s."""

    async def run() -> ProbeBatch | None:
        count = len(probes)
        target_index = np.arange(count, dtype=np.uint16) % np.uint16(2)
        tick = Tick(999.0, [due_s for due_s, _, _ in probes], target_index, np.zeros(count, dtype=np.uint8))
        for row, (_, ended_s, answer) in enumerate(probes[:turns]):
            tick.ended(row, answer)
            tick._ended_s[row] = ended_s
        assert not tick.over.done()
        tick.close(count if turns is None else turns)
        await tick.over
        return tick.batch(
            agent_id="a",
            primary_region="eu-west-1",
            wall_ms=5.0,
            targets=["us-east-1", "us-east-2"],
            methods=["icmp"],
            disturbances=disturbances,
        )

    return asyncio.run(run())


def outcomes(probes: Sequence[tuple[float, float, Answer]], *disturbances: Disturbance) -> list[Outcome]:
    found = batch(probes, *disturbances)
    assert found is not None
    assert mistakes(found) == []
    assert (np.isnan(found.columns()["rtt_ms"]) == (found.columns()["outcome"] != Outcome.ANSWERED)).all()
    return [Outcome(o) for o in found.outcome]


def test_rows_say_when_they_were_sent_and_by_which_clock() -> None:
    found = batch([(1000.1, 1000.2, ANSWERED), (1000.3, 1000.4, LOST)])
    assert found is not None
    assert found.started_at_ms == 999_005
    assert found.columns()["sent_offset_ms"] == pytest.approx([1100, 1300], abs=0.01)
    assert found.columns()["rtt_ms"][0] == 100


def test_a_tick_that_was_stopped_has_the_rows_that_had_their_turn() -> None:
    found = batch([(1000.1, 1000.2, ANSWERED), (1000.3, 1000.4, LOST)], turns=1)
    assert found is not None
    assert len(found.outcome) == 1
    assert batch([(1000.1, 1000.2, ANSWERED)], turns=0) is None


def test_an_answer_that_a_stall_touched_is_suspect() -> None:
    stall = Disturbance(1000.5, 1000.6)
    touched = [(1000.45, 1000.55), (1000.55, 1000.61), (1000.4, 1000.7), (1000.52, 1000.58)]
    assert set(outcomes([(*span, ANSWERED) for span in touched], stall)) == {Outcome.SUSPECT}
    beside = [(1000.3, 1000.5), (1000.6, 1000.7)]
    assert set(outcomes([(*span, ANSWERED) for span in beside], stall)) == {Outcome.ANSWERED}


def test_a_loss_is_suspect_if_the_stall_was_at_either_end_but_not_in_between() -> None:
    stall = Disturbance(1000.5, 1000.6)
    at_an_end = [(1000.55, 1001.55), (999.55, 1000.55), (999.6, 1000.61)]
    assert set(outcomes([(*span, LOST) for span in at_an_end], stall)) == {Outcome.SUSPECT}
    beside = [(1000.1, 1001.1), (999.4, 1000.4), (1000.7, 1001.7)]
    assert set(outcomes([(*span, LOST) for span in beside], stall)) == {Outcome.TIMED_OUT}


def test_what_others_said_stays_what_it_is_whatever_we_did() -> None:
    answers = [Answer(Outcome.REFUSED), Answer(Outcome.UNREACHABLE, code=13), Answer(Outcome.NOT_SENT)]
    found = batch([(1000.1, 1000.2, a) for a in answers], Disturbance(999, 1002))
    assert found is not None
    assert [Outcome(o) for o in found.outcome] == [a.outcome for a in answers]
    assert list(found.code) == [0, 13, 0]


def test_a_train_of_ours_disturbs_its_own_path_only() -> None:
    probes = [(1000.1, 1000.2, ANSWERED)] * 4
    assert outcomes(probes, Disturbance(1000, 1001, 1)) == [Outcome.ANSWERED, Outcome.SUSPECT] * 2
