"""`proxima scorecard FILE`: the predictor on a week of measurements in which a person marked what happened."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli._options import AsJson, say, say_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_SAYS = {
    "auc_pooled": "how often a prediction before a change was higher than one before none; any two",
    "auc_within": "the same, of one probe's only",
    "brier": "mean squared error",
    "brier_climatology": "the same of the probe's own past rate",
    "skill": "what of it is saved",
    "skill_low": "lower end of its 90 % interval, by a bootstrap of blocks",
    "ece": "mean distance of what was said and how often it came, by bins",
    "positives_ratio": "share of predictions before a change",
    "predictions": "counted",
    "influence": "what they would count in the engine at the end of the file, 0 to 1",
    "influence_max": "the most it was",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(scorecard)


def scorecard(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV or .csv.gz with the header probe,at_utc,rtt_ms,change_point.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Run the predictor over labelled round-trip times, and say how good its probabilities were.

    The same code as in the engine, step by step: what it says of a step is judged by whether a person saw a change
    within the next three, and from that it learns, when they are over. A probe's first 200 steps are not counted.

    \b
    Examples:
      proxima scorecard producers/data/labelled_rtt/ripe_atlas_2016-10-18_2016-10-25.csv.gz
      proxima scorecard week.csv --json
    """
    from streams.labelled import influence, predict, read_labelled, scores  # noqa: PLC0415 - numpy and the predictor

    labelled = read_labelled(file)
    said = predict(labelled)
    found = {**scores(said), **influence(labelled, said)}
    if as_json:
        say_json({name: _plain(value) for name, value in found.items()})
    else:
        _print(found)


def _plain(value: float) -> float | None:
    """What JSON can say: nothing, where nothing can be said."""
    if not math.isfinite(value):
        return None
    return value if isinstance(value, int) else round(value, 6)


def _print(found: Mapping[str, float]) -> None:
    for name, value in found.items():
        plain = _plain(value)
        shown = "unknown" if plain is None else str(plain) if isinstance(plain, int) else f"{plain:.5f}"
        say(f"{name:<18} {shown:>9}  {_SAYS[name]}")
