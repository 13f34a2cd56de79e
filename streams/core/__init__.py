"""The pure part: same records in, same bytes out. No clock, no chance, no I/O, no log.

    numbers.py      rounding, bounds and quantiles that decisions rest on
    panes.py        probe samples condensed into panes (intake's half)
    paths.py        rolling state of a primary's paths (decide's half)
    baseline.py     weight of a path before anything is measured: proximity and capacity
    weights.py      utilities of what is measured, and the network weight
    ranking.py      gates, scores, order, and why
    holddown.py     when a better target may replace the one in use
    prediction.py   disruptions learnt online; the only importer of river
    engine.py       FailoverEngine: all of it for one primary
    state.py        an engine's state as columns and scalars, to a snapshot and back

May import schemas, numpy, river and networkx. An import contract holds this.
"""
