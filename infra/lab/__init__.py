"""A network of regions on this machine, with real packets and real routers, that can be broken on purpose.

    spec        which regions, transits and links, from one TOML file
    namespaces  a network namespace a node, and what runs inside
    relay       the links: a process that carries packets between TUN devices, late, lossy or not at all
    netem       the same by the kernel, for labs that ask for it
    links       says so to either, one link at a time
    routers     FRR in every namespace: eBGP over the links, BMP to the region's route monitor
    doors       ports of the machine's loopback inside the namespaces: how agents in there reach Kafka
    lab         all of it together, started and torn down
    guard       tears it down when the lab's own process has died

Needs root and /dev/net/tun, and FRR for routes. The relay works on kernels without netem.
"""
