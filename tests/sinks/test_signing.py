"""Signatures as the Standard Webhooks want them, and secrets that are never shown."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from schemas.webhook import Destination
from sinks.signing import keys_of, signed_headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - everybody's


def destination(**changed: object) -> Destination:
    return Destination.model_validate({"name": "d", "url": "https://hooks.example.com", **changed})


def test_a_signature_is_the_one_that_others_libraries_make() -> None:
    """Their own test vector."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    headers = signed_headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_every_secret_of_files_and_variables_signs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = ["whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in range(2)]
    (tmp_path / "secrets").write_text(f"{SECRET}\n{others[0]}\n\n")
    monkeypatch.setenv("MY_SECRET", f"{others[1]} {SECRET}")
    keys = keys_of(destination(secret_files=[tmp_path / "secrets"], secret_env=["MY_SECRET"]))
    assert len(keys) == 3
    assert signed_headers(keys, "i", 1, b"")["webhook-signature"].count("v1,") == 3


def test_what_is_wrong_with_secrets_is_said_all_at_once_without_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = "whsec_" + base64.b64encode(b"hunter2" * 2).decode()
    (tmp_path / "bad").write_text(f"plain-hunter2\n{short}\nwhsec_###\n")
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ConfigError) as raised:
        keys_of(destination(secret_files=[tmp_path / "bad", tmp_path / "none"], secret_env=["NOT_THERE"]))
    said = str(raised.value)
    assert len(raised.value.mistakes) == 5
    assert "hunter2" not in said
    assert short not in said
    assert "has 14 bytes, not 24 to 64" in said
    assert "variable NOT_THERE holds no secret" in said


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"url": "http://hooks.example.com/x"}, "plain http"),
        ({"url": "ftp://127.0.0.1/x"}, "has to begin with"),
        ({"url": "https:///x"}, "has to begin with"),
        ({"url": "https://user:hunter2@hooks.example.com"}, "no place for secrets"),
        ({"url": "https://hooks.example.com:99999/"}, "url is none"),
        ({"url": "https://hooks.example.com/#x"}, "fragment"),
        ({"secret_env": []}, "could be anybody's"),
        ({"events": ["RUMOUR"]}, "Input should be"),
        ({"primaries": ["Not A Region"]}, "no region's name"),
        ({"breaker_open_ms": 60_000}, "above"),
        ({"name": "Not A Name"}, "match pattern"),
    ],
)
def test_a_destination_that_is_wrong_or_unsafe_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        destination(**{"secret_env": ["S"]} | wrong)
    assert "hunter2" not in "; ".join(e["msg"] for e in raised.value.errors())  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/x", "http://[::1]/x", "http://localhost/x"])
def test_plain_http_is_for_loopback_or_whoever_says_so(url: str) -> None:
    assert destination(url=url, secret_env=["S"]).url == url
    assert destination(url="http://10.0.0.1/", secret_env=["S"], allow_http=True).allow_http
