"""The prepare stage: every pair checked, and all that the frozen model says of it computed once and kept.

The reference is the frozen model that alignment starts from. Kept are the encoded prompts, the encoded images (where
the tower costs enough for that to pay), the reference's log-probs of every answer and, for objectives with a
divergence, its hidden states at the tokens that it is taken at. See ``radpref.training.cache``.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from radpref.config import AlignSection
from radpref.files import content_key, write_atomically
from radpref.images import ImageError
from radpref.losses import Objective, objective
from radpref.models import Vlm, autocast
from radpref.records import Pair, Quarantined
from radpref.training.cache import Cache
from radpref.training.errors import TrainingError
from radpref.training.features import Features, encode, joined, split
from radpref.training.layout import PIXELS, Group, image_tokens, images_of, pack
from radpref.training.rows import Item, Prompts, Row, answer_ids, items, keyed, rewarded
from radpref.training.scoring import Way, score, way_of

LOG = logging.getLogger(__name__)

STAGE = "prepare"
WINDOW = 8
"""Batches whose prompts are encoded before they are sorted by length."""
WORTH = 0.05
"""Share of a training step's arithmetic below which encoding images again is cheaper than keeping them."""
_FEATURES = "features.json"

Progress = Callable[[int, int], None]


class Together(Protocol):
    """The processes that were started together, and which of them this one is."""

    @property
    def world(self) -> int: ...

    @property
    def first(self) -> bool: ...

    def mine(self, number: int) -> bool:
        """Whether the window of this number is this process's."""

    def wait(self) -> None:
        """Go on when all have come here."""


class _Alone:
    world, first = 1, True

    def mine(self, number: int) -> bool:
        return True

    def wait(self) -> None:
        pass


ALONE = _Alone()


class Prepared(NamedTuple):
    """What alignment trains on."""

    items: list[Item]
    cache: Cache
    """Prompts, features, log-probs and hidden states of the items' rows."""
    quarantined: list[Quarantined]
    """Pairs that cannot be used, with the reason, in the order of the pairs."""
    objective: Objective
    way: Way
    """How answers go through the model."""
    features: bool
    """Whether the encoded images are kept; otherwise they are encoded at every step."""
    lengths: Mapping[str, int]
    """Row key to the number of tokens of prompt and answer."""
    scored: int
    """Answers that have been scored, of those that the objective needs."""


def identity(vlm: Vlm) -> str:
    """What is kept depends on besides the row: the weights, and the precision they run in."""
    return f"{vlm.fingerprint}/{vlm.dtype}{' in 4 bits' if vlm.quantised else ''}/{vlm.compute}"


