"""Answers of a model that a server runs: the same rows as ``generate`` makes, over the protocol of OpenAI.

vLLM, SGLang and ``transformers serve`` take images that way. A server may serve anything under any name, so it is
asked first: the greedy answers to a few probes, and the log-probs of their tokens where it gives them, have to be those
of the weights that the run means, computed here once.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from radpref.chat_client import Client, ClientError, Failure
from radpref.config import ModelSection, RunSection, ServeSection
from radpref.files import write_atomically
from radpref.images import ImageError, read_image
from radpref.models.control import refuse_control, unthought
from radpref.models.decoding import generate
from radpref.models.fingerprint import fingerprint
from radpref.models.loading import Wording, load, locate, wording
from radpref.models.template import plain_ids
from radpref.models.vlm import ModelError
from radpref.records import Completion, ImageFile, Quarantined, Question, TokenScores

Read = Callable[[ImageFile], Image.Image]

_PROBES = ("Write the findings.", "Is the heart enlarged?", "Describe the lungs and the pleura.")
_PROBED = 16
"""Tokens of each probe that are compared."""
_CLOSE = 0.1
"""Two tokens whose probabilities lie nearer than this may change places by rounding."""
_DRAWS = 4
"""Of each probe, to see whether a server draws at all."""
_TELLING = 7.0
"""Surprise in nats (one in a thousand) from which draws that are all alike cannot be chance."""

_TOKENIZING = threading.Lock()
"""A fast tokenizer may not be used by two threads at once."""

log = logging.getLogger(__name__)


class _Choice(NamedTuple):
    """One answer of a response."""

    text: str
    tokens: int
    finished: bool
    scores: TokenScores | None


@dataclass(frozen=True)
class Served:
    """A model behind a server, which has proved to be the one that is meant."""

    client: Client
    name: str
    """What the server calls it."""
    words: Wording
    concurrency: int
    told: str
    """How it was proved, in a sentence."""

    def answers(
        self,
        questions: Sequence[Question],
        *,
        n: int = 1,
        temperature: float | None = None,
        top_p: float = 1.0,
        max_new_tokens: int,
        seed: int,
        scores: bool = False,
        read: Read = read_image,
    ) -> Iterator[list[Completion] | Quarantined]:
        """``n`` answers to every question, in their order; arguments as of ``generate``.

        All candidates of a question come of one request where the server knows ``n``, else of one each. Seeds follow
        from ``seed``, the question's id and the candidate. ``concurrency`` questions are asked at a time, and twice as
        many at most wait for an earlier one. A question that the server does not take, or does not answer after all
        tries, comes back quarantined with the reason. Raises ClientError where the server is gone.
        """

        def asked(question: Question) -> list[Completion] | Quarantined:
            try:
                with _TOKENIZING:
                    refuse_control(self.words, question.prompt, "the prompt")
                body = _body(self.name, question, [read(image) for image in question.images], max_new_tokens, scores)
                if temperature is not None:
                    body |= {"temperature": temperature, "top_p": top_p}
                choices = self._choices(body, question.id, n if temperature is not None else 1, seed)
            except (ImageError, ValueError, Failure) as error:
                return Quarantined(id=question.id, stage="generate", reason=str(error))
            choices = choices if temperature is not None else choices * n
            return [
                Completion(id=f"{question.id}/{i}", question=question.id, index=i, **choice._asdict())
                for i, choice in enumerate(choices)
            ]

        remaining, waiting = iter(questions), deque[Future[list[Completion] | Quarantined]]()
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="served")
        try:
            for question in islice(remaining, 2 * self.concurrency):
                waiting.append(pool.submit(asked, question))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(asked, question) for question in islice(remaining, 1))
        finally:
            pool.shutdown(cancel_futures=True)

    def _choices(self, body: Mapping[str, Any], question: str, n: int, seed: int) -> list[_Choice]:
        found: list[_Choice] = []
        while len(found) < n:
            left = n - len(found) if not found else 1  # a server that gave one of several knows no `n`
            several = {"n": left} if left > 1 else {}
            seeded = {"seed": _seed(seed, question, len(found))} if body["temperature"] else {}
            found += self.client.ask({**body, **several, **seeded}, self._read)[:left]
        return found

    def _read(self, response: Any) -> list[_Choice]:
        choices = response["choices"]
        usage = (response.get("usage") or {}).get("completion_tokens") if len(choices) == 1 else None
        if not choices:
            raise ValueError("no choice")
        return [self._choice(choice, usage) for choice in choices]

    def _choice(self, choice: Any, usage: int | None) -> _Choice:
        if choice.get("finish_reason") == "content_filter":
            raise Failure("refused: the server's filter holds the answer back")
        text = unthought(choice["message"].get("content") or "")
        finished = choice.get("finish_reason") != "length"
        entries = (choice.get("logprobs") or {}).get("content") or []
        scores = _scores(text, entries) if entries else None
        with _TOKENIZING:
            counted = len(entries) or usage or len(plain_ids(self.words.tokenizer, text)) + finished
        return _Choice(text, counted, finished, scores)


def _body(name: str, question: Question, images: Sequence[Image.Image], tokens: int, scores: bool) -> dict[str, Any]:
    """A request for greedy answers."""
    pictures = [{"type": "image_url", "image_url": {"url": _uri(image)}} for image in images]
    content = [*pictures, {"type": "text", "text": question.prompt}]
    return {
        "model": name,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": tokens,
        "temperature": 0.0,
        "chat_template_kwargs": {"enable_thinking": False},
        **({"logprobs": True, "top_logprobs": 2} if scores else {}),
    }


def _uri(image: Image.Image) -> str:
    """PNG, so that the server sees the pixels that this process would."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _seed(seed: int, question: str, index: int) -> int:
    digest = hashlib.sha256(f"{seed}\0{question}\0{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _scores(text: str, entries: Sequence[Mapping[str, Any]]) -> TokenScores:
    """Log-probs and margins of a choice's tokens, and where in ``text`` each ends."""
    pieces = [bytes(entry["bytes"]) if entry.get("bytes") else entry["token"].encode() for entry in entries]
    beginnings = [b"".join(pieces[: t + 1]).decode("utf-8", "ignore") for t in range(len(pieces))]
    start = max(beginnings[-1].rfind(text), 0)
    logps, margins = [], []
    for entry in entries:
        likeliest = sorted((math.exp(top["logprob"]) for top in entry.get("top_logprobs") or ()), reverse=True)
        logps.append(round(float(entry["logprob"]), 4))
        margins.append(round(likeliest[0] - likeliest[1], 4) if len(likeliest) > 1 else 0.0)
    ends = [min(max(len(beginning) - start, 0), len(text)) for beginning in beginnings]
    return TokenScores(logps=tuple(logps), margins=tuple(margins), ends=tuple(ends))


# ---------------------------------------------------------------------------------------- is it the model meant?


def served_name(mark: str) -> str:
    """What ``radpref serve-command`` calls weights with a fingerprint."""
    return f"radpref-{mark[:12]}"


def reach(
    addresses: str,
    key: str,
    serve: ServeSection,
    model: ModelSection,
    folder: Path,
    *,
    temperature: float | None = None,
) -> Served:
    """Those of ``addresses`` that are seen to serve the model, under one name; others may serve other models.

    Args:
        addresses: of the recipe's ``key``, with commas between several.
        key: for messages.
        serve: how it is asked.
        model: what it has to serve.
        folder: keeps what the model itself says to the probes; made on the CPU in float32 where that is not there yet.
        temperature: of draws that will be asked for: whether the server draws at all is then tried too.

    Raises:
        ClientError: no address can be reached, serves the model, and draws; why the last of them does not.
    """
    mark = fingerprint(locate(model), model.adapter)
    words, expected = wording(model), _expected(model, folder / f"probes-{mark[:12]}.json")
    good: dict[str, str] = {}
    told = ""
    why: ClientError | None = None
    for address in addresses.split(","):
        client = _client(address, key, serve)
        try:
            name = serve.model or _name(client.models(), mark, model)
            one = Served(client, name, words, serve.concurrency, "")
            told = _proved(one, address, expected, serve.tolerance)
            if temperature is not None:
                _drawn(one, address, expected, temperature)
        except ClientError as error:
            why = error
        else:
            good[address] = name
    if why is not None:
        if not good:
            raise why
        log.warning("%s", why)
    name = next(iter(good.values()))
    alike = ",".join(address for address, called in good.items() if called == name)
    return Served(_client(alike, key, serve), name, words, serve.concurrency, told)


def _client(addresses: str, key: str, serve: ServeSection) -> Client:
    return Client(
        addresses,
        key=key,
        api_key_env=serve.api_key_env,
        timeout=serve.timeout,
        retries=serve.retries,
        concurrency=serve.concurrency,
    )


def _name(served: Sequence[str], mark: str, model: ModelSection) -> str:
    """Our own name for it, its folder, or the only one there is; else the folder, which some load when asked."""
    known = (served_name(mark), model.adapter or _place(model))
    return next((name for name in known if name in served), served[0] if len(served) == 1 else known[1])


def _place(model: ModelSection) -> str:
    """Where servers find it: a folder, or a name on the hub."""
    return str(locate(model)) if model.path == "builtin" else model.path


def _probes() -> list[Question]:
    return [
        Question(id=f"probe-{i}", study="probe", patient="probe", split="train", images=(ImageFile(path=str(i)),),
                 prompt=prompt, reference="")
        for i, prompt in enumerate(_PROBES)
    ]  # fmt: skip


def _picture(image: ImageFile) -> Image.Image:
    """A picture for a probe: smooth, no two alike, the same everywhere."""
    number = int(image.path)
    y, x = np.mgrid[0:224, 0:224] / 224
    values = 128 + 90 * np.sin(2 * np.pi * (number + 1) * x + number) * np.cos(2 * np.pi * y * (number + 2))
    return Image.fromarray(values.astype("uint8")).convert("RGB")


def _expected(model: ModelSection, file: Path) -> list[Completion]:
    """What the model itself says to the probes, with scores."""
    with suppress(OSError, ValueError):  # absent, or changed by hand: made anew
        return [Completion.model_validate_json(line) for line in file.read_text("utf-8").splitlines()]
    vlm = load(model, RunSection(device="cpu", precision="float32"))
    made = generate(
        vlm, _probes(), max_new_tokens=_PROBED, batch=len(_PROBES), seed=0, scores=True, read=_picture
    )  # fmt: skip
    found = [row for _, rows in made if not isinstance(rows, Quarantined) for row in rows]
    if len(found) < len(_PROBES):
        raise ModelError(f"{model.path} does not answer a probe of an image of 224 pixels and a short question")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "".join(row.model_dump_json() + "\n" for row in found))
    return found


