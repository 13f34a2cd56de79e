"""Apache Kafka: run here from its own jars, and administered, ours or yours.

    jars.py      what a broker needs, fetched once with Maven (pom.xml) into the user's cache
    cluster.py   one broker or three on 127.0.0.1, started, killed and restarted; or the cluster that is there already
    admin.py     the topic table (schemas/topics.py) on a cluster: create, describe

For tests, demos and benchmarks, without a container engine. Nothing here reads or writes records.
"""
