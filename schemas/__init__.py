"""The contracts of Proxima: what a record is, where it travels, how a process is configured, how errors read.

    avsc/        the records, language-neutral: the source of truth; history/ keeps every earlier version
    records.py   the same records as frozen dataclasses (a test holds them against avsc/)
    codec.py     bytes <-> records; the only importer of avro and fastavro
    validate.py  what a schema cannot say: ranges, region ids, columns of equal length
    topics.py    the one table of topics, and which partition a key goes to
    config.py    one TOML file a role, every mistake reported at once
    errors.py    the one tree of errors

Imports nothing of ours. Everything else meets here, and on Kafka.
"""
