"""Regions, failover configurations and policies from files; how the first two stand to what is in force.

A file (TOML, or JSON of the same structure) has a catalogue (`version`, `[[regions]]`), `[[configurations]]`, or both;
one configuration may also stand alone at the top. Configurations change by compare-and-set, judged where all decisions
are: a configuration is accepted if it is `based_on` the version in force. A file that says neither `version` nor
`based_on` means "after whatever is in force when it is applied"; one that says them is protected against an edit by
somebody else in between.

`read_draft` finds every mistake at once: what a mistake hides (a record that cannot be built is not judged any
further) is replaced by a stand-in, and the rest is judged too.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from schemas.codec import from_plain, to_plain
from schemas.errors import CodecError, ConfigError
from schemas.records import FailoverConfiguration, Policy, RegionCatalog
from schemas.validate import mistakes, policy_mistakes

_TOP: Final = ("version", "regions", "configurations")
# Takes the place of what is missing or of a wrong type; no mistake about it is told.
_STAND_IN: Final = "stand-in"
_STAND_INS: Final[Mapping[str, Any]] = {
    "primary_region": f"{_STAND_IN}-primary",
    "potential_failover_regions": [_STAND_IN],
    "region_id": _STAND_IN,
    "url": f"tcp://{_STAND_IN}:1",
    "latitude": 0.0,
    "longitude": 0.0,
    "regions": [],
    "version": 1,
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What a file asks for; a version of 0 is to be found when it is applied."""

    catalogue: RegionCatalog | None = None
    configurations: list[FailoverConfiguration] = field(default_factory=list)


def read_draft(path: Path) -> Draft:
    """The file's catalogue and configurations; raises ConfigError with every mistake and its place."""
    draft, found = checked(_parsed(path))
    if found:
        raise ConfigError(found, where=str(path))
    return draft


def read_policy(path: Path) -> Policy:
    """A policy alone in a file: its fields at the top, or under [policy]; what is not said has its default.

    Raises ConfigError with every mistake and its place.
    """
    plain = _parsed(path)
    if not isinstance(plain, dict):
        raise ConfigError(["the file is no table (in JSON: no object)"], where=str(path))
    found: list[str] = []
    under = ""
    if isinstance(plain.get("policy"), dict):
        found = [f"{key} is unknown beside [policy]" for key in plain if key != "policy"]
        plain, under = plain["policy"], "policy."
    policy, more = _judged_policy(plain)
    found += [under + mistake for mistake in more]
    if found or policy is None:
        raise ConfigError(found, where=str(path))
    return policy


def _judged_policy(stated: dict[str, Any]) -> tuple[Policy | None, list[str]]:
    plain = copy.deepcopy(stated)
    wrong: list[str] = []
    try:
        from_plain(Policy, plain)
    except CodecError as error:
        wrong = error.what.split("; ")
        for mistake in wrong:
            _mend(plain, mistake)
    try:
        policy = from_plain(Policy, plain)  # with the default in place of what is wrong
    except CodecError:
        return None, wrong
    return policy, wrong + [mistake.replace("policy.", "") for mistake in policy_mistakes(policy)]


def checked(plain: Any) -> tuple[Draft, list[str]]:
    """What a parsed file asks for, as far as it can be understood, and every mistake in it."""
    if not isinstance(plain, dict):
        return Draft(), ["the file is no table (in JSON: no object)"]
    if "primary_region" in plain or "potential_failover_regions" in plain:
        configuration, found = _judged(FailoverConfiguration, plain, "")
        return Draft(None, [configuration] if configuration else []), found
    found = [f"{key} is unknown: a file has {', '.join(_TOP)}" for key in plain if key not in _TOP]
    catalogue = None
    if "regions" in plain or "version" in plain:
        stated = {key: plain[key] for key in ("version", "regions") if key in plain}
        catalogue, more = _judged(RegionCatalog, stated, "")
        found += more
    given = plain.get("configurations", [])
    if not isinstance(given, list):
        given, found = [], [*found, "configurations is no list: write [[configurations]]"]
    configurations = []
    for number, stated in enumerate(given):
        configuration, more = _judged(FailoverConfiguration, stated, f"configurations[{number}]")
        found += more
        if configuration is not None:
            configurations.append(configuration)
    if not any(key in plain for key in ("regions", "configurations")):
        found.append("there is neither a region nor a configuration in it")
    return Draft(catalogue, configurations), found + _across(catalogue, configurations)


def in_force(records: Iterable[FailoverConfiguration]) -> FailoverConfiguration | None:
    """Of one primary's configurations, in the order of the topic, the one that compare-and-set leaves in force."""
    found: FailoverConfiguration | None = None
    for record in records:
        found = after(found, record)
    return found


def after(found: FailoverConfiguration | None, record: FailoverConfiguration) -> FailoverConfiguration | None:
    """What is in force when the next record of the same primary has been judged: it, or what was before."""
    is_next = not mistakes(record) and record.based_on == (found.version if found is not None else 0)
    return record if is_next else found


