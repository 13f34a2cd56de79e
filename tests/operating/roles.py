"""Every role of Proxima as a process of its own, beside a real broker and a real Redis, each with its own port."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from infra.processes import ChildProcess, free_ports, stop_all, wait_until
from schemas.codec import encode
from schemas.records import HealthEndpoint, Region, RegionCatalog
from tests.pipeline import Feed, Pipeline
from tests.producers.gateway.serving import Serving, metric, serving
from tests.sinks.receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of nobody
PRIMARY = "eu-west-1"

_PROBE = """
[probe]
agent_id = "eu-west-1/a"
primary_region = "eu-west-1"
methods = ["tcp-connect"]
tick_ms = 500
timeout_ms = 400
[probe.bandwidth]
every_s = 2
port = {responder}
[[probe.targets]]
region = "near"
address = "127.0.0.1"
port = {open}
"""
_READINESS = """
[readiness]
agent_id = "eu-west-1/ready"
primary_region = "eu-west-1"
period_s = 1
"""
_ROUTES = """
[routes]
agent_id = "eu-west-1/routes"
primary_region = "eu-west-1"
port = {bmp}
"""
_RESPOND = """
[respond]
bind = "127.0.0.1"
port = {responder}
"""
_WEBHOOK = """
[[webhook.destinations]]
name = "team"
url = "{hook}"
secret_env = ["HOOK_SECRET"]
"""
_ACTUATORS = """
[actuators]
name = "edge"
log = "{folder}/actuators.sqlite"
[[links]]
name = "links"
[[links.tasks]]
primary = "eu-west-1"
remedy = "backup"
device = "backup0"
"""


@dataclass
class Roles:
    """Their ports, by role, and their logs."""

    ports: dict[str, int]
    children: dict[str, ChildProcess]
    gateway: Serving
    logs: dict[str, Path] = field(default_factory=dict)

    def text(self, role: str) -> str:
        """What it shows Prometheus."""
        return get(self.ports[role], "/metrics")[1]


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body; status 0: nobody answers."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, HTTPException) as error:
            return 0, str(error)


def reasons(port: int, path: str = "/readyz") -> list[str]:
    """Why it says that it is not ready."""
    status, body = get(port, path)
    return list(json.loads(body)["reasons"]) if status else ["it does not answer"]


def ports_in_a_row(count: int) -> int:
    """The first of so many that nobody listens on."""
    while True:
        (first,) = free_ports(1)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first


def start(arguments: list[str], name: str, folder: Path, config: str = "", **environment: object) -> ChildProcess:
    """`proxima` with a file; its log beside it."""
    file = folder / f"{name.replace(' ', '-')}.toml"
    file.write_text(config)
    return ChildProcess.start(
        [sys.executable, "-m", "infra.cli", *arguments, "--config", str(file)],
        name=name,
        log_path=folder / f"{name.replace(' ', '-')}.log",
        env={f"PROXIMA_{key}" if "__" in key else key: str(value) for key, value in environment.items()},
    )


@contextmanager
def all_roles(bootstrap: str, redis_url: str, folder: Path) -> Iterator[Roles]:
    """All of them at work: samples and metrics come in, rankings go out, and all say that they are ready."""
    first, bmp, responder = ports_in_a_row(4), *free_ports(2)
    names = (
        "probe",
        "readiness",
        "routes",
        "respond",
        "sink redis",
        "sink jsonlines",
        "sink webhook",
        "sink actuators",
    )
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    ports |= {"intake": first, "decide": first + 1, "overview": first + 2, "supervisor": first + 3}
    with ExitStack() as stack:
        pipeline = stack.enter_context(Pipeline(bootstrap, folder))
        kafka = {"KAFKA__BOOTSTRAP": bootstrap, "KAFKA__TOPIC_PREFIX": pipeline.prefix}
        children: dict[str, ChildProcess] = {}

        def begin(role: str, config: str = "", **environment: object) -> None:
            arguments = role.split()
            port = first if role == "worker" else ports[role]
            said = {**kafka, "METRICS__PORT": port, **environment}
            children[role] = stack.enter_context(start(arguments, role, folder, config, **said))

        begin("worker", DECIDE__SNAPSHOT_EVERY_MS=1000, OVERVIEW__SNAPSHOT_EVERY_MS=1000)
        hook = stack.enter_context(Receiver())
        gateway = stack.enter_context(serving(bootstrap, folder, prefix=pipeline.prefix))
        ports["gateway"] = int(gateway.url.rpartition(":")[2])
        begin("respond", _RESPOND.format(responder=responder))
        begin("probe", _PROBE.format(responder=responder, open=ports["gateway"]))
        begin("routes", _ROUTES.format(bmp=bmp))
        begin("sink redis", REDIS__URL=redis_url)
        begin("sink jsonlines", JSONLINES__PATH=folder / "rankings.jsonl")
        begin("sink webhook", _WEBHOOK.format(hook=hook.url), HOOK_SECRET=SECRET)
        begin("sink actuators", _ACTUATORS.format(folder=folder))
        pipeline.configure((PRIMARY,))
        _with_health(pipeline, ports["gateway"])
        begin("readiness", _READINESS)
        wait_until(lambda: _connected(stack, bmp), 60, "the route monitor to listen", children=children.values())
        feed = stack.enter_context(Feed(pipeline, 1, primaries=(PRIMARY,)))
        token = gateway.token()
        client = gateway.client(token)
        found = Roles(ports, children, gateway)
        found.logs = {role: child.log_path for role, child in [*children.items(), ("gateway", gateway.child)]
                      if child.log_path is not None}  # fmt: skip

        def all_ready() -> bool:
            assert client.post("/v1/metrics", json=metric(PRIMARY, target_region="near")).status_code == 202
            return all(get(port, "/readyz")[0] == 200 for port in ports.values())

        try:
            wait_until(all_ready, 60, "every role to be ready", children=children.values(), poll_s=0.5)
        except Exception as error:
            said = {role: get(port, "/readyz") for role, port in ports.items()}
            raise AssertionError(f"{error}\n{said}") from error
        yield found
        feed.stop()
        stop_all(children.values())


def _with_health(pipeline: Pipeline, port: int) -> None:
    places: dict[str, tuple[float, float]] = {"near": (5, 5), "middle": (15, 15), "far": (-20, 40), PRIMARY: (0, 0)}
    health = {"near": [HealthEndpoint(f"http://127.0.0.1:{port}/healthz")]}
    catalog = RegionCatalog(2, [Region(name, at[0], at[1], health=health.get(name, [])) for name, at in places.items()])
    producer = pipeline.producer()
    producer.produce(f"{pipeline.prefix}failover-config", key="regions", value=encode(catalog))
    assert producer.flush(30) == 0


def _connected(stack: ExitStack, port: int) -> bool:
    """A router that has nothing to say."""
    try:
        stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
    except OSError:
        return False
    return True
