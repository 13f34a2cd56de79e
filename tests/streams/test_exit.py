"""With what a stage ends: whoever reads its exit code knows whether Kafka or we have something to mend."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from aiokafka.errors import KafkaTimeoutError
from faust.exceptions import ProducerSendError
from schemas.errors import KafkaUnavailableError
from streams.app import _die
try:
    try:
        raise {first}
    except KafkaTimeoutError as error:
        raise ProducerSendError("Error while sending") from error
except Exception as error:
    _die(error)
"""


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("KafkaTimeoutError()", 1),  # and so Faust's from it
        ("KafkaUnavailableError('nothing could be read', where='observations-0', do='wait')", 1),
        ("ProducerSendError('No transaction producer found')", 70),
        ("ZeroDivisionError()", 70),
    ],
)
def test_a_stage_ends_with_1_when_kafka_is_away_and_with_70_when_it_is_a_bug(first: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert first.partition("(")[0] in done.stderr
