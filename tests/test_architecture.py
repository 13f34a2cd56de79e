"""The house keeps its rooms: who may import what, that no folder escapes the import contracts, and that things say
what they are.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "streams", "producers", "sinks", "infra")

# What only one file (or folder) may import.
SOLE_IMPORTERS: dict[str, str | tuple[str, ...]] = {
    "faust": "streams/app.py",
    "mode": "streams/app.py",
    "aiokafka": "streams/app.py",
    "avro": "schemas/codec.py",
    "fastavro": "schemas/codec.py",
    "river": "streams/core/drift.py",
    "networkx": "streams/core/graph.py",
    "scapy": "producers/probes/",
    "matplotlib": "infra/plot.py",
    "cassandra": ("sinks/cassandra.py", "sinks/cassandra_connection.py", "infra/stores/cassandra_schema.py"),
    "boto3": "sinks/dynamodb_tables.py",
    "botocore": ("sinks/dynamodb_tables.py", "infra/stores/dynamodb_schema.py"),
}
PURE_FORBIDS = {"time", "random", "asyncio", "socket", "threading", "subprocess", "os", "logging", "datetime", "uuid"}
PICKLES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def modules(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_every_folder_with_python_is_known_to_the_import_contracts() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    known = set(settings["tool"]["importlinter"]["root_packages"])
    here = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert here == known == set(settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert known | {"tests"} == set(settings["tool"]["mypy"]["packages"])


def test_no_python_lies_in_a_folder_without_a_package() -> None:
    for name, _ in modules(*PACKAGES):
        assert (ROOT / name).parent.joinpath("__init__.py").exists(), f"{name} is in no package: no contract sees it"


@pytest.mark.parametrize(("library", "place"), SOLE_IMPORTERS.items())
def test_a_library_is_imported_in_one_place(library: str, place: str | tuple[str, ...]) -> None:
    importers = [name for name, tree in modules(*PACKAGES) if library in imported(tree)]
    assert [i for i in importers if not i.startswith(place)] == []


def test_in_producers_only_the_publisher_knows_the_kafka_client() -> None:
    importers = [name for name, tree in modules("producers") if "confluent_kafka" in imported(tree)]
    assert importers == ["producers/publisher.py"]


def test_the_core_imports_no_clock_chance_network_or_log() -> None:
    for name, tree in modules("streams/core"):
        assert imported(tree) & PURE_FORBIDS == set(), name


def test_nothing_unpickles() -> None:
    for name, tree in modules(*PACKAGES):
        assert imported(tree) & PICKLES == set(), name


def test_intake_starts_without_the_predictors_library_whose_import_takes_a_second() -> None:
    program = "import sys, streams.app, streams.intake; sys.exit('river' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_every_module_says_what_it_is() -> None:
    missing = [name for name, tree in modules(*PACKAGES, "tests") if not ast.get_docstring(tree)]
    assert [name for name in missing if not name.endswith("__init__.py") or not name.startswith("tests/")] == []


def test_every_folder_says_what_lives_there() -> None:
    silent = [
        f"{package.parent.relative_to(ROOT)}: {path.stem}"
        for folder in PACKAGES
        for package in sorted((ROOT / folder).rglob("__init__.py"))
        # One command a file, one kind of probe a file: their names are enough.
        if package.parent.name not in ("cli", "probes")
        for said in [ast.get_docstring(ast.parse(package.read_text())) or ""]
        for path in sorted(package.parent.glob("*.py"))
        if not path.stem.startswith("_") and not re.search(rf"\n.*\b{path.stem}\b", said)
    ]
    assert silent == []


def test_what_meets_kafka_puts_its_schema_registry_in_use() -> None:
    """Else it would write, and read, another format than the rest."""
    without = {"stores.py", "respond.py", "topics.py"}  # no Kafka, or the registry is what it is about
    loads = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / "infra" / "cli").glob("*.py"))
        for line in path.read_text().splitlines()
        if "load(" in line and "Config, config" in line and "in_use(" not in line and path.name not in without
    ]
    assert loads == []
    producing = [
        name
        for name, _ in modules("producers", "sinks", "infra", "streams")
        if ".produce(" in (text := (ROOT / name).read_text()) and "framed(" not in text
    ]
    assert producing == ["infra/doctor.py"], "it sends no record"


def test_every_public_function_of_the_contracts_and_the_core_has_a_docstring() -> None:
    missing = [
        f"{name}:{node.name}"
        for name, tree in modules("schemas", "streams")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and not _short(node)
        and not _overrides(node)
        and not _nested(tree, node)
    ]
    assert missing == []


def _overrides(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A method that a protocol describes: `streams/broker.py` says what it does."""
    protocol = ast.parse((ROOT / "streams/broker.py").read_text())
    return node.name in {n.name for n in ast.walk(protocol) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def _short(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A property or method of one statement, whose name says it."""
    return len(node.body) == 1


def _nested(tree: ast.Module, node: ast.AST) -> bool:
    return any(
        node in ast.walk(outer) and node is not outer
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_the_lock_pins_everything_by_hash_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    requirements = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert requirements
    assert lock.count("--hash=sha256:") >= len(requirements)
