"""What operators see of a pipeline at work: real processes, a real Prometheus, and the alerts' own rules."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from infra.kafka.cluster import Broker
from infra.processes import wait_until
from infra.redis import Store
from tests.operating import prometheus
from tests.operating.roles import SECRET, Roles, all_roles, get, reasons

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "infra" / "alerts"
RULES = ALERTS / "proxima.rules.yml"
DASHBOARD = ROOT / "infra" / "dashboards" / "proxima.json"
# Names that a PromQL expression may hold without their being metrics of ours.
METRIC = re.compile(r"\b(?:proxima|process)_[a-z0-9_]+")
_SUFFIXES = ("_bucket", "_count", "_sum")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prometheus-tools")


@pytest.fixture(scope="module")
def at_work(kafka: Broker, redis_server: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roles]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROXIMA_LOG__FORMAT", "json")
        patch.setenv("PROXIMA_LOG__LEVEL", "INFO")
        with all_roles(kafka.bootstrap, redis_server.url, tmp_path_factory.mktemp("roles")) as roles:
            yield roles


def shown(roles: Roles) -> dict[str, str]:
    return {role: roles.text(role) for role in roles.ports}


def metrics_of(text: str) -> set[str]:
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def expressions() -> list[tuple[str, str]]:
    """Every query of the dashboard, with its panel's title, as Grafana would send it."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p.get("targets", [])]
    found += [(a["name"], a["expr"]) for a in dashboard["annotations"]["list"]]
    variables = {"$__rate_interval": "5s", "$__interval": "5s", "$primary": ".*", "$job": "proxima"}
    return [(title, re.sub(r"\$\w+", lambda m: variables[m[0]], expr)) for title, expr in found]


def test_promtool_finds_nothing_wrong_with_what_any_role_shows(at_work: Roles, tools: Path) -> None:
    promtool = prometheus.program("promtool", tools)
    for role, text in shown(at_work).items():
        assert "process_resident_memory_bytes" in text, role
        assert any(name.startswith("proxima_") for name in metrics_of(text)), role
        done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{role}: {done.stdout}{done.stderr}"
        assert not done.stdout + done.stderr, f"{role}: {done.stdout}{done.stderr}"


def test_every_role_says_that_it_lives_and_is_ready(at_work: Roles) -> None:
    for role, port in at_work.ports.items():
        for path in ("/healthz", "/readyz"):
            status, body = get(port, path)
            assert (status, json.loads(body)["status"]) == (200, "ok"), f"{role} {path}: {body}"
        if role != "gateway":
            assert reasons(port) == []
            assert json.loads(get(port, "/healthz")[1])["role"] == role
            assert get(port, "/else")[0] == 404


def test_labels_name_nothing_that_agents_or_injectors_make_up(at_work: Roles) -> None:
    for role, text in shown(at_work).items():
        said = "\n".join(line for line in text.splitlines() if line.startswith("proxima_"))
        assert not re.search(r'="(agent-|eu-west-1/a|feed)', said), role
        assert said.count("\n") < 400, f"{role} shows {said.count(chr(10))} series"


def test_figures_are_what_happened(at_work: Roles) -> None:
    def value(role: str, name: str, **labels: str) -> float:
        for line in at_work.text(role).splitlines():
            if line.startswith(name) and all(f'{k}="{v}"' for k, v in labels.items() if f'{k}="{v}"' in line):
                found, _, number = line.rpartition(" ")
                if all(f'{k}="{v}"' in found for k, v in labels.items()):
                    return float(number)
        raise AssertionError(f"{role} has no {name} {labels}")

    assert value("decide", "proxima_stage_partitions", stage="decide") == 12
    assert value("decide", "proxima_ranking_candidates", primary="eu-west-1") == 3
    assert value("supervisor", "proxima_worker_stage_up", stage="overview") == 1
    wait_until(lambda: value("probe", "proxima_probe_probes_total", outcome="answered") > 4, 20, "probes")
    assert value("probe", "proxima_probe_targets") == 1
    wait_until(lambda: value("respond", "proxima_responder_train_bytes_total") > 40_000, 20, "a train")
    wait_until(lambda: value("readiness", "proxima_readiness_targets", standing="ready") >= 1, 20, "a ready target")
    assert value("routes", "proxima_bmp_sessions") == 1
    for sink in ("redis", "jsonlines", "webhook-team"):
        role = f"sink {sink.partition('-')[0]}"
        assert value(role, "proxima_sink_records_total", sink=sink, outcome="flushed") > 0
        assert value(role, "proxima_sink_up", sink=sink) == 1
        wait_until(lambda s=sink, r=role: value(r, "proxima_sink_lag_records", sink=s) < 5, 20, "it to catch up")  # type: ignore[misc]
    assert value("sink actuators", "proxima_actuator_dry_run") == 1
    assert value("gateway", "proxima_gateway_records_total", source="cdn-logs", outcome="accepted") > 0
    assert value("gateway", "proxima_publisher_records_total", outcome="delivered") > 0


