"""`python -m tests.bench [NAME ...]`: run the benchmarks and print one JSON line a result."""

from __future__ import annotations

import importlib
import json
import sys

BENCHES = (
    "intake_speed",
    "fold_speed",
    "engine_speed",
    "network_speed",
    "routes_speed",
    "gateway_speed",
    "prediction_speed",
    "prediction_models",
    "day_replay",
    "cassandra_speed",
    "dynamodb_speed",
    "probe_accuracy",
    "probe_scale",
    "probe_syn",
    "probe_bandwidth",
    "readiness_speed",
)


def main(names: list[str]) -> None:
    for name in names or BENCHES:
        for result in importlib.import_module(f"tests.bench.{name}").run():
            print(json.dumps({"bench": name, **result}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
