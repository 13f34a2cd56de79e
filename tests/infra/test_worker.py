"""The supervisor of a worker's stages: what it says of one that does not stay up."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from infra.processes import ChildProcess
from infra.worker import _Stage, _Supervised


def test_a_stage_that_is_started_again_and_again_is_not_ready_until_it_has_stayed_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(ChildProcess, "start", lambda *_, **__: SimpleNamespace(pid=1, returncode=None))
    stages = {name: _Stage(name, None) for name in ("intake", "decide")}
    shown = _Supervised(stages)
    assert shown.unready() == "not running: intake, decide"
    stages["intake"].start()
    for _ in range(4):  # the first is no restart
        stages["decide"].start()
        now_s[0] += 10
    assert shown.unready() == ""
    stages["decide"].start()
    assert shown.unready() == "started again more than 3 times in 300 s: decide"
    stages["intake"].child = SimpleNamespace(pid=1, returncode=70)  # type: ignore[assignment]
    assert shown.unready() == "not running: intake; started again more than 3 times in 300 s: decide"
    stages["intake"].start()
    now_s[0] += 271  # the first of the four is more than 300 s ago
    assert shown.unready() == ""
    shown.unobserve()