def test_every_metric_that_alerts_and_dashboard_name_is_shown_by_some_role(at_work: Roles) -> None:
    there = {name for text in shown(at_work).values() for name in metrics_of(text)}
    there |= {name.removesuffix(suffix) for name in there for suffix in _SUFFIXES}
    named = set(METRIC.findall(" ".join(expr for _, expr in expressions())))
    named |= set(
        METRIC.findall(" ".join(re.findall(r"expr: (?:>-\n)?((?:.|\n)*?)\n +(?:for|labels):", RULES.read_text())))
    )
    assert len(named) > 35
    assert named - there == set()


def test_every_panel_of_the_dashboard_has_data_and_no_alert_of_a_healthy_pipeline_fires(
    at_work: Roles, tools: Path, tmp_path: Path
) -> None:
    with prometheus.scraping(tools, tmp_path, at_work.ports, RULES) as scraped:
        up = f"sum(up) == {len(at_work.ports)} and min(count_over_time(up[1m])) >= 8"
        wait_until(lambda: scraped.query(up), 60, "every role to be scraped", poll_s=0.5)
        may_be_empty = {"Target changes"}  # an annotation, of what hardly ever happens
        empty = [title for title, expr in expressions() if not scraped.query(expr) and title not in may_be_empty]
        assert empty == []
        rules = scraped.rules()
        assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
        assert len(rules) > 20
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_alerts_ring_when_they_should_and_not_when_they_should_not(tools: Path) -> None:
    promtool = prometheus.program("promtool", tools)
    for command in (["check", "rules", RULES.name], ["test", "rules", "proxima.test.yml"]):
        done = subprocess.run([promtool, *command], cwd=ALERTS, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    names = re.findall(r"- alert: (\w+)", RULES.read_text())
    tests = (ALERTS / "proxima.test.yml").read_text()
    assert [name for name in names for word in ("rings", "is silent") if f"- name: {name} {word}\n" not in tests] == []


def test_every_alert_says_what_it_is_and_leads_to_what_to_do() -> None:
    guide = (ROOT / "docs" / "operating.md").read_text()
    anchors = {f"docs/operating.md#{heading.lower()}" for heading in re.findall(r"^#+ (\w+)$", guide, re.MULTILINE)}
    for alert in RULES.read_text().split("- alert: ")[1:]:
        name = alert.split("\n")[0]
        for key in ("summary", "description", "severity"):
            assert f"{key}: " in alert, f"{name} has no {key}"
        assert re.findall(r"runbook_url: (\S+)", alert) == [f"docs/operating.md#{name.lower()}"]
        assert f"docs/operating.md#{name.lower()}" in anchors, f"{name} is not in docs/operating.md"


def test_the_dashboard_is_one_that_grafana_10_takes() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 38
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert {v["name"]: v["type"] for v in dashboard["templating"]["list"]}["datasource"] == "datasource"
    for panel in dashboard["panels"]:
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["type"] == "row" or panel["description"], panel["title"]
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_every_role_says_its_log_in_json_lines_without_secrets(at_work: Roles) -> None:
    said: dict[str, list[dict[str, Any]]] = {}
    for role, path in at_work.logs.items():
        lines = path.read_text().splitlines()
        said[role] = [json.loads(line) for line in lines]
        for line in said[role]:
            assert {"time", "level", "logger", "role", "message"} <= line.keys()
            assert datetime.fromisoformat(line["time"]).utcoffset() is not None
        text = path.read_text()
        assert SECRET not in text
    roles = {line["role"] for lines in said.values() for line in lines}
    assert roles >= {"worker", "readiness", "routes", "respond", "gateway", "sink actuators"}
    assert {line["role"] for line in said["worker"]} >= {"worker", "decide", "intake"}, "stages share its log"
    assert [line for line in said["worker"] if line["logger"].startswith(("faust", "aiokafka"))]
