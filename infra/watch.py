"""A live view in the terminal: for every primary where its traffic would go and why, or all paths of one.

`View` folds records into what is shown and knows no Kafka; `overview` and `paths` draw it; `run_view` reads and
redraws. Piped into a file, it prints a table at each change instead.

A ranking is shown as stale by this machine's clock, as every reader of a served copy has to do: when nothing comes any
more there is no other clock to ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra.explain import paths_of
from infra.kafka.reader import TopicReader
from infra.remedy_words import latest, remedy_sentences
from infra.scorecards import in_a_line
from infra.words import clean
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.records import (
    Candidate,
    DisruptionPrediction,
    Event,
    FailoverRanking,
    NetworkVerdict,
    PathWeight,
    PathWeights,
    PredictionScorecard,
    RemedyReport,
)
from schemas.topics import named

# Of each partition, so many of the last records are read at the start: enough for every primary's heartbeat.
_RANKINGS_BACK: Final = 200
_PATHS_BACK: Final = 50
_OF_PATHS: Final = (
    "path-weights", "disruption-predictions", "prediction-scorecards", "network-verdicts", "path-actions",
)  # fmt: skip
_CANDIDATES_SHOWN: Final = 3
_PIPED_WIDTH: Final = 140
_WIDE: Final = 110
_OVERVIEW_COLUMNS: Final = ("primary", "mode", "advice", "target", "age", "order (normalized score)", "last change")
# Two lines each, so that a row fits 80 columns.
_PATH_COLUMNS: Final = (
    "score",
    "latency\nms",
    "loss",
    "jitter\nms",
    "band-\nwidth",
    "confi-\ndence",
    "disrup-\ntion",
    "last\nsample",
)
# Published though nothing that people would call a change has happened.
_ROUTINE: Final = {Event.HEARTBEAT, Event.SCORE_MOVED}
_MODE_STYLES: Final = {"NORMAL": "green", "THIN": "yellow", "PANIC": "bold red"}
_HEALTH_STYLES: Final = {"DEGRADED": "yellow", "DOWN": "bold red"}
_SHOWN: Final = (
    FailoverRanking, PathWeights, DisruptionPrediction, PredictionScorecard, NetworkVerdict, RemedyReport,
)  # fmt: skip
_ADVICE_STYLES: Final = {"HOLD": "", "PREPARE": "yellow", "FAIL_OVER": "bold red"}


class View:
    """The latest of everything, by primary; of rankings the highest sequence, whatever comes in which order."""

    def __init__(self) -> None:
        self.rankings: dict[str, FailoverRanking] = {}
        self.changes: dict[str, FailoverRanking] = {}  # the latest that was no routine
        self.weights: dict[str, PathWeights] = {}
        self.predictions: dict[str, DisruptionPrediction] = {}
        self.scorecards: dict[str, PredictionScorecard] = {}
        self.verdicts: dict[str, NetworkVerdict] = {}
        self.remedies: dict[str, list[RemedyReport]] = {}  # the last of each remedy

    def take(self, value: bytes) -> bool:
        """Fold a record in; True when somebody who looks now and then should look now."""
        try:
            record = decode(value, *_SHOWN)
        except CodecError:
            return False  # a sink has made a dead letter of it
        primary = record.primary_region
        if isinstance(record, PathWeights):
            if primary not in self.weights or record.decided_at_ms >= self.weights[primary].decided_at_ms:
                self.weights[primary] = record
            return False
        if isinstance(record, DisruptionPrediction):
            if primary not in self.predictions or record.predicted_at_ms >= self.predictions[primary].predicted_at_ms:
                self.predictions[primary] = record
            return False
        if isinstance(record, RemedyReport):
            self.remedies[primary] = latest([*self.remedies.get(primary, []), record])
            return self.remedies[primary][0] is record
        if isinstance(record, NetworkVerdict):
            if primary not in self.verdicts or record.sequence > self.verdicts[primary].sequence:
                self.verdicts[primary] = record
            return False
        if isinstance(record, PredictionScorecard):
            if primary not in self.scorecards or record.scored_at_ms >= self.scorecards[primary].scored_at_ms:
                self.scorecards[primary] = record
            return False
        if primary in self.rankings and record.sequence <= self.rankings[primary].sequence:
            return False
        first, self.rankings[primary] = primary not in self.rankings, record
        if first or not _ROUTINE.issuperset(record.events):
            self.changes[primary] = record
            return True
        return False

    def facts(self, now_ms: int) -> dict[str, Any]:
        """What the tables show, for programs."""
        return {p: _facts(r, self.changes[p], now_ms) for p, r in sorted(self.rankings.items())}


def is_stale(ranking: FailoverRanking, now_ms: int) -> bool:
    """Whether nobody has renewed it for longer than it says of itself."""
    return now_ms - ranking.decided_at_ms > ranking.stale_after_ms


def overview(view: View, now_ms: int, width: int = _PIPED_WIDTH) -> RenderableType:
    """All primaries: one line each, two in a narrow terminal."""
    if not view.rankings:
        return Text("no ranking yet: is there a configuration, and a worker? `proxima doctor` looks", style="yellow")
    wide = width >= _WIDE
    rows = [_row(r, view.changes[primary], now_ms, wide=wide) for primary, r in sorted(view.rankings.items())]
    table = Table(box=None, pad_edge=False, header_style="dim", show_header=wide)
    titles = _OVERVIEW_COLUMNS if wide else ("",) * len(rows[0][0])
    fixed = len(titles) - (2 if wide else 1)  # what gives way in a narrow terminal is the order, and why
    for number, title in enumerate(titles):
        longest = max(len(line) for cells, _ in rows for line in cells[number].plain.split("\n"))
        table.add_column(title, no_wrap=True, overflow="ellipsis", min_width=longest if number < fixed else None)
    for cells, style in rows:
        table.add_row(*cells, style=style)
    return table


def _row(ranking: FailoverRanking, change: FailoverRanking, now_ms: int, *, wide: bool) -> tuple[list[Text], str]:
    """A primary's cells, and the style of its row."""
    primary = Text(ranking.primary_region)
    mode = Text(ranking.mode, style=_MODE_STYLES.get(ranking.mode, ""))
    advice = Text(ranking.advice, style=_ADVICE_STYLES.get(ranking.advice, ""))
    target = Text(ranking.target_region or "none", style="bold" if ranking.target_region else "bold red")
    age = _age(ranking, now_ms)
    order = Text(_order(ranking.candidates))
    why = Text(f"{_ago(now_ms - change.decided_at_ms)} ago: {change.reason}")
    style = "dim" if is_stale(ranking, now_ms) else ""
    if wide:
        return [primary, mode, advice, target, age, order, why], style
    below = Text("\n")
    return [
        below.join((primary, Text(" ").join((mode, advice)))),
        below.join((target, age)),
        below.join((order, why)),
    ], style


