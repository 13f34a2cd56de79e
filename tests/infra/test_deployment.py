"""What `infra` starts roles with (systemd, containers, Kubernetes) gives each what it needs, and nothing else."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
import yaml

from infra import cli
from schemas import config
from schemas.actuators import ActuatorsConfig
from tests.infra import confined
from tests.infra.units import SYSTEMD, names, read_unit

INFRA: Final = SYSTEMD.parent
COMPOSE: Final = ("compose.yaml", "compose.secured.yaml")
OPTIONAL: Final = sorted((SYSTEMD / "optional").glob("*.conf"))
ANALYZE: Final = shutil.which("systemd-analyze")
# Of 10; what is left is the network, which is what roles are for.
EXPOSURE_MAX: Final = 1.7
RAW: Final = ["CAP_NET_RAW"]
RAW_OF_CONTAINERS: Final = ["NET_RAW"]
FORBIDDING: Final = (
    "DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectClock",
    "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
    "LockPersonality", "MemoryDenyWriteExecute", "RemoveIPC", "RestrictNamespaces", "RestrictRealtime",
    "RestrictSUIDSGID",
)  # fmt: skip
ROLES: Final[dict[str, type[config.RoleConfig]]] = {
    "worker": config.WorkerConfig, "probe": config.ProbeConfig, "routes": config.RoutesConfig,
    "readiness": config.ReadinessConfig, "respond": config.RespondConfig, "gateway": config.GatewayConfig,
    "sink": config.SinkConfig, "actuators": ActuatorsConfig,
}  # fmt: skip
# What compose.yaml has of others: they are for trying out, and their images' own.
FOREIGN: Final = {"kafka", "redis"}
PUBLISHED: Final = {"kafka": ["127.0.0.1:29092:29092"], "redis": ["127.0.0.1:6379:6379"],
                    "gateway": ["127.0.0.1:8420:8420"]}  # fmt: skip


def role_of(command: list[str]) -> str:
    return "actuators" if command[:2] == ["sink", "actuators"] else command[0]


def knows(role: str, variable: str) -> bool:
    """Whether the role's configuration has what the variable sets."""
    section, _, key = variable.removeprefix("PROXIMA_").lower().partition("__")
    field = ROLES[role].model_fields.get(section)
    return field is not None and key in getattr(field.annotation, "model_fields", {})


@pytest.mark.parametrize("name", names())
def test_a_unit_has_no_capability_but_a_probe_agent_has_net_raw(name: str) -> None:
    unit = read_unit(name)
    expected = RAW if name == "proxima-probe" else []
    assert unit.words("CapabilityBoundingSet") == unit.words("AmbientCapabilities") == expected
    assert "" in unit.said["CapabilityBoundingSet"], "without an empty one first, it would be added to all"
    families = ["AF_INET", "AF_INET6", "AF_UNIX", *(["AF_NETLINK"] if expected else [])]
    assert unit.words("RestrictAddressFamilies") == families
    assert {key: unit.said[key][-1] for key in FORBIDDING} == dict.fromkeys(FORBIDDING, "yes")
    assert unit.one("ProtectSystem") == "strict"
    assert "ReadWritePaths" not in unit.said
    assert unit.one("SystemCallArchitectures") == "native"


def test_every_service_of_the_command_line_has_a_unit() -> None:
    commands = {role_of(read_unit(name).one("ExecStart").split()[1:]) for name in names()}
    assert commands == set(ROLES)


@pytest.mark.parametrize("name", names())
def test_a_unit_starts_what_there_is_and_sets_what_it_knows(name: str) -> None:
    unit = read_unit(name)
    program, *command = unit.one("ExecStart").split()
    assert program == "/opt/proxima/.venv/bin/proxima"
    known = {module.name for module in pkgutil.iter_modules(cli.__path__)}
    assert command[0] in known
    assert command[-2] == "--config"
    assert Path(command[-1]).parent == Path("/etc/proxima")
    role = role_of(command)
    for variable in unit.environment():
        assert not variable.startswith("PROXIMA_") or knows(role, variable), variable
    # A secret is a credential, or it is none; and each is read where it is given.
    given = {f"/run/credentials/{credential}" for credential in unit.credentials()}
    assert given == {value for value in unit.environment().values() if value.startswith("/run/credentials/")}
    assert ("kafka" in unit.credentials()) == (role != "respond")


