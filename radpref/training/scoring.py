"""Log-probs of answers under a model: nothing computed twice, and nothing where no token is scored.

How much of that a model allows (``Way``) is found out by trying: ``way_of`` sends two prompts with grey images through
the model, plainly and in every faster way, and keeps what gives the same log-probs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from radpref.models import Vlm, autocast, collate, encode_answer, encode_prompt, rounded, unwrapped
from radpref.training.features import Features, as_encoded, encode, takes_features
from radpref.training.head import Against, Head, Read, read
from radpref.training.layout import PIXELS, Batch, Group, attention, pack

LOG = logging.getLogger(__name__)


class Way(NamedTuple):
    """How answers go through a model."""

    shared: bool
    """All answers to a prompt in one row."""
    features: bool
    """Encoded images can be given in place of pixels."""
    fused: bool
    """The head is a plain projection, read in chunks without keeping its logits."""
    notes: tuple[str, ...] = ()
    """Why not, in words, for what is not done."""


PLAIN = Way(shared=False, features=False, fused=False)


class Scores(NamedTuple):
    """What a model gives to A answers, T tokens the longest; 0 after an answer's end."""

    logps: Tensor
    """(A, T) float32 log p of every token."""
    mask: Tensor
    """(A, T) bool: where there is a token."""
    forward_kl: Tensor | None
    """(A, T) float32 KL(ref || pi), 0 where it was not asked for; None without a reference."""
    reverse_kl: Tensor | None
    """(A, T) float32 KL(pi || ref)."""


def score(
    model: Any,
    batch: Batch,
    way: Way,
    features: Features | None = None,
    against: Against | None = None,
    keep: Callable[[Tensor], None] | None = None,
) -> Scores:
    """Log-probs of every answer token, with the policy's gradient where that is on.

    Args:
        model: the model, in a PEFT or DDP wrapper or not.
        batch: ``pack`` of the answers, on the model's device; shared rows only where ``way`` says so.
        way: what the model allows.
        features: encoded images of the batch; None sends the pixels through the tower.
        against: where divergences are wanted; its ``tokens`` count answer tokens. Needs ``way.fused``.
        keep: called with the (N, H) hidden states that the answer tokens are read from. Needs ``way.fused``.
    """
    inputs: dict[str, Any] = {name: value for name, value in batch.rows.items() if name not in ("branch", "order")}
    if "branch" in batch.rows:
        inputs["attention_mask"] = attention(_bare(model), batch.rows)
    pixels = {name for name in batch.images if name.startswith(PIXELS)}
    inputs |= {name: value for name, value in batch.images.items() if name not in pixels or features is None}
    if features:
        inputs["mm_encoder_outputs"] = {"image": as_encoded(features)}
    if way.fused:
        values = _read_in_model(model, inputs, batch, against, keep)
    else:
        values = _read_from_logits(model, inputs, batch)
    mask = torch.arange(int(batch.lengths.max()), device=values.logps.device) < batch.lengths[:, None]

    def laid(flat: Tensor) -> Tensor:
        return flat.new_zeros(mask.shape).masked_scatter(mask, flat)

    if against is None:
        return Scores(laid(values.logps), mask, None, None)
    nothing = values.logps.new_zeros(len(batch.targets))
    forward, reverse = (laid(nothing.index_put((against.tokens,), kl)) for kl in values[1:])
    return Scores(laid(values.logps), mask, forward, reverse)


def _read_in_model(
    model: Any,
    inputs: Mapping[str, Any],
    batch: Batch,
    against: Against | None,
    keep: Callable[[Tensor], None] | None,
) -> Read:
    """Replace the head for one forward, so that it reads what is scored and returns next to nothing.

    Inside the forward rather than after it, because under FSDP the weights are only there then.
    """
    module = unwrapped(_bare(model)).get_output_embeddings()
    head = Head.of(module)
    found: list[Read] = []

    def scored(hidden: Tensor) -> Tensor:
        flat = hidden.flatten(0, 1)[batch.place]
        if keep is not None:
            keep(flat)
        found.append(read(head.now(module), flat, batch.targets, against))
        return found[0].logps[None, :, None]

    with _forward_of(module, scored), ExitStack() as stack:
        last = _last_mlp(model)
        if last is not None:
            stack.enter_context(_forward_of(last, partial(_at, last.forward, batch.read)))
        model(**inputs, use_cache=False)
    return found[0]


def _last_mlp(model: Any) -> nn.Module | None:
    """The feed-forward part of the last layer: nothing after it reads a position that is not scored.

    None under gradient checkpointing, which runs the layer again after the forward.
    """
    layers = getattr(unwrapped(_bare(model)).get_decoder(), "layers", None)
    if not layers or getattr(layers[-1], "gradient_checkpointing", False):
        return None
    found = getattr(layers[-1], "mlp", None)
    return found if isinstance(found, nn.Module) else None


