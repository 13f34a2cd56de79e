"""What puts records on topics: measurements of the network between regions, and who measures.

    publisher.py   records onto Kafka, with a bounded queue for what may be dropped; the only importer of
                   confluent_kafka here
    probes/        one kind of probe a file: how one question is put to the network and timed
    agent.py       the loop of `proxima probe`: targets x methods, paced, one ProbeBatch a tick
    routes/        BGP: routes to the regions as routers' peers announce and withdraw them, by BMP or from files
    gateway/       `proxima gateway`: metrics in and rankings out by HTTP
    client.py      injects through it, in three lines
    pacer.py, tick.py, stalls.py, capacity.py, privileges.py       what that loop is made of
    signals.py     when a program of ours has to end
    responder.py   `proxima respond`: the far end of bandwidth trains
    traces.py      the recorded measurements in data/, as arrays
    trace.py       the trace player: agents that play recordings instead of probing
    data/          measurements that others made on real networks, with their licences

What must not live here: anything that decides or condenses (streams), stores (sinks) or starts processes (infra).
Imports schemas only. scapy is for the probe programs alone, never for publisher, traces or trace.
"""