def _proved(served: Served, address: str, expected: Sequence[Completion], tolerance: float) -> str:
    """How the probes agree. Raises ClientError where they do not."""
    away: list[float] = []
    for ours, theirs in zip(expected, _said(served, address), strict=True):
        apart, differences = _compared(ours, theirs)
        away += differences
        if apart:
            raise ClientError(f"{address} serves another model as {served.name!r}: {apart}. {_ADVICE}")
    if not away:
        return (
            f"{address} gives no log-probs; its greedy answers to {len(expected)} probes are those of the run's weights"
        )
    mean = sum(away) / len(away)
    if not mean <= tolerance:
        raise ClientError(
            f"{address} serves other weights as {served.name!r}: the log-probs of {len(away)} tokens of a probe differ "
            f"by {mean:.3g} on average, more than serve.tolerance {tolerance:g}. {_ADVICE}"
        )
    return f"{address}: log-probs of {len(away)} tokens of a probe differ by {mean:.2g} on average"


_ADVICE = (
    "Serve what `radpref serve-command RUN` says, name it with --serve.model where it is called otherwise, or leave "
    "the server out."
)


def _said(served: Served, address: str) -> list[Completion]:
    found = []
    for answers in served.answers(_probes(), max_new_tokens=_PROBED, seed=0, scores=True, read=_picture):
        if isinstance(answers, Quarantined):
            raise ClientError(f"{address} does not answer as {served.name!r}: {answers.reason}. {_ADVICE}")
        found += answers
    return found


