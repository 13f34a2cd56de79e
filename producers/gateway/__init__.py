"""The HTTP API: metrics in, rankings out. What a request meets, in this order:

    guards.py       size of the body, errors as problem+json, never a stack trace
    tokens.py       who asks: tokens, hashed at rest, each with its source, scopes and rate
    limits.py       how much it may ask: a bucket of records a token
    idempotency.py  whether it asked before: the same key, the same answer
    metrics.py      POST /v1/metrics: 202 when the broker has confirmed, 503 when it has not
    rankings.py     GET /v1/rankings: the latest, and the stream of all (server-sent events)

    models.py       what requests and answers look like; the OpenAPI document comes from here
    page.py         GET /docs: the same for people, a page without scripts
    gauges.py       what it counts of itself, for Prometheus
    routes.py       the routes, with health and readiness
    app.py          puts it together
    server.py       the process: `run`; door.py, so many connections at once; connection.py, one that says nothing
                    whole, or says it without end, is closed

What must not live here: anything that judges a value. A metric is as good as its source's standing in the fold
(`streams/core/trust.py`), the same for every way in.
"""
