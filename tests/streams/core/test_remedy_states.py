"""The table, the drawing in the documentation, and what must hold of every way through it."""

from __future__ import annotations

from pathlib import Path

from schemas.records import Operation
from streams.core.remedy_states import BUSY, IN_PLACE, TRANSITIONS, Phase, Signal, drawing

DOCS = Path(__file__).parents[3] / "docs" / "remedies.md"


def test_the_documentation_draws_the_table_that_the_code_follows() -> None:
    assert f"```\n{drawing()}\n```" in DOCS.read_text(), (
        "print(streams.core.remedy_states.drawing()) into docs/remedies.md"
    )


def test_from_every_phase_a_remedy_can_come_to_rest() -> None:
    resting = {Phase.IDLE}
    while True:
        more = {phase for (phase, _), step in TRANSITIONS.items() if step.phase in resting}
        if more <= resting:
            break
        resting |= more
    assert resting == set(Phase)


def test_a_remedy_that_may_be_in_place_comes_to_rest_only_by_a_roll_back_or_because_nothing_was_done() -> None:
    for (phase, signal), step in TRANSITIONS.items():
        if step.phase is Phase.IDLE and phase is not Phase.PLANNED:
            assert phase in (Phase.ROLLING_BACK, Phase.STRANDED), (phase, signal)
            assert signal is Signal.DONE
        if step.phase is Phase.ROLLING_BACK:
            assert step.operation is Operation.ROLL_BACK, (phase, signal)
        if step.phase is Phase.PLANNED:
            assert step.operation is Operation.APPLY
    assert BUSY < IN_PLACE
