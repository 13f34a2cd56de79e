"""What takes records off topics and puts them where others look: one target a file.

    sink.py           what a sink has to be
    runner.py         the one consumer loop that every sink runs in
    reading.py        from a record's bytes to a sink's batch; dead_letters.py, where one goes that it cannot read
    offsets.py        how far each partition is taken, has reached the store, and is committed
    availability.py   whether the store takes what it is given, and when it is asked again
    brokers.py        whether the brokers answer, and let us in
    gauges.py         what the loop shows of itself
    rendering.py      a ranking as JSON text
    redis.py          the latest ranking of every primary, served: two keys and a channel
    jsonlines.py      every ranking as a line of a file
    actuators/        what remedies ask for, done to paths, and told
    kept.py           what the two stores keep of a record, and when a configuration comes into force
    cassandra.py      path metrics, rankings and configurations in Cassandra (cassandra_connection.py: its session) ...
    dynamodb.py       ... and in DynamoDB (dynamodb_tables.py: its client, names and failures)
    webhook.py        every ranking POSTed to a destination: signing.py signs it, courier.py tries until it is there
    several.py        several sinks in one process

A sink writes idempotently and refuses to go back to a lower `sequence`, so that a record may come twice, late, or from
two sinks at once. It never decides anything. Imports the schemas; meets the rest of Proxima on Kafka alone.
"""
