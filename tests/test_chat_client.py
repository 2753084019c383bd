"""The client of chat servers: several addresses are one server to whoever asks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from radpref import chat_client
from radpref.chat_client import Client, ClientError, Failure, Rejected
from tests.chat_server import Handler, Scripted, say, scripted, send


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "_FIRST_PAUSE", 0.02)


def client(*places: Scripted | str, **more: Any) -> Client:
    given = {"api_key_env": None, "timeout": 5.0, "retries": 2, "concurrency": 4, **more}
    return Client(",".join(getattr(place, "url", str(place)) for place in places), key="judge.server", **given)


def text(response: Any) -> str:
    return str(response["choices"][0]["message"]["content"])


def good(handler: Handler, question: dict[str, Any], number: int) -> None:
    say(handler, "yes")


def broken(handler: Handler, question: dict[str, Any], number: int) -> None:
    say(handler, "", 500)


def test_where_one_fails_another_is_asked_at_once() -> None:
    with scripted(broken) as one, scripted(good) as other:
        assert [client(one, other).ask({}, text) for _ in range(3)] == ["yes"] * 3
        asking = client(one, other)
        start = time.monotonic()
        for _ in range(4):
            asking.ask({}, text)
        assert time.monotonic() - start < 2
        assert len(other.asked) == 7


def test_an_address_that_has_come_back_is_asked_again() -> None:
    def recovers(handler: Handler, question: dict[str, Any], number: int) -> None:
        say(handler, "one", 200 if number else 500)

    with scripted(recovers) as one, scripted(good) as other:
        asking = client(one, other)
        assert asking.ask({}, text) == "yes"
        time.sleep(0.1)
        assert {asking.ask({}, text) for _ in range(2)} == {"one"}


def test_all_addresses_failing_is_a_failure_and_many_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "PATIENCE", 3)
    with scripted(broken) as one, scripted(broken) as other:
        asking = client(one, other, retries=1)
        for _ in range(2):
            with pytest.raises(Failure, match="server error: status 500"):
                asking.ask({}, text)
        assert len(one.asked) + len(other.asked) == 8
        with pytest.raises(ClientError, match="has failed 3 questions in a row"):
            asking.ask({}, text)


def test_a_refusal_is_told_with_its_status_and_asked_once() -> None:
    with scripted(lambda handler, *_: send(handler, "{}", 422)) as place:
        with pytest.raises(Rejected) as caught:
            client(place).ask({}, text)
        assert (caught.value.status, len(place.asked)) == (422, 1)


def test_names_that_are_served_are_those_of_the_first_that_answers() -> None:
    with scripted(good) as place:
        place.names = ["a", "b"]
        assert client("http://127.0.0.1:1/v1", place).models() == ["a", "b"]
        with pytest.raises(ClientError, match=r"judge\.server.*cannot be reached"):
            client("http://127.0.0.1:1/v1").models()


@pytest.mark.parametrize("addresses", ["localhost", "http://a:1/v1,,", "http://a:1/v1,nowhere"])
def test_every_address_has_to_be_one(addresses: str) -> None:
    with pytest.raises(ClientError, match="no address"):
        client(addresses)
