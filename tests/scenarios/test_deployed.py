"""Every role as its unit starts it (`infra/systemd`): nobody in particular, no capability but what the unit gives, a
read-only machine, its password a credential, on a cluster that lets it do what its role may; and it does its work.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest

from infra.processes import ChildProcess, free_ports, wait_until
from producers.privileges import CAP_NET_RAW
from producers.publisher import Publisher
from schemas.records import ActionResult, BandwidthMeasurement, Outcome, ProbeBatch, ReadinessReport
from tests.infra import confined
from tests.infra.commands import PROXIMA, ROOT, succeeds
from tests.infra.units import names, read_unit
from tests.secured import Secured, coming_as, on_topic, secured_cluster
from tests.sinks.actuators.acting import action

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(bool(confined.missing()), reason=f"NOT TESTED: needs {confined.missing()}"),
]

PRIMARY: Final = "eu-west-1"
UID_FIRST: Final = 61_001  # nobody's: systemd, too, takes numbers without an account
GROUPS: Final = {"proxima-tokens": 61_900}
STAGES: Final = ("intake", "decide", "overview")
# Units whose role on Kafka is not what their name says.
ROLES: Final = {"proxima-sink@jsonlines": "sink"}


class Machine:
    """Where units run: /etc/proxima, credentials and state folders, as systemd lays them out."""

    def __init__(self, secured: Secured, folder: Path, stack: ExitStack) -> None:
        self.secured, self._folder, self._stack = secured, folder, stack
        self.etc = folder / "etc"
        self.etc.mkdir()
        shutil.copy(secured.guard.ca_pem, self.etc / "ca.pem")
        self.children: dict[str, ChildProcess] = {}

    def start(self, name: str, config: str = "") -> None:
        uid = UID_FIRST + len(self.children)
        held, state = self._folder / f"{name}.credentials", self._folder / f"{name}.state"
        unit = read_unit(name, credentials=str(held), state=str(self._folder))
        role = ROLES.get(name) or name.removeprefix("proxima-").removeprefix("stage@")
        given = {"kafka": self.secured.password_file(role).read_text()} if "kafka" in unit.credentials() else {}
        assert given.keys() == unit.credentials().keys()
        for folder in (held, state):
            folder.mkdir(mode=0o700)
        for credential, text in given.items():
            (held / credential).write_text(text)
            (held / credential).chmod(0o400)
        for path in (held, state, *held.iterdir()):
            os.chown(path, uid, uid)
        command = unit.one("ExecStart").split()
        assert command[0] == "/opt/proxima/.venv/bin/proxima"
        config_path = Path(command[-1].replace("/etc/proxima", str(self.etc)))
        if not config_path.exists():
            config_path.write_text(config + (self._kafka(role) if "kafka" in given else ""))
        argv = confined.confine(
            unit,
            [*PROXIMA, *command[1:-1], str(config_path)],
            uid=uid,
            readable=[self.etc, held],
            state=state if "StateDirectory" in unit.said else None,
            groups=[GROUPS[group] for group in unit.words("SupplementaryGroups")],
        )
        kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        said = {key: value.replace("/etc/proxima", str(self.etc)) for key, value in unit.environment().items()}
        child = ChildProcess.start(argv, name=name, log_path=self._folder / f"{name}.log", env={**kept, **said})
        self.children[name] = child
        self._stack.callback(child.kill)

    def folder_of(self, group: str, name: str) -> Path:
        """As `install -d -m 2750 -g GROUP /etc/proxima/NAME` makes it."""
        folder = self.etc / name
        folder.mkdir()
        os.chown(folder, 0, GROUPS[group])
        folder.chmod(0o2750)
        return folder

    def state(self, name: str) -> Path:
        return self._folder / f"{name}.state"

    def wait(self, is_so: Callable[[], Any], what: str) -> Any:
        return wait_until(is_so, 90, what, children=list(self.children.values()), poll_s=0.3)

    def _kafka(self, role: str) -> str:
        return (
            f'[kafka]\nbootstrap = "{self.secured.bootstrap}"\nsecurity_protocol = "SASL_SSL"\n'
            f'username = "proxima-{role}"\nca_file = "{self.etc}/ca.pem"\n'
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    # pytest's own folders are root's alone, and those above them too.
    folder = Path(tempfile.mkdtemp(prefix="proxima-deployed-"))
    folder.chmod(0o755)
    try:
        with secured_cluster(tmp_path) as secured, ExitStack() as stack:
            security = {"PROXIMA_KAFKA__SECURITY_PROTOCOL": "SSL", "PROXIMA_KAFKA__CA_FILE": str(secured.guard.ca_pem),
                        "PROXIMA_KAFKA__CERTIFICATE_FILE": str(secured.guard.broker_pem),
                        "PROXIMA_KAFKA__KEY_FILE": str(secured.guard.broker_pem)}  # fmt: skip
            at = {"PROXIMA_KAFKA__BOOTSTRAP": secured.cluster.administration}
            succeeds("topics", "acls", "--apply", **at, **security)
            succeeds("topics", "create", **secured.environment("admin"))
            yield Machine(secured, folder, stack)
    finally:
        shutil.rmtree(folder)


def test_every_unit_works_with_no_more_than_it_is_given(machine: Machine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, bmp_port, http_port, udp_port = listener.getsockname()[1], *free_ports(3)
        for stage in STAGES:
            machine.start(f"proxima-stage@{stage}")
        _configure(machine.secured, tmp_path, port)
        machine.start("proxima-respond", f'[respond]\nbind = "127.0.0.1"\nport = {udp_port}\n')
        machine.start("proxima-probe", f'[probe]\nagent_id = "eu/a"\nprimary_region = "{PRIMARY}"\n'
                      'methods = ["tcp-syn", "icmp"]\n[[probe.targets]]\nregion = "near"\naddress = "127.0.0.1"\n'
                      f'port = {port}\n[probe.bandwidth]\nevery_s = 1\nport = {udp_port}\n')  # fmt: skip
        machine.start(
            "proxima-readiness", f'[readiness]\nagent_id = "eu/r"\nprimary_region = "{PRIMARY}"\nperiod_s = 1\n'
        )
        machine.start(
            "proxima-routes", f'[routes]\nagent_id = "eu/b"\nprimary_region = "{PRIMARY}"\nport = {bmp_port}\n'
        )
        machine.start("proxima-sink@jsonlines")
        tokens = machine.folder_of("proxima-tokens", "gateway") / "tokens.json"
        token = succeeds("gateway", "token", "new", "--source", "cdn-logs", "--tokens", tokens).strip()
        machine.start("proxima-gateway", f"[gateway]\nport = {http_port}\n")
        machine.start("proxima-actuators", _actuators())
        # The worker is its three stages in one process tree: the test below holds their units to the same.
        assert set(names()) - machine.children.keys() == {"proxima-worker"}

        found = machine.secured
        with coming_as(found, "overview") as bootstrap, Publisher(bootstrap, client_id="overview") as publisher:
            publisher.publish("path-actions", PRIMARY, action(secrets.token_hex(16), primary_region=PRIMARY))

        def asked_by_both() -> bool:
            answered = {
                batch.methods[m]
                for batch in on_topic(found, "probe-samples", ProbeBatch)
                for m, outcome in zip(batch.method_index, batch.outcome, strict=True)
                if outcome == Outcome.ANSWERED
            }
            return answered == {"tcp-syn", "icmp"}

        machine.wait(asked_by_both, "answers to raw sockets' probes")
        machine.wait(lambda: on_topic(found, "probe-samples", BandwidthMeasurement), "the responder's answer")
        machine.wait(lambda: on_topic(found, "readiness-reports", ReadinessReport), "a report of readiness")
        machine.wait(lambda: on_topic(found, "action-results", ActionResult), "an action's result")
        rankings = machine.state("proxima-sink@jsonlines") / "rankings.jsonl"
        machine.wait(lambda: rankings.exists() and rankings.read_text(), "a ranking in the sink's own folder")
        machine.wait(lambda: _connects(bmp_port), "the route monitor to listen")
        machine.wait(lambda: _ranking_served(http_port, token), "the gateway to know its token and a ranking")
        assert (machine.state("proxima-actuators") / "actuators.sqlite").exists()
        other = succeeds("gateway", "token", "new", "--source", "other", "--tokens", tokens).strip()
        machine.wait(lambda: _ranking_served(http_port, other), "a new token to be known, without a restart")
        succeeds("gateway", "token", "revoke", token.split("_")[1], "--tokens", tokens)
        machine.wait(lambda: _ranking_status(http_port, token) == 401, "the revoked one to be refused")
        assert _ranking_served(http_port, other)
        assert stat.S_IMODE(tokens.stat().st_mode) == 0o640
        assert (tokens.stat().st_uid, tokens.stat().st_gid) == (0, GROUPS["proxima-tokens"]), "to be read, not written"

        for name, child in machine.children.items():
            _holds_no_more_than_its_unit_says(name, child.pid)
        for child in machine.children.values():
            child.send_signal(signal.SIGTERM)
        ended = {name: child.wait(30) for name, child in machine.children.items()}
        assert set(ended.values()) == {0}, ended


def _holds_no_more_than_its_unit_says(name: str, pid: int) -> None:
    """Every process of it, every thread."""
    bounding = 1 << CAP_NET_RAW if name == "proxima-probe" else 0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
            held = {key: int(fields[key], 16) for key in ("CapEff", "CapPrm", "CapInh", "CapAmb")}
            # The agent's were given up when its sockets were open.
            assert set(held.values()) == {0}, (name, process.name(), held)
            assert int(fields["CapBnd"], 16) == bounding, (name, fields["CapBnd"])
            assert fields["NoNewPrivs"] == "1", name
            assert fields["Seccomp"] == "2", name
            assert min(map(int, fields["Uid"].split())) >= UID_FIRST, name
        mounts = [line.split() for line in Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()]
        assert [m[5].split(",")[0] for m in mounts if m[4] == "/"] == ["ro"], name


def _configure(secured: Secured, folder: Path, port: int) -> None:
    path = folder / "regions.toml"
    path.write_text(
        f'[[regions]]\nregion_id = "{PRIMARY}"\nlatitude = 53.3\nlongitude = -6.2\n'
        '[[regions]]\nregion_id = "near"\nlatitude = 50.1\nlongitude = 8.7\n'
        f'[[regions.health]]\nurl = "tcp://127.0.0.1:{port}"\n'
        f'[[configurations]]\nprimary_region = "{PRIMARY}"\npotential_failover_regions = ["near"]\n'
    )
    said = succeeds("config", "apply", path, "--timeout-s", "90", **secured.environment("operator"))
    assert "accepted" in said, said


def _actuators() -> str:
    """A provider's API that nobody answers at: a dry run does not ask it."""
    return (
        '[actuators]\nname = "carrier"\n[[providers]]\nname = "edge"\nurl = "http://127.0.0.1:1"\n'
        f'[[providers.tasks]]\nprimary = "{PRIMARY}"\nremedy = "standby"\ncircuit = "C-1"\n'
        "usual_bps = 1_000_000_000\nvalue_max = 10_000_000_000\n"
    )


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def _ranking_served(port: int, token: str) -> bool:
    return _ranking_status(port, token) == 200


def _ranking_status(port: int, token: str) -> int:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/rankings/{PRIMARY}", trust_env=False,
                           headers={"Authorization": f"Bearer {token}"})  # fmt: skip
    except httpx.TransportError:
        return 0
    return answer.status_code
