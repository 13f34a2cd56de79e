"""Cassandra and DynamoDB from the side of people: made, migrated and read. The sinks write.

reading.py            what either store can be asked: history, configurations, migrations; and which one is meant
cassandra.py, cassandra_schema.py, dynamodb.py, dynamodb_schema.py
servers.py            both on this machine, from packages, for tests and benchmarks
jars.py               what those need, fetched once with Maven into the user's cache
"""