def paths(view: View, primary: str, now_ms: int) -> RenderableType:
    """Every path of one primary, in the order of its ranking."""
    ranking = view.rankings.get(primary)
    if ranking is None:
        return Text(f"no ranking of {primary} yet; `proxima config get {primary}` says whether it is configured",
                    style="yellow")  # fmt: skip
    weights = paths_of(view.weights.get(primary))
    prediction = view.predictions.get(primary)
    predicted = {p.target_region: p.probability for p in prediction.paths} if prediction is not None else {}
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("candidate", no_wrap=True)
    for title in _PATH_COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for candidate in sorted(ranking.candidates, key=lambda c: c.rank):
        region = candidate.region_id
        table.add_row(
            f"{candidate.rank}. {region}",
            f"{candidate.normalized_score:.2f}",
            *_measured(weights.get(region)),
            _ratio(candidate.confidence),
            _ratio(predicted.get(region, candidate.predicted_disruption)),
            _since(weights.get(region)),
            _state(candidate, ranking),
            style="bold" if region == ranking.target_region else "" if candidate.eligible else "dim",
        )
    below = _below(ranking, view.scorecards.get(primary))
    verdict = view.verdicts.get(primary)
    if verdict is not None:
        below += [Text(), Text(verdict.reason, style=_HEALTH_STYLES.get(verdict.health, "dim"))]
    remedies = remedy_sentences(view.remedies.get(primary, []), now_ms)
    below += [Text(), *(Text(said) for said in remedies)] if remedies else []
    return Group(_headline(ranking, view.changes[primary], now_ms), Text(), table, *below)


def _state(candidate: Candidate, ranking: FailoverRanking) -> str:
    """In a word; what a failed check found is said below the table."""
    reason = (candidate.ineligible_reason or "").partition(":")[0]
    return reason or ("in use" if candidate.region_id == ranking.target_region else "")


def _below(ranking: FailoverRanking, card: PredictionScorecard | None) -> list[Text]:
    """Why who is not ready is not, and how the model does."""
    said = [
        Text(f"{clean(c.region_id)} is {clean(c.ineligible_reason or '')}", style="yellow")
        for c in sorted(ranking.candidates, key=lambda c: c.rank)
        if ":" in (c.ineligible_reason or "")
    ]
    said += [
        Text(f"{clean(c.region_id)}: nothing was heard of its readiness for a while", style="yellow")
        for c in sorted(ranking.candidates, key=lambda c: c.rank)
        if c.eligible and 0 < c.readiness < 1
    ]
    lines = said + ([] if card is None else [Text(in_a_line(card), style="dim")])
    return [Text(), *lines] if lines else []


