"""Cassandra and DynamoDB from the side of people: made, migrated and read.

    reading.py            what either store can be asked: history, configurations, migrations; and which one is meant
    cassandra.py, cassandra_schema.py, dynamodb.py, dynamodb_schema.py
    servers.py            both on this machine, from their own jars (*_pom.xml), for tests and benchmarks

The sinks write; what they and the readers share (connections, names, buckets) is theirs.
"""
