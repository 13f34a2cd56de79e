"""Regions and failover configurations onto `failover-config`, and what became of them.

The next ranking of a primary says whether its configuration is accepted (CONFIG_ACCEPTED or CONFIG_REJECTED).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from infra.asking import Answer, Question, ask, known
from infra.configuration import Draft, numbered
from schemas.errors import ConfigError
from schemas.records import Event, FailoverRanking, RegionCatalog


def apply_draft(bootstrap: str, draft: Draft, *, prefix: str = "", timeout_s: float = 30.0) -> list[Answer]:
    """Send all of it, and wait for the answers; only a catalogue that is there already is not sent again.

    A configuration that is in force already is sent too: the topic shows what was asked for, a worker's answer shows
    what it goes by, and to the same question it gives the same answer.

    Raises ConfigError: the catalogue's version is not above the applied one, so it would be ignored. Raises
    KafkaUnavailableError or DeliveryError: nothing, or not everything, was sent.
    """
    now = known(bootstrap, prefix)
    answers: list[Answer] = []
    questions: list[Question] = []
    if draft.catalogue is not None:
        catalogue = _numbered_catalogue(draft.catalogue, now.catalogue)
        unchanged = catalogue == now.catalogue
        answers.append(Answer("regions", catalogue.version, "unchanged" if unchanged else "sent"))
        if not unchanged:
            questions.append(Question("regions", catalogue, answers[-1], lambda _: None))
    for stated in draft.configurations:
        record = numbered(stated, now.configurations.get(stated.primary_region))
        answer = Answer(record.primary_region, record.version)
        answers.append(answer)
        questions.append(Question(answer.what, record, answer, partial(_hear, answer)))
    ask(bootstrap, questions, prefix=prefix, timeout_s=timeout_s)
    return answers


def _hear(answer: Answer, ranking: FailoverRanking) -> None:
    if answer.what != ranking.primary_region:
        return
    if Event.CONFIG_ACCEPTED in ranking.events and ranking.config_version == answer.version:
        answer.outcome, answer.reason = "accepted", ranking.reason
    elif Event.CONFIG_REJECTED in ranking.events:
        answer.outcome = "rejected"
        answer.reason = f"version {ranking.config_version} is in force; look at it with `config get`, and base on it"


def _numbered_catalogue(stated: RegionCatalog, current: RegionCatalog | None) -> RegionCatalog:
    applied = current.version if current is not None else 0
    if current is not None and stated.regions == current.regions and stated.version in (0, applied):
        return current
    if stated.version == 0:
        return replace(stated, version=applied + 1)
    if stated.version <= applied:
        raise ConfigError(
            [f"the catalogue's version {stated.version} is not above {applied}, which is applied"],
            where="failover-config",
            do="raise it, or leave it out",
        )
    return stated