def _compared(ours: Completion, theirs: Completion) -> tuple[str, list[float]]:
    """What speaks against it, if anything, and how far the log-probs of the tokens lie apart up to a close choice."""
    assert ours.scores is not None
    same = next((i for i, (a, b) in enumerate(zip(ours.text, theirs.text, strict=False)) if a != b), None)
    if same is None and len(ours.text) != len(theirs.text):
        same = min(len(ours.text), len(theirs.text))
    until = len(ours.scores.ends)
    if same is not None:
        until = next((t for t, end in enumerate(ours.scores.ends) if end > same), until - 1)
        if ours.scores.margins[until] > _CLOSE:
            return f"to a probe it answers {theirs.text!r}, where the run's weights say {ours.text!r}", []
    given = theirs.scores
    if given is None:
        return "", []
    pairs = zip(ours.scores.logps[:until], given.logps, ours.scores.ends, given.ends, strict=False)
    return "", [abs(a - b) for a, b, end, other in pairs if end == other]


def _drawn(served: Served, address: str, expected: Sequence[Completion], temperature: float) -> None:
    """Raises ClientError where a server takes a temperature and gives the same answers whatever the seed.

    Draws that agree tell nothing of a model that is sure of all its probes.
    """
    surprise = -sum(logp for row in expected for logp in (row.scores.logps if row.scores else ()))
    if (_DRAWS - 1) * surprise * min(temperature, 1.0) < _TELLING:
        return
    draws = served.answers(
        _probes(), n=_DRAWS, temperature=temperature, max_new_tokens=_PROBED, seed=1, read=_picture
    )  # fmt: skip
    if all(isinstance(rows, list) and len({row.text for row in rows}) == 1 for rows in draws):
        raise ClientError(
            f"{address} gives one answer whatever the seed at temperature {temperature:g}: it does not sample. "
            "`transformers serve` samples where generation_config.json of the checkpoint says do_sample: true."
        )