def numbered(record: FailoverConfiguration, current: FailoverConfiguration | None) -> FailoverConfiguration:
    """With a version after the current one, if the file left that open; the current one itself if it says the same."""
    if record.version:
        return record
    version = current.version if current is not None else 0
    same = replace(record, version=version, based_on=current.based_on if current is not None else 0)
    return same if same == current else replace(record, version=version + 1, based_on=version)


def as_toml(record: FailoverConfiguration | RegionCatalog) -> str:
    """The record as a file that can be edited and applied; a policy's defaults are written out."""
    plain = to_plain(record)
    if isinstance(record, RegionCatalog):
        return f"version = {record.version}\n" + "".join(f"\n[[regions]]\n{_lines(r)}" for r in plain["regions"])
    tables = {name: plain.pop(name) for name in ("weights", "policy", "remedy_limits")}
    remedies = plain.pop("remedies")
    text = "[[configurations]]\n" + _lines(plain)
    text += "".join(f"\n[configurations.{name}]\n{_lines(table)}" for name, table in tables.items() if table)
    return text + "".join(f"\n[[configurations.remedies]]\n{_lines(remedy)}" for remedy in remedies)


def _lines(table: Mapping[str, Any]) -> str:
    said = {key: value for key, value in table.items() if value is not None}  # TOML has no null: it is the default
    return "".join(f"{key} = {_value(value)}\n" for key, value in said.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        said = {key: held for key, held in value.items() if held is not None}
        return f"{{ {', '.join(f'{key} = {_value(held)}' for key, held in said.items())} }}"
    # What json writes of strings and numbers is TOML too, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _parsed(path: Path) -> Any:
    try:
        text = path.read_text()
        return json.loads(text) if path.suffix == ".json" or text.lstrip()[:1] == "{" else tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(["there is no such file"], where=str(path)) from None
    except (OSError, ValueError, RecursionError) as error:  # both decoders' errors are ValueErrors
        raise ConfigError([str(error)], where=str(path)) from None


def _judged(cls: type[Any], stated: Any, where: str) -> tuple[Any, list[str]]:
    """The record, with stand-ins for what is wrong (None: it cannot be built); its mistakes, of type and of sense."""
    if not isinstance(stated, dict):
        return None, [f"{where} is no table"]
    plain = copy.deepcopy(stated)
    open_version = "version" not in plain
    if open_version:
        plain["version"] = plain["based_on"] + 1 if isinstance(plain.get("based_on"), int) else 1
    found: list[str] = []
    for _ in range(4):  # removing what is wrong may leave something missing
        try:
            record = from_plain(cls, plain)
        except CodecError as error:
            wrong = error.what.split("; ")
            found += wrong if not found else []
            for mistake in wrong:
                _mend(plain, mistake)
            continue
        senseless = [m for m in mistakes(record) if _STAND_IN not in m]
        found += senseless
        if open_version and "based_on" not in plain:
            record = replace(record, version=0)
        return record, [f"{where}.{m}" if where else m for m in found]
    return None, [f"{where}.{m}" if where else m for m in found]


def _mend(plain: dict[str, Any], mistake: str) -> None:
    """Take away what `mistake` (of `codec.from_plain`: its place comes first) is about, or put a stand-in there."""
    place, _, what = mistake.partition(" is ")
    steps: list[str | int] = [int(n) if n else name for name, n in re.findall(r"([^.\[\]]+)|\[(\d+)\]", place)]
    at: Any = plain
    try:
        for step in steps[:-1]:
            at = at[step]
        last = steps[-1]
        if what == "missing":
            at[last] = copy.deepcopy(_STAND_INS.get(str(last)))
        elif isinstance(at, list):
            at[int(last)] = {"region_id": _STAND_IN, "latitude": 0.0, "longitude": 0.0} if at is plain.get("regions") \
                else _STAND_IN  # fmt: skip
        else:
            del at[last]
    except (LookupError, TypeError, ValueError):
        return


def _across(catalogue: RegionCatalog | None, configurations: list[FailoverConfiguration]) -> list[str]:
    """What only the whole file shows, of what is no stand-in."""
    primaries = [c.primary_region for c in configurations if _is_stated(c.primary_region)]
    found = [
        f"configurations: {p} is configured twice" for p in sorted({p for p in primaries if primaries.count(p) > 1})
    ]
    known = {region.region_id for region in catalogue.regions} if catalogue is not None else set()
    if catalogue is None or not all(map(_is_stated, known)):  # a region that cannot be read may be the one
        return found
    named = {region.region_id: region.agents for region in catalogue.regions if region.agents}
    for c in configurations:
        for agent in c.policy.must_be_healthy if c.primary_region in named else ():
            if agent not in named[c.primary_region]:
                found.append(f"configurations: {c.primary_region}: {agent} must be healthy, and is none of its agents")
        if _is_stated(c.primary_region) and c.primary_region not in known:
            found.append(f"configurations: {c.primary_region} is none of the regions")
        for region in c.potential_failover_regions:
            if _is_stated(region) and region not in known | {c.primary_region, *c.weights}:
                found.append(f"configurations: {c.primary_region}: {region} is none of the regions, and has no weight")
    return found


def _is_stated(region_id: str) -> bool:
    return not region_id.startswith(_STAND_IN)