def run_view(
    bootstrap: str,
    prefix: str = "",
    primary: str | None = None,
    *,
    until: Callable[[], bool] | None = None,
    redraw_hz: float = 4,
    footer: str | Callable[[], str] | None = None,
    console: Console | None = None,
) -> None:
    """Show rankings, or one primary's paths, until `until()` is true or Ctrl-C (which is raised).

    `footer`: a line below, or a function that gives it. Into a pipe: a table at the start and at each change.
    Raises KafkaUnavailableError: no broker answers, or the topics do not exist.
    """
    console = console if console is not None else Console()
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_WIDTH)
    view = View()

    def drawn() -> RenderableType:
        now_ms = time.time_ns() // 1_000_000
        body = overview(view, now_ms, console.width) if primary is None else paths(view, primary, now_ms)
        below = footer() if callable(footer) else footer
        return Group(body, Text(), Text(below, style="dim")) if below else body

    with TopicReader(bootstrap, _starts(prefix, primary)) as reader:
        read_until_now(reader, view, primary, timeout_s=10)
        live = Live(drawn(), console=console, auto_refresh=False) if console.is_terminal else None
        with live or nullcontext():
            changed = True
            while until is None or not until():
                if live is not None:
                    live.update(drawn(), refresh=True)
                elif changed:
                    console.print(drawn(), Text())
                changed = _take_for(reader, view, primary, 1 / redraw_hz)


def read_view(bootstrap: str, prefix: str = "", primary: str | None = None, timeout_s: float = 10.0) -> View:
    """The state of now, once. Raises KafkaUnavailableError."""
    view = View()
    with TopicReader(bootstrap, _starts(prefix, primary)) as reader:
        read_until_now(reader, view, primary, timeout_s)
    return view


def read_until_now(reader: TopicReader, view: View, primary: str | None, timeout_s: float) -> None:
    """Fold in what is there already, so that the first picture is whole."""
    deadline = time.monotonic() + timeout_s
    while not reader.at_end and time.monotonic() < deadline:
        _take_for(reader, view, primary, 0.05)


def _starts(prefix: str, primary: str | None) -> dict[str, int]:
    starts = {named(prefix, "failover-rankings"): _RANKINGS_BACK}
    if primary is not None:
        starts |= {named(prefix, t): _PATHS_BACK for t in _OF_PATHS}
    return starts


def _take_for(reader: TopicReader, view: View, primary: str | None, seconds: float) -> bool:
    """Read for a while; whether something changed."""
    wanted = primary.encode() if primary is not None else None
    changed = False
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        raw = reader.poll(left_s)
        if raw is not None and raw.value is not None and wanted in (None, raw.key):
            changed |= view.take(raw.value)
    return changed


def _headline(ranking: FailoverRanking, change: FailoverRanking, now_ms: int) -> Text:
    return Text.assemble(
        (ranking.primary_region, "bold"),
        " → ",
        (ranking.target_region or "none", "bold" if ranking.target_region else "bold red"),
        "   ",
        (ranking.mode, _MODE_STYLES.get(ranking.mode, "")),
        "   ",
        (ranking.advice, _ADVICE_STYLES.get(ranking.advice, "")),
        f"   order {ranking.order_confidence:.0%} sure   configuration {ranking.config_version}   ",
        _age(ranking, now_ms),
        f"\n{_ago(now_ms - change.decided_at_ms)} ago: {change.reason}",
    )


def _order(candidates: Iterable[Candidate]) -> str:
    ranked = sorted((c for c in candidates if c.eligible), key=lambda c: c.rank)
    shown = "  ".join(f"{c.region_id} {c.normalized_score:.2f}" for c in ranked[:_CANDIDATES_SHOWN])
    return f"{shown}  +{len(ranked) - _CANDIDATES_SHOWN}" if len(ranked) > _CANDIDATES_SHOWN else shown


def _age(ranking: FailoverRanking, now_ms: int) -> Text:
    age = _ago(now_ms - ranking.decided_at_ms)
    return Text(f"STALE {age}", style="bold red") if is_stale(ranking, now_ms) else Text(age)


def _measured(path: PathWeight | None) -> tuple[str, str, str, str]:
    if path is None:
        return "", "", "", ""
    return (
        f"{path.latency_ms:.1f}" if path.latency_ms is not None else "-",
        f"{path.loss_ratio:.1%}" if path.loss_ratio is not None else "-",
        f"{path.delay_variation_ms:.1f}" if path.delay_variation_ms is not None else "-",
        _bandwidth(path.bandwidth_bps),
    )


def _bandwidth(bps: float | None) -> str:
    if bps is None:
        return "-"
    return f"{bps / 1e9:.1f}G" if bps >= 1e9 else f"{bps / 1e6:.0f}M"


def _ratio(value: float | None) -> str:
    return f"{value:.0%}" if value is not None else "-"


def _since(path: PathWeight | None) -> str:
    return _ago(path.age_ms) if path is not None and path.age_ms is not None else "none"


def _ago(ms: float) -> str:
    seconds = max(ms, 0) / 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _facts(ranking: FailoverRanking, change: FailoverRanking, now_ms: int) -> dict[str, Any]:
    return {
        "mode": ranking.mode,
        "advice": ranking.advice,
        "target_region": ranking.target_region,
        "order": [
            {"region_id": c.region_id, "normalized_score": c.normalized_score, "eligible": c.eligible}
            for c in sorted(ranking.candidates, key=lambda c: c.rank)
        ],
        "sequence": ranking.sequence,
        "decided_at_ms": ranking.decided_at_ms,
        "stale": is_stale(ranking, now_ms),
        "changed_at_ms": change.decided_at_ms,
        "why": change.reason,
    }