def test_a_unit_without_its_drop_ins_is_still_nobody() -> None:
    """Who copies a file and forgets a folder does not run it as root."""
    for path in SYSTEMD.glob("*.service"):
        lines = path.read_text().splitlines()
        assert "DynamicUser=yes" in lines, path.name
        assert any(line.startswith("User=proxima-") for line in lines), path.name


def test_what_is_optional_says_where_it_goes_and_widens_nothing_else() -> None:
    widened: dict[str, set[str]] = {}
    for path in OPTIONAL:
        assert re.search(r"Into /etc/systemd/system/(proxima-\w+)\.service\.d/", path.read_text()), path.name
        lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
        widened[path.stem] = {line.partition("=")[0] for line in lines}
    assert widened == {
        "actuators-frr": {"SupplementaryGroups"},
        "actuators-links": {"CapabilityBoundingSet", "AmbientCapabilities", "RestrictAddressFamilies"},
        "gateway-tls": {"LoadCredential", "Environment"},
    }
    links = read_unit("proxima-actuators", extra=[SYSTEMD / "optional" / "actuators-links.conf"])
    assert links.words("CapabilityBoundingSet") == links.words("AmbientCapabilities") == ["CAP_NET_ADMIN"]
    tls = read_unit("proxima-gateway", extra=[SYSTEMD / "optional" / "gateway-tls.conf"])
    assert all(knows("gateway", variable) for variable in tls.environment() if variable.startswith("PROXIMA_"))
    assert set(tls.credentials()) == {"kafka", "tls.crt", "tls.key"}


def test_what_changes_while_a_role_runs_is_no_credential_and_no_file_mounted_alone() -> None:
    """Both stay what they were at the start: a file that is replaced is another one (`test_deployed.py` revokes)."""
    for name in names():
        groups = ["proxima-tokens"] if name == "proxima-gateway" else []
        assert read_unit(name).words("SupplementaryGroups") == groups
    unit = read_unit("proxima-gateway")
    tokens = Path(unit.environment()["PROXIMA_GATEWAY__TOKENS_FILE"])
    assert not {"BindPaths", "BindReadOnlyPaths"} & unit.said.keys()
    document = (INFRA.parent / "docs" / "deploying.md").read_text()
    assert f"install -d -m 2750 -g proxima-tokens {tokens.parent}\n" in document
    assert f"token new --tokens {tokens} " in document
    gateway = yaml.safe_load((INFRA / "compose.secured.yaml").read_text())["services"]["gateway"]
    tokens = Path(gateway["environment"]["PROXIMA_GATEWAY__TOKENS_FILE"])
    assert gateway["volumes"] == [f"./deployed/tokens:{tokens.parent}:ro"], "the folder"


_RAISE_LO = """
from schemas.actuators import Links, LinkTask
from schemas.records import RemedyKind
from sinks.actuators.link import LinkActuator
from sinks.actuators.actuator import Wanted

links = LinkActuator(Links(name="links", tasks=(LinkTask(primary="eu", remedy="standby", device="lo"),)))
wanted = Wanted("eu", "standby", RemedyKind.LINK, True, 0)
print(links.is_so(wanted))
links.do(wanted, "an action")
print(links.is_so(wanted))
"""


