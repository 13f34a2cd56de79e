"""Routes as they change: what BGP peers of monitored routers announce and withdraw, live (BMP) or from files (MRT).

    update.py      one BGP UPDATE: counts of all prefixes, and what it says of the followed ones
    paths.py       path attributes of a followed route: its AS path, or why it counts as withdrawn (RFC 7606)
    following.py   which prefixes are followed, and for which region
    table.py       the followed routes of every peer; what has changed, told as RouteEvents
    mrt.py         MRT files, record by record, and what they add up to
    replay.py      an MRT file's events, without Kafka
    bmp.py         one router's BMP stream: messages out of bytes, and back into step after bad ones
    session.py     one router's session: what its messages do to the table
    listener.py    BMP sessions on a socket, into the table
    monitor.py     `proxima routes`: the listener, the table, and the events onto Kafka

Everything is counted, but only prefixes of configured regions are followed: a router may have a million others, and
memory is bound by what is followed. Bytes come from the network: whatever they are, nothing here raises on them.
Decoding (update, paths, bmp) and the table do no I/O, and know neither clock nor Kafka.
"""
