"""Regions and failover configurations onto `failover-config`, and what became of them.

The next ranking of a primary says that a configuration was accepted or rejected (CONFIG_ACCEPTED, CONFIG_REJECTED), but
not whose: several may be applied at the same moment, under the same version. Whose was first is said by the topic; so
an answer is that order's, told when a worker has said that it went by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from infra.asking import Answer, Place, Question, ask, known, standing
from infra.configuration import Draft, numbered
from schemas.errors import ConfigError
from schemas.records import Event, FailoverConfiguration, FailoverRanking, RegionCatalog


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
    asked: dict[int, _Asked] = {}  # by the question's number
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
        asked[len(questions)] = judging = _Asked(record, answer)
        questions.append(Question(answer.what, record, answer, judging.hear))

    def sent(places: Sequence[Place]) -> None:
        found = standing(bootstrap, [places[number] for number in asked], prefix) if asked else {}
        for number, judging in asked.items():
            judging.winner = found[places[number]]

    ask(bootstrap, questions, prefix=prefix, timeout_s=timeout_s, sent=sent)
    return answers


@dataclass(slots=True)
class _Asked:
    """A configuration that was sent, and what the topic's order made of it."""

    record: FailoverConfiguration
    answer: Answer
    winner: FailoverConfiguration | None = None
    """In force after ours had been judged: ours, if it won."""

    def hear(self, ranking: FailoverRanking) -> None:
        """Take a worker's word that it has judged."""
        if ranking.primary_region != self.record.primary_region:
            return
        accepted = Event.CONFIG_ACCEPTED in ranking.events
        rejected = Event.CONFIG_REJECTED in ranking.events
        if self.winner == self.record:
            if accepted and ranking.config_version >= self.record.version:  # it may tell of the next too
                self.answer.outcome, self.answer.reason = "accepted", ranking.reason
            elif rejected:  # another's, if not by a worker that has not the whole topic
                self.answer.said = _first(ranking.config_version, None)
        elif accepted or rejected:
            # A ranking with the winner's acceptance may be the last that says anything: those after it are alike.
            self.answer.outcome = "rejected"
            self.answer.reason = _first(ranking.config_version, self.winner)


def _first(version: int, winner: FailoverConfiguration | None) -> str:
    by = ""
    if winner is not None:
        version, by = winner.version, f" by {winner.author or 'nobody named'}"
    return f"version {version}{by} is in force; look at it with `config get`, and base on it"


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