def _at(forward: Callable[[Tensor], Tensor], places: Tensor, hidden: Tensor) -> Tensor:
    """``forward`` of (R, L, H) at the flat places alone, zeros elsewhere."""
    flat = hidden.flatten(0, 1)
    out = forward(flat[places][None])[0]
    return out.new_zeros(len(flat), out.shape[-1]).index_copy(0, places, out).view(*hidden.shape[:2], -1)


def _read_from_logits(model: Any, inputs: Mapping[str, Any], batch: Batch) -> Read:
    """The model's own logits at the scored positions, for heads with something behind them (a cap, a scale)."""

    def gather(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (arguments[0].flatten(0, 1)[batch.place][None], *arguments[1:])

    handle = unwrapped(_bare(model)).get_output_embeddings().register_forward_pre_hook(gather)
    try:
        logits = model(**inputs, use_cache=False).logits[0]
    finally:
        handle.remove()
    logps = logits.float().log_softmax(-1).gather(-1, batch.targets[:, None]).squeeze(-1)
    return Read(logps, logps.new_zeros(0), logps.new_zeros(0))


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Another ``forward`` for a module; its hooks stay."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _bare(model: Any) -> Any:
    """The model without DDP's wrapper."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def trial(vlm: Vlm, sizes: Sequence[tuple[int, int]] = ((160, 128), (96, 150))) -> list[Group]:
    """Two prompts of different length with a grey image each, of these (width, height), and two answers to each."""
    texts = ("Write the findings.", "Write the findings of this chest X-ray. Indication: cough and fever.")
    words = (
        ("No acute finding.", "Small left effusion. Heart size is normal."),
        ("The lungs are clear.", "Edema."),
    )
    greys = [Image.new("RGB", size, (110, 110, 110)) for size in sizes]
    prompts = [encode_prompt(vlm, text, [grey]) for text, grey in zip(texts, greys, strict=True)]
    return [
        Group(prompt, [encode_answer(vlm, word) for word in two]) for prompt, two in zip(prompts, words, strict=True)
    ]


def way_of(vlm: Vlm, *, shared: bool = True) -> Way:
    """What the model allows, tried on two prompts with a grey image each and two answers to each prompt.

    Compared are log-probs with those of one plain forward a row; rounding is allowed. ``shared`` False does not
    look for shared rows. What is not possible is said in ``notes``, with the reason.
    """
    groups = trial(vlm)
    expected = _plainly(vlm, groups)
    notes: list[str] = []

    def works(way: Way, what: str) -> bool:
        try:
            found = _tried(vlm, groups, way)
        except (ValueError, RuntimeError, IndexError, TypeError, AttributeError, KeyError) as error:
            notes.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
            return False
        away = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
        allowed = 0.3 if rounded(vlm.compute, vlm.device) else 1e-3
        if not away <= allowed:
            notes.append(f"{what}: log-probs differ by {away:.2g} from those of a plain forward")
        return away <= allowed

    fused = works(PLAIN._replace(fused=True), "the head is not read in chunks")
    features = takes_features(vlm.model) and works(
        Way(shared=False, features=True, fused=fused), "encoded images are not reused"
    )
    together = shared and works(
        Way(shared=True, features=features, fused=fused), "answers to one prompt do not share a row"
    )
    for note in notes:
        LOG.warning("%s: %s", vlm.name, note)
    return Way(together, features, fused, tuple(notes))


@torch.no_grad()
def _plainly(vlm: Vlm, groups: Sequence[Group]) -> list[Tensor]:
    """(tokens,) log-probs of each answer from a plain forward of its own, as any user would compute them."""
    found = []
    for prompt, ids in ((group.prompt, ids) for group in groups for ids in group.answers):
        batch = {name: value.to(vlm.device) for name, value in collate(vlm, [prompt], [ids]).items()}
        spoken = batch.pop("completion_mask")[0]
        with autocast(vlm):
            logits = vlm.model(**batch, use_cache=False).logits[0, :-1][spoken[1:]]
        found.append(logits.float().log_softmax(-1).gather(-1, batch["input_ids"][0, spoken][:, None])[:, 0].cpu())
    return found


@torch.no_grad()
def _tried(vlm: Vlm, groups: Sequence[Group], way: Way) -> list[Tensor]:
    batch = pack(vlm, groups, shared=way.shared).to(vlm.device)
    with autocast(vlm):
        features = encode(vlm.model, batch.images) if way.features else None
        scores = score(vlm.model, batch, way, features)
    return [row[mask].cpu() for row, mask in zip(scores.logps, scores.mask, strict=True)]
