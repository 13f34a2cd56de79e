"""A model's scorecard in one line, for people."""

from __future__ import annotations

from infra.times import lasting
from infra.words import clean, percent
from schemas.records import PredictionScorecard

_TRUST = {
    "WARMING": "too little is known of it yet, so it has no influence",
    "SHADOW": "it is not surely better than each path's own past rate, so it has no influence",
    "TRUSTED": "it has {influence} of its influence",
}


def in_a_line(card: PredictionScorecard) -> str:
    """Model, trust, skill with its bound, AUC and false alarms; what is not known yet is left out."""
    trust = _TRUST.get(card.trust, clean(card.trust)).replace("{influence}", percent(card.influence))
    figures = []
    if card.skill is not None:
        bound = f" (surely above {_signed(card.skill_low)})" if card.skill_low is not None else ""
        figures.append(f"skill {_signed(card.skill)}{bound}")
    if card.auc_pooled is not None:
        within = f", {card.auc_within:.2f} within a path" if card.auc_within is not None else ""
        figures.append(f"AUC {card.auc_pooled:.2f}{within}")
    if card.foretold_ratio is not None:
        lead = f" {lasting(round(card.lead_ms))} before" if card.lead_ms else ""
        figures.append(f"{percent(card.foretold_ratio)} of disruptions foretold{lead}")
    if card.false_alarms_per_day is not None:
        figures.append(f"{card.false_alarms_per_day:.1f} false alarms a day")
    return f"Prediction by {clean(card.model)}: {trust}{'; ' if figures else ''}{', '.join(figures)}."


def _signed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) < 10 else f"{value:+.0f}"
