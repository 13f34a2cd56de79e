"""Of what puts records on topics: the publisher on a real broker, probes on real sockets, the trace player."""
