"""What acts upon paths: takes `path-actions`, and says on `action-results` what became of each.

    sink.py       the Sink: what comes in, who may have what done, and when; what goes out
    log.py        what was begun and done, on disk before and after
    stops.py      operators' stop-actions
    results.py    the producer of `action-results`, and what time the brokers have
    actuator.py   what an actuator has to be: set a state, and look whether it is so
    frr.py        routing policy and sessions of FRRouting, by a fixed table of commands; vty.py is its socket
    link.py       an interface up or down
    provider.py   a provider's HTTP API

An action names a remedy, and the actuator's own file says what that is. Every actuator looks whether the state is there
already, sets it, and looks again: so repeating has no further effect, and "yes" alone convinces nobody.
"""
