"""What requests and answers look like. The OpenAPI document is made of these, and they are what checks a body.

A metric is one of six, told apart by its `metric`, so that each has its own range in the document as well. The ranges
are those of `schemas/validate.py`, which judges every way in.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationInfo,
    field_validator,
)

from schemas.validate import AT_MS_MAX, METRICS, REGION_ID, SOURCE, TTL_MS_MAX

_REGION: Final = f"^{REGION_ID.pattern}$"


def _whole(value: Any) -> Any:
    """5.0 is a whole number in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_AtMs = Annotated[int, Field(ge=0, le=AT_MS_MAX), BeforeValidator(_whole)]
_TtlMs = Annotated[int, Field(ge=1, le=TTL_MS_MAX), BeforeValidator(_whole)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class _Metric(_Strict):
    primary_region: str = Field(pattern=_REGION, description="the region whose failover it concerns")
    target_region: str | None = Field(None, pattern=_REGION, description="what it is about; null: the primary itself")
    metric: str
    value: float
    source: str | None = Field(None, pattern=f"^{SOURCE.pattern}$", description="the token's, if it is said at all")
    observed_at_ms: _AtMs | None = Field(None, description="Unix, ms; null: now")
    ttl_ms: _TtlMs = Field(60_000, description="it counts for so long")

    @field_validator("target_region")
    @classmethod
    def _is_another(cls, value: str | None, so_far: ValidationInfo) -> str | None:
        if value is not None and value == so_far.data.get("primary_region"):
            raise ValueError("is the primary itself: null means that, and of it healthy alone is heard")
        return value


class _OfPath(_Metric):
    target_region: str = Field(pattern=_REGION, description="the other end of the path")


def _range(name: str) -> Any:
    low, high = METRICS[name]
    return Field(ge=low, le=high)


class Latency(_OfPath):
    """Round-trip time of the path."""

    metric: Literal["latency_ms"]
    value: float = _range("latency_ms")


class Loss(_OfPath):
    """Share of packets lost."""

    metric: Literal["loss_ratio"]
    value: float = _range("loss_ratio")


class DelayVariation(_OfPath):
    """RFC 5481: a high quantile of the delay, less the least."""

    metric: Literal["delay_variation_ms"]
    value: float = _range("delay_variation_ms")


class Bandwidth(_OfPath):
    """Capacity of the path, bits a second."""

    metric: Literal["bandwidth_bps"]
    value: float = _range("bandwidth_bps")


class Capacity(_OfPath):
    """Share of the region's capacity that is left."""

    metric: Literal["capacity_ratio"]
    value: float = _range("capacity_ratio")


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # false is 0 to Python, and to nobody else
        raise ValueError("is a boolean, not 0 or 1")
    return value


class Healthy(_Metric):
    """Whether the region serves: 1, or 0."""

    metric: Literal["healthy"]
    value: Annotated[Literal[0, 1], BeforeValidator(_number)]


Metric = Annotated[
    Latency | Loss | DelayVariation | Bandwidth | Capacity | Healthy,
    Field(discriminator="metric"),
]


def body_adapter(batch_max: int) -> TypeAdapter[Any]:
    """What POST /v1/metrics takes: one metric, or up to `batch_max` of them. Gives a metric, or a `Batch`."""

    class Batch(_Strict):
        """Several metrics: all are accepted, or none."""

        metrics: list[Metric] = Field(min_length=1, max_length=batch_max)

    def kind(value: Any) -> str:
        if isinstance(value, dict):
            return "batch" if "metrics" in value else "one"
        return "batch" if isinstance(value, Batch) else "one"

    body = Annotated[Annotated[Metric, Tag("one")] | Annotated[Batch, Tag("batch")], Discriminator(kind)]
    return TypeAdapter(body)


class Accepted(BaseModel):
    """202: the broker has confirmed them, which is all that is promised; what they move is the fold's business."""

    accepted: int = Field(ge=0, description="records on the topic")


class Problem(BaseModel):
    """RFC 9457, problem+json: what was wrong, and what to do."""

    type: str = Field("about:blank", description="always about:blank: `title` is that of the status")
    title: str
    status: int
    detail: str
    mistakes: list[str] = Field(default_factory=list, description="each with its place, when a body is wrong")


class Health(BaseModel):
    """Whether it lives, or is ready."""

    status: Literal["ok"]
