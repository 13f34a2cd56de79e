"""Speed beside a yardstick in the same run, as ratios: `make bench`, or `python -m tests.bench NAME`.

Machines are noisy: nothing here asserts an absolute time. A figure counts only beside the yardstick of its own run.
"""
