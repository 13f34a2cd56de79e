"""The pure part: same records in, same bytes out. No clock, no chance, no I/O, no log.

    numbers.py      rounding, bounds and quantiles that decisions rest on
    panes.py        probe samples condensed into panes (intake's half)
    rows.py         rows of panes, as a record has them: which count, where they are cut, what their failures mean
    paths.py        rolling state of a primary's paths, one view an agent and target (decide's half)
    jumps.py        what an agent's last two batches prove alone
    stretch.py      several records taken in together, and the views between them
    routes.py       what BGP says of the candidates
    agents.py       who may speak for a region
    views.py        what the agents say together: quorum, suspects, metrics of each path
    injected.py     metrics from outside, until they expire
    trust.py        whom of those who inject is believed, and how far
    bandwidth.py    capacity of each path, as measured last
    candidates.py   the candidates as configuration and catalogue name them
    baseline.py     weight of a path before anything is measured: proximity and capacity
    weights.py      utilities of what is measured, and the network weight
    gates.py        what a candidate has to pass, however good its score
    ranking.py      scores, order, mode; ranked.py, what they came to and why
    sensitivity.py  how sure an order is, and what would change it
    damping.py      who may not be chosen yet, because it failed: ejection and failback
    directives.py   operators' pins, drains and freezes in force
    holddown.py     when a better target may replace the one in use
    choice.py       the target in use, by all of these
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
    model.py        what is learnt and handed on together: predictor and foresight
    readiness.py    whom to ask in time whether it is ready; reports.py, what probers answered
    verdicts.py     what the whole network says about the primary, as far as it counts here
    graph_says.py   what the engine tells the stage that looks at the whole network
    engine_state.py what an engine remembers of all this
    decision.py     what is decided at a moment, and what is published of it
    engine.py       FailoverEngine: all of it for one primary

  of the whole network:
    graph.py        regions and directed paths; the only importer of networkx
    terms.py        what is needed of each primary's configuration and latest update
    route_table.py  ways between regions as arrays; transits.py, which networks lie on them
    blame.py        whose fault it is; suspicions.py, for how long
    primary_health.py   whether a primary is up, by quorum of observers in other regions
    shared_risk.py  what would fail together
    capacity.py     capacity that several primaries count on, counted once
    nodes.py        what of the graph is published
    planning.py     what a planner of paths is; mending.py, the one there is
    degradation.py  whether a path is bad now, against what it was
    remedies.py     remedies of one primary: remedy_states.py is the table, remedy.py one under treatment,
                    remedy_records.py and remedy_words.py what is published of it
    network_engine.py   NetworkEngine: all of it, and the planners

    state.py        an engine's state as columns and scalars, to a snapshot and back

May import schemas, numpy, river and networkx. An import contract holds this.
"""
