"""Apache Kafka: run here from its own jars, and administered, ours or yours.

    jars.py      what a broker needs, fetched once with Maven (pom.xml) into the user's cache
    cluster.py   one broker or three on 127.0.0.1, started, killed and restarted; or the cluster that is there already
    node.py      one of these brokers: its folder and settings; guard.py, those of a cluster that asks who comes
    admin.py     the topic table (schemas/topics.py) on a cluster: create, describe; acls.py, the table of rights
    reader.py    topics read as they are, without a group; following.py, by a thread, for producers

The first three lines are for tests, demos and benchmarks, without a container engine. Nothing here writes records.
"""
