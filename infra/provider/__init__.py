"""A network provider's API as Proxima asks it for bandwidth.

openapi.json    what the actuator (sinks/actuators/provider.py) relies on, and nothing more
simulator.py    a provider as a process of its own, honest or with a fault, for tests and for trying things out
"""
