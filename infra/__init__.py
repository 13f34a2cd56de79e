"""What starts and wires everything: the command line, Kafka from its own jars, the demo, the live view.

    cli/               `proxima`: one module a command
    kafka/             Apache Kafka from its jars, the topics on it, readers for people and tools
    lab/               regions as network namespaces, with routers and links to break on purpose
    stores/            Cassandra and DynamoDB: schemas, readers, servers for tests
    provider/          a provider's HTTP API, described, and a simulator of one
    maven.py           jars into the user's cache, and a Java to run them
    processes.py       child processes that do not outlive us
    redis.py           a Redis server, ours or an existing one
    worker.py          the supervisor of the stages
    configuration.py   regions, configurations and policies from files; apply.py puts them on the cluster
    directives.py      operators' directives; asking.py sends both and hears the answers, audit.py says who sent what
    times.py           durations and moments as people type and read them
    history.py         where in the journal a moment is, and the checkpoint to fold from; shadow.py, another policy
                       beside the one in force
    pipeline.py        the whole pipeline on one machine; observer.py measures it from outside
    demo.py            both, with a live view
    watch.py           the live view
    explain.py         a ranking in sentences; lookup.py finds the one of a moment, words.py writes numbers
    scorecards.py, network_words.py, remedy_words.py   a model's record, a verdict, a remedy, in words
    plot.py            the picture of a backtest; the only importer of matplotlib
    doctor.py          what is missing here, and what to do; roles.py asks probers and sinks, doctor_actuators.py
                       actuators, doctor_stores.py stores and the registry, doctor_security.py how we come to Kafka;
                       doctor_roles.py a role's own file;
                       findings.py is an answer
    plans.py           whom a readiness prober checks, and who asks for it; catalogue.py, regions for route monitors;
                       rankings.py, rankings for the gateway
    actuators.py       the actuators of a file, put together
    metrics.py         metrics, health and readiness of a role, for who asks; asyncapi.py, the topic table as a document
    alerts/, dashboards/       for Prometheus and Grafana (docs/operating.md)
    examples/          a commented configuration file for every role
    systemd/           a hardened unit for every role; kubernetes/, two of them as manifests (docs/deploying.md)
    compose.yaml       everything on one machine for those with containers, with Dockerfile; compose.secured.yaml,
                       three roles on a cluster that asks who comes

May import everything; nothing imports infra.
"""
