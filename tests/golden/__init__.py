"""Journals recorded once, and beside each the decisions that it leads to: what the engine decides cannot change unseen.

    NAME.journal.gz          a journal as `proxima tail observations --raw` writes it; `scripts.py` tells what happens
    NAME.decisions.jsonl     one line a ranking; its `decision_id` covers every byte of it
    decisions.py             folds a journal into such lines, and tells two of them apart in words

    python -m tests.golden accept    (`make golden`) the decisions of today are right: write them down
    python -m tests.golden record    write the journals again too, from their scripts

The configuration in a journal states its whole policy, so other defaults change nothing here.
"""