@pytest.mark.skipif(bool(confined.missing()), reason=f"NOT TESTED: needs {confined.missing()}")
@pytest.mark.parametrize("extra", [[], [SYSTEMD / "optional" / "actuators-links.conf"]], ids=["without", "with"])
def test_links_are_changed_with_their_drop_in_and_not_without(extra: list[Path]) -> None:
    """In a network namespace of the test's own, whose loopback is down at first."""
    unit = read_unit("proxima-actuators", extra=extra)
    argv = confined.confine(unit, [sys.executable, "-c", _RAISE_LO], uid=61_000, readable=[], state=None)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(INFRA.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["unshare", "--net", *argv], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if extra:
        assert done.stdout.split() == ["False", "True"], done.stderr
    else:
        assert "True" not in done.stdout
        assert "ActuatorError" in done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Units and drop-ins as in /etc/systemd/system, with a program that is there."""
    folder = tmp_path / "system"
    shutil.copytree(SYSTEMD, folder)
    for path in folder.rglob("*.service"):
        path.write_text(path.read_text().replace("/opt/proxima/.venv/bin/proxima", "/bin/true"))
    for path in OPTIONAL:
        found = re.search(r"/etc/systemd/system/([^/]+\.d)/", path.read_text())
        assert found is not None
        (folder / found[1]).mkdir(exist_ok=True)
        if path.stem != "actuators-links":  # it is worse by a capability, and said to be
            shutil.copy(path, folder / found[1] / f"30-{path.name}")
    return folder


@pytest.mark.skipif(ANALYZE is None, reason="NOT TESTED: needs systemd-analyze (Debian: apt-get install systemd)")
def test_systemd_takes_the_units_and_finds_them_little_exposed(installed: Path) -> None:
    units = [f"./{name}.service" for name in names()]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        cwd=installed, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    # Of ours alone: this machine's own units may be wrong.
    assert [line for line in verified.stderr.splitlines() if "proxima" in line] == []
    assert verified.returncode == 0, verified.stderr
    threshold = f"--threshold={round(EXPOSURE_MAX * 10)}"
    judged = subprocess.run(
        ["systemd-analyze", "--no-pager", "security", "--offline=true", threshold, *units],
        cwd=installed, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout
    exposures = re.findall(r"Overall exposure level for (\S+)\.service: ([\d.]+)", judged.stdout)
    assert {name for name, _ in exposures} == set(names())
    assert max(float(level) for _, level in exposures) <= EXPOSURE_MAX, exposures


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in COMPOSE:
        for name, service in yaml.safe_load((INFRA / file).read_text())["services"].items():
            yield f"{file}: {name}", service


SERVICES: Final = dict(services())


@pytest.mark.parametrize("where", SERVICES)
def test_a_container_gets_nothing_but_what_it_needs(where: str) -> None:
    service, name = SERVICES[where], where.split(": ")[1]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (RAW_OF_CONTAINERS if name == "probe" else [])
    # The agent's would take its capability from it: tests/producers/test_privileges.py.
    assert service["security_opt"] == ([] if name == "probe" else ["no-new-privileges:true"])
    assert "privileged" not in service
    assert not {"pid", "ipc", "devices", "userns_mode"} & service.keys()
    assert service.get("network_mode") == ("host" if name == "probe" else None)
    assert service.get("read_only", False) is (name != "kafka"), "Kafka's image writes its own configuration"
    assert service.get("ports", []) == PUBLISHED.get(name, [])
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    if name not in FOREIGN and name != "topics":
        assert service["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]
        ports = {"worker": range(9464, 9468), "gateway": [8420]}.get(name, [9464])
        asked = asked_by(service["healthcheck"]["test"][3])
        assert asked == {f"http://127.0.0.1:{port}/healthz" for port in ports}


@pytest.mark.parametrize("where", [w for w in SERVICES if w.split(": ")[1] not in FOREIGN])
def test_a_container_sets_what_its_role_knows_and_no_secret(where: str) -> None:
    service = SERVICES[where]
    command = service["command"]
    assert service.get("entrypoint", ["proxima"]) == (["proxima-raw"] if command[0] == "probe" else ["proxima"])
    for variable, value in service["environment"].items():
        assert "PASSWORD" not in variable or variable.endswith("_FILE"), variable
        if variable == "PROXIMA_GATEWAY__TOKENS_FILE":
            assert Path(value).parent == Path("/run/tokens"), "digests, which change while it runs"
        elif variable.endswith("_FILE"):
            assert Path(value).parent == Path("/run/secrets")
            assert Path(value).name in {secret["target"] for secret in service["secrets"]}
        if where.startswith("compose.secured") or not variable.startswith("PROXIMA_REDIS"):
            assert command[0] == "topics" or knows(role_of(command), variable), variable


def test_secrets_of_a_deployment_never_come_into_the_repository() -> None:
    secured = yaml.safe_load((INFRA / "compose.secured.yaml").read_text())
    files = [entry["file"] for entry in (secured["secrets"] | secured["configs"]).values()]
    assert all(file.startswith("./deployed/") for file in files)
    assert "/infra/deployed/" in (INFRA.parent / ".gitignore").read_text().splitlines()


def test_the_image_is_nobodys_and_has_what_the_command_needs() -> None:
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    told = [line for line in lines if line and not line.startswith(("#", " "))]
    users = [line.split()[1] for line in told if line.startswith("USER ")]
    assert users == ["10001"], "one, and not root"
    assert told.index("USER 10001") < told.index('ENTRYPOINT ["proxima"]')
    assert any("--require-hashes" in line for line in told)
    assert not [
        line for line in told if line.startswith("ADD ") or re.match(r"(ARG|ENV) .*(PASSWORD|TOKEN|SECRET)", line)
    ]
    copied = {line.split()[1] for line in told if line.startswith("COPY ")}
    packages = {path.parent.name for path in INFRA.parent.glob("*/__init__.py")} - {"tests"}
    assert copied == packages | {"requirements.lock"}


def asked_by(program: str) -> set[str]:
    """What a health check's one line of Python asks for."""
    asked: set[str] = set()
    stand_in = SimpleNamespace(urlopen=lambda url, **_: asked.add(url))
    exec(program.replace("import urllib.request as r; ", ""), {"r": stand_in})  # noqa: S102 - ours, from a file of ours
    return asked


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((INFRA / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}: {document['kind']}", document


MANIFESTS: Final = dict(manifests())
PODS: Final = {name: d["spec"]["template"]["spec"] for name, d in MANIFESTS.items() if "template" in d.get("spec", {})}


@pytest.mark.parametrize("where", PODS)
def test_a_pod_gets_nothing_but_what_it_needs(where: str) -> None:
    pod, is_probe = PODS[where], where.startswith("probe")
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod.get("hostNetwork", False) is is_probe
    assert not {"hostPID", "hostIPC"} & pod.keys()
    (container,) = pod["containers"]
    allowed = container["securityContext"]
    assert allowed["capabilities"] == {"drop": ["ALL"], **({"add": RAW_OF_CONTAINERS} if is_probe else {})}
    assert allowed["allowPrivilegeEscalation"] is is_probe
    assert allowed["readOnlyRootFilesystem"] is True
    assert "privileged" not in allowed
    assert container.get("command", ["proxima"]) == (["proxima-raw"] if is_probe else ["proxima"])
    assert set(container["resources"]["limits"]) == set(container["resources"]["requests"]) == {"cpu", "memory"}
    for volume in pod["volumes"]:
        assert volume.keys() & {"configMap", "secret", "emptyDir"}
        assert volume.get("secret", {}).get("defaultMode", 0o400) == 0o400
        assert ("secret" in volume) == (volume["name"] == "secrets")
    assert all(mount["readOnly"] for mount in container["volumeMounts"] if mount["name"] != "tmp")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe, path in (("livenessProbe", "healthz"), ("readinessProbe", "readyz")):
        if is_probe:
            assert container[probe]["httpGet"] == {"path": f"/{path}", "port": "metrics"}
        else:  # of a worker all three stages answer, and whether it lives their supervisor too
            *_, program = container[probe]["exec"]["command"]
            asked = asked_by(program)
            assert asked == {f"http://127.0.0.1:{port}/{path}" for port in range(9464, 9468 - (path == "readyz"))}
    assert sorted(ports.values()) == [9464, *([] if is_probe else [9465, 9466, 9467])]
    for variable in container["env"]:
        assert knows(container["args"][0], variable["name"]), variable
        assert not re.search("PASSWORD|TOKEN|SECRET", variable["name"])


@pytest.mark.parametrize("where", [name for name in MANIFESTS if name.endswith("ConfigMap")])
def test_a_config_map_is_a_configuration_whose_secrets_are_files(where: str, tmp_path: Path) -> None:
    ((file, text),) = MANIFESTS[where]["data"].items()
    path = tmp_path / file
    path.write_text(text)
    loaded = config.load(ROLES[path.stem], path, {})
    kafka = getattr(loaded, "kafka")  # noqa: B009 - roles have it, their base has not
    assert kafka.security_protocol == "SASL_SSL"
    assert kafka.username == f"proxima-{path.stem}"
    assert kafka.password_file.parent == kafka.ca_file.parent == Path("/run/secrets/proxima")


def test_the_document_names_every_unit_and_every_port() -> None:
    text = (INFRA.parent / "docs" / "deploying.md").read_text()
    unnamed = [path.stem for path in SYSTEMD.glob("*.service") if f"`{path.stem}" not in text]
    assert unnamed == []
    assert [path.name for path in OPTIONAL if f"optional/{path.name}" not in text] == []
    ports = (config.Respond().port, config.Routes(agent_id="a", primary_region="a").port, config.Gateway().port)
    assert [port for port in ports if f" {port}" not in text] == []
    published = {port.split(":")[1] for ports_of in PUBLISHED.values() for port in ports_of}
    assert [port for port in published if f"({port})" not in text] == []
