"""The picture of a backtest: which target each policy had in use, above what every path did.

    default: regret 3.13 ms, 26 switches    one lane a candidate, a bar while it is in use,
      tokyo    ▬▬▬▬▬     ▬▬▬▬▬▬▬▬           a mark above at every change, also to and from no target;
      narita        ▬▬▬▬▬                   one such panel a policy
    round-trip time                         a line a candidate, gaps where probes were lost
    lost                                    one lane a candidate, a mark for every step with a lost probe

The only importer of matplotlib, which is an optional extra. A page is one file: the drawing as SVG and the numbers as a
table, with nothing to load from anywhere.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from schemas.errors import ProximaError
from schemas.records import Array
from streams.backtest import NOWHERE, YARDSTICKS, Past, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS: Final = (".html", ".png")
# Okabe and Ito's colours, which most people can tell apart; again from the start beyond eight candidates.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#000000")
_LANE_INCHES: Final = 0.19
_STYLE: Final[Any] = {
    "text.parse_math": False,  # a candidate may have a dollar in its name
    "svg.fonttype": "none",
    "svg.hashsalt": "proxima",  # the same backtest gives the same drawing
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_UNITS: Final = ((86_400 * 3, 86_400, "days"), (3600 * 3, 3600, "hours"), (60 * 3, 60, "minutes"), (0, 1, "seconds"))


def check() -> None:
    """Raise ProximaError when there is no matplotlib: said before a long run and not after it."""
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ImportError:
        raise ProximaError(
            "a picture needs matplotlib, which is not installed", do="`pip install 'proxima[plot]'` brings it"
        ) from None


def draw(path: Path, past: Past, scores: Mapping[str, Score], *, title: str, in_steps: bool = False) -> None:
    """Write the picture, a page or an image by the path's ending; `in_steps`: nobody said how long a step is."""
    from matplotlib import rc_context  # noqa: PLC0415

    with rc_context(_STYLE):
        figure = _figure(past, scores, title=title, in_steps=in_steps)
        if path.suffix == ".png":
            figure.savefig(path, dpi=120)
            return
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = drawing.getvalue()
    path.write_text(_page(title, svg[svg.index("<svg") :], scores), encoding="utf-8")


