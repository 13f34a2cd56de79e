"""The stream processors: from raw samples to failover rankings, as pure folds over ordered journals.

    core/         the pure part: panes, path state, weights, ranking, hold-down, prediction, the engine
    fold.py       one journal partition folded: watermark, time, ticks, engines, rollback; no I/O
    journal.py    the file format of a journal, for replays without a broker
    broker.py     what a stage needs of Kafka, as a protocol
    letters.py    dead letters, the same bytes whichever stage writes them
    intake.py     stage 1: validates, condenses samples into panes, re-keys by primary into `observations`
    decide.py     stage 2: restores, folds, publishes, snapshots, commits
    app.py        Faust and aiokafka, and everything that they do wrong; the only importer of both
    replay.py     a journal folded again, from a file or from the topic; parallel.py, by several processes
    backtest.py   history under other policies, beside yardsticks; backtest_journal.py does it with a journal
    warmup.py     a new model learns from the journal's history, beside the fold
    trace_files.py   a directory of recorded round-trip times

May import schemas; never producers, sinks or infra.
"""
