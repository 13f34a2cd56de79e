"""Ten minutes of a recorded network without a fault: the pipeline changes its targets no oftener than a backtest does.

Two homes look at the same four overlay paths, each replayed over a lab link of its own; one home sees the ten minutes
in which the best path changes most often, the other those in which the backtest changes its target most often. What
makes a backtest and packets comparable:

* A step of the trace is as long here as what it stands for there of the policy's time (`step_seconds`,
  `--step-policy-ms`), and the window is the same; ranked are the same paths, all of the same weight.
* One probe a tick of 1 s: a backtest has one a step. A lost step is as many lost probes as it has ticks.
* Nothing but probes is heard of: no routers, as there are none in a trace.
* The first step is held until there is a target, as a backtest begins with a choice. From there on all changes count,
  and `switches` of the command, those of the last three quarters, are compared with those of the same time.

What stays different: a probe is anywhere in its tick, ticks begin anywhere in a step, and a link keeps the order of
packets, so that after a fall of the delay the first are as late as before.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from infra.kafka.cluster import Broker
from infra.kafka.reader import TopicReader
from infra.lab.lab import Lab
from infra.lab.spec import LabLink, LabRegion, LabSpec
from schemas.codec import decode
from schemas.records import FailoverRanking, Policy
from streams.backtest import NOWHERE, region_ids, run_trace
from streams.trace_files import HEADER, Trace, read_trace
from tests.infra.commands import proxima
from tests.network import skip_without_lab
from tests.scenarios.lab_scene import deciding, rankings

DATA: Final = Path(__file__).parents[2] / "producers" / "data" / "overlay_rtt"
SOAK_S: Final = 600
LATE_S: Final = 3  # of the last step's decision
pytestmark: Final = [pytest.mark.soak, pytest.mark.kafka, pytest.mark.timed]


@dataclass(slots=True)
class Window:
    """So many steps of a recorded network, as files that the lab and the backtest both read."""

    home: str
    source: str
    first: int
    step_s: int
    trace: Trace = field(init=False)
    targets: list[tuple[float, str]] = field(default_factory=list)  # seconds since it began, and the target from then

    def __post_init__(self) -> None:
        whole = read_trace(DATA / self.source)
        self.trace = Trace(whole.candidates, whole.rtt_ms[self.first : self.first + SOAK_S // self.step_s])

    @property
    def regions(self) -> list[str]:
        return [f"{self.home}-{name}"[:63] for name in region_ids(self.trace.candidates)]

    def write(self, folder: Path) -> Path:
        """A trace directory: one file a candidate."""
        (folder / self.home).mkdir()
        for name, column in zip(self.regions, self.trace.rtt_ms.T, strict=True):
            rows = [f"{step},{'' if np.isnan(rtt) else rtt}" for step, rtt in enumerate(column)]
            (folder / self.home / f"{name}.csv").write_text("\n".join((",".join(HEADER), *rows, "")))
        return folder / self.home

    def links(self, folder: Path) -> list[LabLink]:
        return [
            LabLink(between=(self.home, name), trace=folder / self.home / f"{name}.csv", step_seconds=self.step_s)
            for name in self.regions
        ]

    @property
    def best_changes(self) -> int:
        best = np.nan_to_num(self.trace.rtt_ms, nan=np.inf).argmin(axis=1)
        return int((best[1:] != best[:-1]).sum())

    @property
    def changes_of_the_backtest(self) -> int:
        chosen = run_trace(self.trace, Policy(), 1000 * self.step_s).chosen
        somewhere = chosen[chosen != NOWHERE]
        return int((somewhere[1:] != somewhere[:-1]).sum())

    def changes(self, since_s: float = 0) -> int:
        """In the lab."""
        return sum(at_s >= since_s and a != b for (_, a), (at_s, b) in pairwise(self.targets))


def test_a_recorded_network_moves_no_target_oftener_than_a_backtest_of_it(kafka: Broker, tmp_path: Path) -> None:
    skip_without_lab()
    windows = [Window("most", "Haifa_Santiago", 2458, 1), Window("moved", "Haifa_Santiago", 35, 3)]
    switches = {w.home: _switches_of_the_command(w.write(tmp_path), w.step_s) for w in windows}
    spec = LabSpec(
        name="soak",
        regions=[LabRegion(id=r, latitude=0, longitude=0) for w in windows for r in (w.home, *w.regions)],
        links=[link for w in windows for link in w.links(tmp_path)],
    )
    ends = {link.between: spec.ends(link)[1] for link in spec.links}
    paths = {w.home: {r: ends[w.home, r] for r in w.regions} for w in windows}
    with deciding(kafka, tmp_path, spec, paths, Policy(), probes_per_tick=1, routers=False) as (lab, reader):
        _hold_the_first_step(lab, windows)
        _settle(reader, windows)
        lab.heal()  # every trace from its beginning
        _watch(reader, windows, time.time() * 1000)
    for w in windows:
        sys.stderr.write(
            f"\n{w.home}: {len(w.trace.rtt_ms)} steps of {w.step_s} s, the best path changed {w.best_changes} times; "
            f"target changes: lab {w.changes()}, backtest {w.changes_of_the_backtest}; "
            f"in the last three quarters: lab {w.changes(SOAK_S / 4)}, proxima backtest {switches[w.home]}\n"
            + "".join(f"  {at_s:7.1f} s {region}\n" for at_s, region in w.targets)
        )
    for w in windows:
        assert w.changes() <= w.changes_of_the_backtest
        assert w.changes(SOAK_S / 4) <= switches[w.home]


def _switches_of_the_command(folder: Path, step_s: int) -> int:
    done = proxima("backtest", str(folder), "--step-policy-ms", str(1000 * step_s), "--json")
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["policies"]["default"]["switches"])


def _hold_the_first_step(lab: Lab, windows: list[Window]) -> None:
    for window in windows:
        for region, rtt_ms in zip(window.regions, window.trace.rtt_ms[0], strict=True):
            assert not np.isnan(rtt_ms), "a window begins with an answer on every path"
            lab.link(window.home, region).delay_ms = rtt_ms / 2


def _settle(reader: TopicReader, windows: list[Window]) -> None:
    """Until every home has a target that it is sure of."""
    waiting = {w.home: w for w in windows}
    for ranking in rankings(reader, 90, "targets"):
        if ranking.target_region is not None and min(c.confidence for c in ranking.candidates) > 0.8:
            window = waiting.pop(ranking.primary_region, None)
            if window is not None:
                window.targets.append((0.0, ranking.target_region))
        if not waiting:
            return


def _watch(reader: TopicReader, windows: list[Window], began_at_ms: float) -> None:
    """Note every target until the traces are over."""
    of = {w.home: w.targets for w in windows}
    until_s = time.monotonic() + SOAK_S + LATE_S
    while time.monotonic() < until_s:
        record = reader.poll(0.2)
        if record is None or record.value is None:
            continue
        ranking = decode(record.value, FailoverRanking)
        target, targets = ranking.target_region, of[ranking.primary_region]
        if target is not None and target != targets[-1][1]:
            targets.append(((ranking.decided_at_ms - began_at_ms) / 1000, target))