def prepare(
    vlm: Vlm,
    pairs: Sequence[Pair],
    section: AlignSection,
    folder: Path,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    processes: Together = ALONE,
) -> Prepared:
    """Check every pair, and compute what the objective reads of the reference.

    A pair is quarantined where an image cannot be read, where the processor or the tokenizer refuses it, where
    prompt plus answer are longer than ``section.max_length`` tokens, or where spans are to be rewarded and it has
    none; no row is ever cut. Interrupted and called again, it goes on where it stopped; called with other pairs, it
    adds what is missing. Batches follow from the pairs alone and not from what is left of them, because rounding in
    a batch depends on its other rows.

    Args:
        vlm: the reference; a PEFT model is scored with its adapter.
        pairs: all pairs.
        section: its objective decides what is computed, ``batch`` how many pairs at once, ``cache_features`` and
            ``shared_prefix`` how.
        folder: where the shards lie.
        limit: score so many answers, rounded up to whole batches, and leave the others for the next call.
        progress: called with the rows scored so far and the number of rows.
        processes: those that enter this together; each computes its share of the windows, and all have it in the end.

    Raises:
        TrainingError: no usable pair is left, a visual term without one corrupted image, or KTO with a single question.
        LossError: an objective that makes no sense.
    """
    vlm.model.eval()
    whole = objective(section)
    way = way_of(vlm, shared=section.shared_prefix == "auto")
    if whole.kl and not way.fused:
        raise TrainingError(
            f"the objective takes a KL over the vocabulary, and the head of {vlm.name} cannot be read for it "
            f"({'; '.join(way.notes)}). Set align.kl.weight 0, or use a loss without one."
        )
    reasons: dict[str, str] = {}
    make = keyed(identity(vlm))
    usable = [pair for pair in pairs if _acceptable(vlm, pair, make, whole, reasons)]
    if whole.corrupted_sides and usable and not any(pair.corrupted for pair in usable):
        raise TrainingError(
            f"align.visual.weight is {section.visual.weight:g}, and none of {len(usable)} pairs has corrupted images: "
            "the objective would be another one than the recipe names. Run the corrupt stage where lesions are known "
            "(masks or boxes of the data; of phantoms data.phantom.masks true), let it find them with corrupt.masks "
            "[evidence], or set corrupt.fallback whole; or leave the term out with align.visual.weight 0."
        )
    all_items = items(usable, whole, make)
    asked = _asked(vlm, whole, all_items)
    total = sum(len(one.rows) for one in asked)
    step = WINDOW * section.batch
    windows = [asked[start : start + step] for start in range(0, len(asked), step)]

    def go_over(mine: Callable[[int], bool], left: int | None) -> tuple[_Job, int, bool | None]:
        """Compute what is missing of some windows; their rows that do not fit get a reason."""
        job = _Job(vlm, whole, way, section, Cache(folder, identity(vlm)), Prompts(vlm, limit=0), {})
        kept_images, done = _remembered(job), 0
        for number, window in enumerate(windows):
            if not mine(number):
                continue
            ready = [one for one in window if _fits(job, one, reasons)]
            for batch in _batches(ready, job.lengths, 2 * section.batch):
                count = sum(len(one.rows) for one in batch)
                if not _missing(job, batch, kept_images):
                    done += count
                elif left is None or left > 0:
                    kept_images = _compute(job, batch, kept_images, len(asked))
                    done, left = done + count, None if left is None else left - count
                    if progress is not None:
                        progress(done, total)
        job.cache.flush()
        return job, done, kept_images

    if processes.world > 1:
        # the first window decides for all whether encoded images are kept
        go_over(lambda number: number == 0 and processes.first, limit)
        processes.wait()
        go_over(lambda number: number > 0 and processes.mine(number), limit)
        processes.wait()
        limit = 0 if limit is not None else None
    job, done, kept_images = go_over(lambda number: True, limit)
    lengths = job.lengths
    kept = [item for item in all_items if item.pair not in reasons]
    if not kept:
        most = max(reasons.values(), key=list(reasons.values()).count) if reasons else "there are no pairs"
        raise TrainingError(f"no pair is left to align on, of {len(pairs)}; the most frequent reason: {most}")
    quarantined = [Quarantined(id=p.id, stage=STAGE, reason=reasons[p.id]) for p in pairs if p.id in reasons]
    return Prepared(kept, job.cache, quarantined, whole, way, bool(kept_images), lengths, done)


def _acceptable(vlm: Vlm, pair: Pair, make: Callable[..., Row], whole: Objective, reasons: dict[str, str]) -> bool:
    """Whether the pair's images can be read as files and its answers as tokens; the reason goes to ``reasons``."""
    spans = whole.section.spans
    try:
        for answer, marked in ((pair.chosen, pair.chosen_spans), (pair.rejected, pair.rejected_spans)):
            row = make(pair.prompt, pair.images, answer, True, marked if spans else None)
            answer_ids(vlm, row)
            if spans and not any(rewarded(vlm, row)):
                reasons[pair.id] = "the objective rewards spans, and no token of an answer lies in one"
                return False
        if whole.corrupted_sides and pair.corrupted:
            make(pair.prompt, pair.corrupted, pair.chosen)
    except (ImageError, ValueError) as error:
        reasons[pair.id] = str(error)
        return False
    return True


def hidden_name(row: Row, places: Sequence[int]) -> str:
    """Where the reference's hidden states at ``places`` (token numbers) of an answer are kept."""
    return f"hidden/{row.key}/{content_key(list(places))}"