def _figure(past: Past, scores: Mapping[str, Score], *, title: str, in_steps: bool) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    policies = [name for name in past.runs if name not in YARDSTICKS]
    x, unit = _time_axis(past.step_at_ms, in_steps=in_steps)
    lanes = [*past.course.candidates]
    if any((past.runs[name].chosen[1:] == NOWHERE).any() for name in policies):
        lanes.append("no target")
    heights = [_LANE_INCHES * (len(lanes) + 1)] * len(policies) + [
        2.8,
        _LANE_INCHES * (len(past.course.candidates) + 1),
    ]
    figure = Figure(figsize=(14, sum(heights) + 0.5 * len(heights) + 1.2), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for axis, name in zip(axes, policies, strict=False):
        _choices(axis, x, past.runs[name].chosen, lanes)
        axis.set_title(f"{name}: {_said(scores[name])}", loc="left", fontsize=9, fontweight="bold")
    _round_trips(axes[-2], x, past)
    _losses(axes[-1], x, past)
    for axis in axes:
        axis.axvspan(x[0], x[past.course.scored_from], color="0.93", linewidth=0, zorder=0)
        axis.set_xlim(x[0], x[-1])
    axes[-1].set_xlabel(unit)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    yardsticks = "     ".join(f"{name}: {_said(scores[name])}" for name in scores if name in YARDSTICKS)
    figure.supxlabel(
        f"{yardsticks}\ngrey: the first quarter, for learning, is not counted", fontsize=8, x=0.01, ha="left"
    )
    return figure


def _choices(axis: Axes, x: Array, chosen: Array, lanes: Sequence[str]) -> None:
    """Bars while a candidate is in use, and marks at the switches."""
    lane = np.where(chosen == NOWHERE, len(lanes) - 1, chosen)
    # Before its first decision a policy has no target, which is nobody's outage.
    decided = int(np.argmax(chosen != NOWHERE)) if (chosen != NOWHERE).any() else 0
    starts = np.concatenate(([decided], np.flatnonzero(lane[1:] != lane[:-1]) + 1))
    starts = np.unique(starts[starts >= decided])
    ends = np.append(starts[1:], len(x) - 1)
    colours = [
        _colour(int(i)) if chosen[s] != NOWHERE else "#c00000" for s, i in zip(starts, lane[starts], strict=True)
    ]
    axis.hlines(lane[starts], x[starts], x[ends], colors=colours, linewidth=9, capstyle="butt")
    axis.vlines(x[starts[1:]], -1.0, -0.6, colors="black", linewidth=0.7)
    _lanes(axis, lanes, above=1.1)


def _round_trips(axis: Axes, x: Array, past: Past) -> None:
    rtt_ms = np.where(past.course.lost_ratio < 1, past.course.cost_ms, np.nan)
    for i, candidate in enumerate(past.course.candidates):
        axis.plot(x, rtt_ms[:, i], color=_colour(i), linewidth=0.7, alpha=0.85, label=candidate)
    if np.isfinite(rtt_ms).any():
        least, most = np.nanmin(rtt_ms), np.nanmax(rtt_ms)
        if least > 0 and most > 10 * least:
            axis.set_yscale("log")
    axis.set_ylabel("round-trip time, ms")
    # Named entries: matplotlib leaves out labels that begin with an underscore.
    axis.legend(
        axis.get_lines(), past.course.candidates, loc="lower right", bbox_to_anchor=(1, 1), ncols=6, frameon=False
    )


def _losses(axis: Axes, x: Array, past: Past) -> None:
    from matplotlib.colors import to_rgba  # noqa: PLC0415

    for i in range(len(past.course.candidates)):
        share = past.course.lost_ratio[:, i]
        lost = share > 0
        colours = [to_rgba(_colour(i), 0.25 + 0.75 * float(s)) for s in share[lost]]
        axis.vlines(x[lost], i - 0.4, i + 0.4, colors=colours, linewidth=0.7)
    axis.set_title("lost", loc="left", fontsize=9)
    _lanes(axis, past.course.candidates, above=0.6)


def _lanes(axis: Axes, names: Sequence[str], *, above: float) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -above)


def _time_axis(step_at_ms: Array, *, in_steps: bool) -> tuple[Array, str]:
    """(steps,) places on the axis, and their unit."""
    if in_steps:
        return np.arange(len(step_at_ms)), "steps"
    passed_s = (step_at_ms - step_at_ms[0]) / 1000
    seconds, unit = next((s, unit) for least, s, unit in _UNITS if passed_s[-1] >= least)
    return passed_s / seconds, unit


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _said(score: Score) -> str:
    switches = f"{score.switches} switch{'' if score.switches == 1 else 'es'}"
    return f"regret {score.regret_ms:.2f} ms, {switches}, {score.bad_ratio:.1%} on a bad target"


def _page(title: str, svg: str, scores: Mapping[str, Score]) -> str:
    columns = (
        "regret, ms",
        "mean cost, ms",
        "switches",
        "lost",
        "on a bad target",
        "nowhere",
        "steps",
        "to decide, µs",
    )
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(
            f"<td>{value}</td>"
            for value in (
                f"{s.regret_ms:.2f}", f"{s.mean_cost_ms:.1f}", s.switches, f"{s.lost_ratio:.2%}", f"{s.bad_ratio:.2%}",
                f"{s.nowhere_ratio:.2%}", s.steps, f"{s.decide_us_p50:.1f}",
            )
        )
        + "</tr>\n"
        for name, s in scores.items()
    )  # fmt: skip
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>
body {{ font: 14px sans-serif; margin: 1.5em }} svg {{ width: 100%; height: auto }}
table {{ border-collapse: collapse }} th, td {{ padding: .25em .9em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child {{ text-align: left }}
</style></head><body>
{svg}
<table><tr><th></th>{head}</tr>
{rows}</table>
</body></html>
"""
