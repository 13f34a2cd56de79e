"""The pure part: same records in, same bytes out. No clock, no chance, no I/O, no log.

    numbers.py      rounding, bounds and quantiles that decisions rest on
    panes.py        probe samples condensed into panes (intake's half)
    paths.py        rolling state of a primary's paths, one view an agent and target (decide's half)
    views.py        what the agents say together: quorum, suspects, metrics of each path
    injected.py     metrics from outside, until they expire
    trust.py        whom of those who inject is believed, and how far
    baseline.py     weight of a path before anything is measured: proximity and capacity
    weights.py      utilities of what is measured, and the network weight
    ranking.py      gates, scores, order, mode
    sensitivity.py  how sure an order is, and what would change it
    damping.py      who may not be chosen yet, because it failed: ejection and failback
    directives.py   operators' pins, drains and freezes in force
    holddown.py     when a better target may replace the one in use
    shown.py        what the last published ranking said, and whether another is due
    reason.py       a ranking's reason, as a sentence
    prediction_signs.py   what may announce a disruption, and what is believed of it
    prediction_model.py   a Bayesian logistic regression, learnt online
    prediction.py   disruptions predicted with both, and labels that arrive late
    outcomes.py     what was said of paths and what came of it; climatology, the yardstick
    skill_bound.py  how surely a model is better than that
    skill.py        how good probabilities were, from arrays
    alarms.py       leads and false alarms
    scorecard.py    a model's record, in sums of fixed size
    drift.py        Page-Hinkley: whether a mean has fallen
    influence.py    how far a model may count
    foresight.py    what follows for the scores: scorecard, influence, demotion
    readiness.py    whom to ask in time whether it is ready
    engine.py       FailoverEngine: all of it for one primary
    state.py        an engine's state as columns and scalars, to a snapshot and back

May import schemas, numpy, river and networkx. An import contract holds this.
"""
