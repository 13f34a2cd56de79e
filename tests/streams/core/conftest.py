"""Properties without a deadline: two busy cores say nothing about the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("proxima", deadline=None)
settings.load_profile("proxima")