def kl_places(vlm: Vlm, whole: Objective, item: Item, row: Row) -> list[int]:
    """Numbers of the answer's tokens at which the objective takes a divergence; [] for most rows."""
    if row is item.chosen and whole.kl == "span":
        return [number for number, counts in enumerate(rewarded(vlm, row)) if counts]
    if (row is item.chosen and whole.kl) or (row is item.rejected and whole.kl == "both"):
        return list(range(len(answer_ids(vlm, row))))
    return []


class _Job(NamedTuple):
    """What one call of ``prepare`` works with."""

    vlm: Vlm
    whole: Objective
    way: Way
    section: AlignSection
    cache: Cache
    prompts: Prompts
    lengths: dict[str, int]
    """Row key to the tokens of prompt and answer."""


class _Asked(NamedTuple):
    """A prompt's answers, each once, and what is wanted of each."""

    rows: dict[str, Row]
    """By key."""
    owners: dict[str, set[str]]
    """Row key to the pairs that need it."""
    places: dict[str, set[tuple[int, ...]]]
    """Row key to the tokens whose hidden states are wanted, a set for each pair."""

    @property
    def key(self) -> str:
        """The prompt's."""
        return next(iter(self.rows.values())).prompt_key


def _asked(vlm: Vlm, whole: Objective, all_items: Sequence[Item]) -> list[_Asked]:
    """What is wanted, by prompt, in the order of the items."""
    found: dict[str, _Asked] = {}
    for item in all_items:
        for row in item.rows():
            one = found.setdefault(row.prompt_key, _Asked({}, {}, {}))
            one.rows.setdefault(row.key, row)
            one.owners.setdefault(row.key, set()).add(item.pair)
            if places := kl_places(vlm, whole, item, row):
                one.places.setdefault(row.key, set()).add(tuple(places))
    return list(found.values())


def _fits(job: _Job, one: _Asked, reasons: dict[str, str]) -> bool:
    """Whether prompt and answers can be scored; rows that cannot are taken out, and their pairs get the reason."""
    try:
        tokens = _prompt_ids(job, one).shape[1]
    except (ImageError, ValueError) as error:
        reasons |= {pair: str(error) for owners in one.owners.values() for pair in owners}
        return False
    for key, row in list(one.rows.items()):
        job.lengths[key] = tokens + len(answer_ids(job.vlm, row))
        if job.section.max_length is not None and job.lengths[key] > job.section.max_length:
            why = f"prompt and answer have {job.lengths[key]} tokens, align.max_length is {job.section.max_length}"
            reasons |= dict.fromkeys(one.owners[key], why)
            del one.rows[key]
    return bool(one.rows)


def _prompt_ids(job: _Job, one: _Asked) -> Tensor:
    """(1, tokens) ids of the prompt, kept or encoded (then all but its pixels is kept)."""
    name = f"prompt/{one.key}/"
    if f"{name}input_ids" not in job.cache:
        prompt = job.prompts(next(iter(one.rows.values())))
        job.cache.put({name + part: value for part, value in prompt.items() if not part.startswith(PIXELS)})
    return job.cache[f"{name}input_ids"]


def _batches(ready: Sequence[_Asked], lengths: Mapping[str, int], answers: int) -> Iterator[list[_Asked]]:
    """Prompts of like length together, with so many answers a batch."""
    order = sorted(ready, key=lambda one: (len(one.rows), max(lengths[key] for key in one.rows), one.key))
    batch: list[_Asked] = []
    for one in order:
        if batch and sum(len(other.rows) for other in batch) + len(one.rows) > answers:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _missing(job: _Job, batch: Sequence[_Asked], kept_images: bool | None) -> bool:
    """Whether anything of a batch has yet to be computed, or decided."""
    if kept_images is None:
        return True
    for one in batch:
        images = image_tokens(job.vlm, _prompt_ids(job, one))
        if kept_images and images and not job.cache.below(f"features/{one.key}/"):
            return True
        for key, row in one.rows.items():
            if job.whole.reference and f"logps/{key}" not in job.cache:
                return True
            if any(hidden_name(row, places) not in job.cache for places in one.places.get(key, ())):
                return True
    return False


