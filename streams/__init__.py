"""The stream processors: from raw samples to failover rankings, as pure folds over ordered journals.

    core/         the pure part: panes, path state, weights, ranking, hold-down, prediction, graph, the two engines
    folding.py    one journal partition folded: watermark, time, ticks, rollback; no I/O
    fold.py       ... of `observations`, by an engine a primary; refold.py, many records at a time
    network_fold.py   ... of `graph-updates`, by the engine of the whole network
    journal.py    the file format of a journal, for replays without a broker
    broker.py     what a stage needs of Kafka, as a protocol
    letters.py    dead letters, the same bytes whichever stage writes them
    intake.py     stage 1: validates, condenses samples into panes, re-keys by primary into `observations`
    refusal.py    what intake refuses of a record, and why
    stage.py      what stages 2 and 3 have in common: restores, folds, publishes, snapshots, commits
    decide.py     stage 2: `observations` into weights, predictions and rankings
    overview.py   stage 3: what decide says of every primary into graph, verdicts and path actions
    admission.py  before a stage runs: are its topics there, and may it?
    gauges.py     what a stage shows of itself, for Prometheus
    app.py        Faust and aiokafka, and everything that they do wrong; the only importer of both
    unpacking.py  bounds on what a compressed batch unpacks to, which aiokafka has not
    replay.py     a journal folded again, from a file or from the topic; parallel.py, by several processes
    backtest.py   history under other policies, beside yardsticks; backtest_journal.py does it with a journal
    warmup.py     a new model learns from the journal's history, beside the fold
    trace_files.py   a directory of recorded round-trip times; labelled.py, with a person's change points

May import schemas; never producers, sinks or infra.
"""
