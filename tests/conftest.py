"""Fixtures shared by all tests. Nothing here reaches a network."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores: threads would wait for each other

import pytest

from tests.runs import Whole

OUTSIDE: list[str] = []
"""Whatever was asked for outside of this machine, in any test."""
_HERE = ("127.", "localhost", "::1", "0.0.0.0", "::ffff:127.")


def _shut(address: Any) -> None:
    """Raises OSError where an address is not of this machine."""
    host = address[0] if isinstance(address, tuple) else address
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if isinstance(name, str) and name and not name.startswith((*_HERE, "/", "\0")) and name not in _names_of_here():
        OUTSIDE.append(name)
        raise OSError(f"the way out to {name} is shut in tests")


@cache
def _names_of_here() -> frozenset[str]:
    """Ray and torch call this machine by its own name and address."""
    name = socket.gethostname()
    found = {name, socket.getfqdn()}
    with suppress(OSError):
        found |= {str(one[4][0]) for one in _ASKED(name, None)}
    return frozenset(found)


_CONNECT, _CONNECT_EX, _ASKED = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def _connect(self: socket.socket, address: Any) -> None:
    _shut(address)
    _CONNECT(self, address)


def _connect_ex(self: socket.socket, address: Any) -> int:
    _shut(address)
    return _CONNECT_EX(self, address)


def _asked(host: Any, *rest: Any, **more: Any) -> Any:
    _shut((host,))
    return _ASKED(host, *rest, **more)


socket.socket.connect = _connect  # type: ignore[assignment,method-assign]
socket.socket.connect_ex = _connect_ex  # type: ignore[assignment,method-assign]
socket.getaddrinfo = _asked

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test skips, saying so, where it is absent."""
    folder = Path(os.environ.get("RADPREF_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"real data is expected in CI, but there is none at {folder}")
        pytest.skip(f"no real data at {folder}; set RADPREF_SHARED_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Finished runs of each method, made when they are first asked for."""
    return Whole(tmp_path_factory.mktemp("whole"))