@torch.no_grad()
def _compute(job: _Job, batch: Sequence[_Asked], kept_images: bool | None, prompts: int) -> bool:
    """One pass over a batch; returns whether encoded images are kept (decided by the first batch)."""
    vlm, way = job.vlm, job.way
    encoded = [job.prompts(next(iter(one.rows.values()))) for one in batch]
    rows = [list(one.rows.values()) for one in batch]
    ids = [[answer_ids(vlm, row) for row in some] for some in rows]
    packed = pack(vlm, [Group(p, a) for p, a in zip(encoded, ids, strict=True)], shared=way.shared).to(vlm.device)
    hidden: list[Tensor] = []
    features: Features | None = None
    with autocast(vlm):
        if way.features:
            images = {name: value.to(vlm.device) for name, value in images_of(vlm, encoded).items()}
            with _counting() as looking:
                features = encode(vlm.model, images)
            parts = split(features, [image_tokens(vlm, prompt["input_ids"]) for prompt in encoded])
            repeats = [1 if way.shared else len(some) for some in rows]
            features = joined([part for part, n in zip(parts, repeats, strict=True) for _ in range(n)])
        with _counting() as reading:
            keep = hidden.append if any(one.places for one in batch) else None
            scores = score(vlm.model, packed, way, features, keep=keep)
    if kept_images is None:
        size = prompts / len(batch) * sum(value.nbytes for part in parts for value in part.values())
        kept_images = _decide(job, looking.get_total_flops(), reading.get_total_flops(), int(size))
    if kept_images:
        for one, part in zip(batch, parts, strict=True):
            job.cache.put({f"features/{one.key}/{name}": value for name, value in part.items()})
    at = 0
    flat = [row for some in rows for row in some]
    for number, row in enumerate(flat):
        length = int(packed.lengths[number])
        if job.whole.reference:
            job.cache.put({f"logps/{row.key}": scores.logps[number, :length]})
        for one in batch:
            for places in one.places.get(row.key, ()) if row.prompt_key == one.key else ():
                job.cache.put({hidden_name(row, places): hidden[0][at : at + length][list(places)]})
        at += length
    return kept_images


class _NoModules:
    """In place of the counter's tracker of modules, which trips over parameters that are handed to a module."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _counting() -> FlopCounterMode:
    """A counter of arithmetic, over all modules together."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


def _remembered(job: _Job) -> bool | None:
    """Whether encoded images are kept, as settled before or by the recipe; None where the first batch decides."""
    section, way = job.section, job.way
    if section.train_tower or section.train_projector:
        what = "the tower is" if section.train_tower else "the projector is"
        LOG.warning("%s trained: encoded images change with every step and are not kept", what)
        return False
    if section.cache_features == "never" or not way.features:
        return False
    if section.cache_features == "always":
        return True
    path = job.cache.folder / _FEATURES
    if not path.exists():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return bool(known["kept"]) if known["model"] == job.cache.model else None


def _decide(job: _Job, looking: int, reading: int, size: int) -> bool:
    """Whether to keep encoded images: what encoding takes of a step, and what keeping them takes of the disk."""
    step = looking + 3 * reading  # the backward pass through a frozen language model takes twice its forward, at most
    share, free = looking / max(step, 1), shutil.disk_usage(_existing(job.cache.folder)).free
    why = f"encoding images takes {share:.0%} of a step's arithmetic; encoded they take {size / 1e9:.2g} GB on disk"
    kept = share >= WORTH
    if kept and size > 0.9 * free:
        kept, why = False, f"{why}, of which {free / 1e9:.2g} GB are free"
    LOG.info("%s: they are %s", why, "kept" if kept else "encoded at every step")
    record = {"model": job.cache.model, "kept": kept, "why": why}
    write_atomically(job.cache.folder / _FEATURES, json.dumps(record) + "\n")
    return kept


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
