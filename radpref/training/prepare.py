"""The prepare stage: every pair checked, and the reference's log-probs of its answers computed once and kept.

The reference is the frozen model that alignment starts from. Its log-probs lie in safetensors shards, one float32
vector an answer, under a key made of the model, the prompt, the films' bytes and the answer: whatever changes
is computed anew, and what does not is read back.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from radpref.images import FilmError
from radpref.losses import LOSSES
from radpref.models import Vlm, autocast
from radpref.recipe import AlignSection
from radpref.records import Pair, Quarantined
from radpref.store import content_key, write_atomically
from radpref.training.errors import TrainingError
from radpref.training.rows import Item, Prompts, Row, answer_ids, items, keyed
from radpref.training.scoring import batch_of, encode_images, token_logps

STAGE = "prepare"
SHARD_ROWS = 512
"""Answers a shard: at most so many are computed again after a kill."""

Progress = Callable[[int, int], None]


class References(NamedTuple):
    """The reference's log-probs, by row key."""

    model: str
    """Identity of the reference: see ``identity``."""
    logps: Mapping[str, Tensor]
    """Row key to a (tokens,) float32 vector on the CPU."""
    prompt_tokens: Mapping[str, int]
    """Row key to the number of prompt tokens, those of the images included."""

    def of(self, row: Row, tokens: int) -> Tensor:
        """The (tokens,) log-probs of a row. Raises TrainingError where there are none, or of another length."""
        found = self.logps.get(row.key)
        if found is None:
            raise TrainingError(
                "there are no reference log-probs for an answer that is to be trained on: model, prompt, films or "
                "answer changed since they were prepared. Run the prepare stage again."
            )
        if len(found) != tokens:
            raise TrainingError(
                f"the reference log-probs of an answer are of {len(found)} tokens, but it has {tokens} now: the "
                "tokenizer changed. Delete the folder of references and run the prepare stage again."
            )
        return found


class Prepared(NamedTuple):
    """What alignment trains on."""

    items: list[Item]
    references: References
    quarantined: list[Quarantined]
    """Pairs that cannot be used, with the reason, in the order of the pairs."""
    prompts: Prompts
    """Encoded prompts, as far as they fit into memory; another ``Prompts`` would do."""


def identity(vlm: Vlm) -> str:
    """What reference log-probs depend on besides the row: the weights, and the precision they run in."""
    return f"{vlm.fingerprint}/{vlm.dtype}/{vlm.compute}"


def prepare(
    vlm: Vlm,
    pairs: Sequence[Pair],
    section: AlignSection,
    folder: Path,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Check every pair, and score all answers that the objective reads under the reference.

    A pair is quarantined where a film cannot be read, where the processor or the tokenizer refuses it, or where
    prompt plus answer are longer than ``section.max_length`` tokens; no row is ever cut. Interrupted and called
    again, it goes on where it stopped; called with other pairs, it adds what is missing. Batches follow from the
    pairs alone and not from what is left of them, because rounding in a batch depends on its other rows.

    Args:
        vlm: the reference; a PEFT model is scored with its adapter.
        pairs: all pairs.
        section: ``loss`` decides which rows there are (ORPO needs no reference: nothing is scored),
            ``batch`` how many pairs are scored at once.
        folder: where the shards lie.
        limit: score so many answers, rounded up to whole batches, and leave the others for the next call.
        progress: called with the rows scored so far and the number of rows.

    Raises:
        TrainingError: no usable pair is left, or KTO with a single question.
    """
    objective = LOSSES[section.loss]
    reasons: dict[str, str] = {}
    make = keyed(identity(vlm))
    usable = [pair for pair in pairs if _acceptable(vlm, pair, make, reasons)]
    all_items = items(usable, objective, make)
    prompts = Prompts(vlm)
    references = _load(folder, identity(vlm))

    wanted: dict[str, dict[str, Row]] = defaultdict(dict)  # by prompt, then by key: equal answers are one row
    owners: dict[str, set[str]] = defaultdict(set)
    for item in all_items:
        for row in item.rows():
            wanted[row.prompt_key][row.key] = row
            owners[row.key].add(item.pair)
    total = sum(map(len, wanted.values()))

    lengths = dict(references.prompt_tokens)
    groups: list[list[Row]] = []
    for by_key in wanted.values():
        unknown = [row for row in by_key.values() if row.key not in lengths]
        try:
            tokens = prompts(unknown[0])["input_ids"].shape[1] if unknown else 0
        except (FilmError, ValueError) as error:
            for row in by_key.values():
                reasons |= dict.fromkeys(owners[row.key], str(error))
            continue
        lengths |= {row.key: tokens for row in unknown}
        fitting = []
        for row in by_key.values():
            length = lengths[row.key] + len(answer_ids(vlm, row))
            if section.max_length is not None and length > section.max_length:
                why = f"prompt and answer have {length} tokens, align.max_length is {section.max_length}"
                reasons |= dict.fromkeys(owners[row.key], why)
            else:
                fitting.append(row)
        if objective.reference and fitting:
            groups.append(fitting)

    kept = [item for item in all_items if item.pair not in reasons]
    if not kept:
        most = max(reasons.values(), key=list(reasons.values()).count) if reasons else "there are no pairs"
        raise TrainingError(f"no pair is left to align on, of {len(pairs)}; the most frequent reason: {most}")
    logps = dict(references.logps)
    missing = {row.key for group in groups for row in group} - logps.keys()
    done = total - len(missing)
    batches = [some for some in _batches(groups, section.batch) if any(row.key in missing for row in chain(*some))]
    for shard in _scored(vlm, _first(batches, limit), prompts, missing):
        _save(folder, references.model, shard, lengths)
        logps |= shard
        done += len(shard)
        if progress is not None:
            progress(done, total)
    quarantined = [Quarantined(id=p.id, stage=STAGE, reason=reasons[p.id]) for p in pairs if p.id in reasons]
    return Prepared(kept, References(references.model, logps, lengths), quarantined, prompts)


def _acceptable(vlm: Vlm, pair: Pair, make: Callable[..., Row], reasons: dict[str, str]) -> bool:
    """Whether the pair's films can be read as files and its answers as tokens; the reason goes to ``reasons``."""
    try:
        for answer in (pair.chosen, pair.rejected):
            answer_ids(vlm, make(pair.prompt, pair.films, answer))
    except (FilmError, ValueError) as error:
        reasons[pair.id] = str(error)
        return False
    return True


def _batches(groups: Sequence[list[Row]], batch: int) -> Iterator[list[list[Row]]]:
    """A group is the rows of one prompt; groups of one size are scored together."""
    by_size: dict[int, list[list[Row]]] = defaultdict(list)
    for group in groups:
        by_size[len(group)].append(group)
    for size, alike in sorted(by_size.items()):
        step = max(1, 2 * batch // size)
        yield from (alike[i : i + step] for i in range(0, len(alike), step))


def _first(batches: Iterable[list[list[Row]]], limit: int | None) -> Iterator[list[list[Row]]]:
    """So many batches that they hold ``limit`` rows or a few more."""
    taken = 0
    for groups in batches:
        if limit is not None and taken >= limit:
            return
        taken += sum(map(len, groups))
        yield groups


def _scored(
    vlm: Vlm, batches: Iterable[list[list[Row]]], prompts: Prompts, missing: Container[str]
) -> Iterator[dict[str, Tensor]]:
    """Shards of the log-probs that are missing."""
    shard: dict[str, Tensor] = {}
    vlm.model.eval()
    for groups in batches:
        blocks = list(zip(*groups, strict=True))
        ids = [[answer_ids(vlm, row) for row in block] for block in blocks]
        encoded = batch_of(vlm, [prompts(group[0]) for group in groups], ids)
        rows = {name: value.to(vlm.device) for name, value in encoded.rows.items()}
        images = {name: value.to(vlm.device) for name, value in encoded.images.items()}
        with torch.no_grad(), autocast(vlm):
            features = encode_images(vlm.model, images)
            logps, mask = token_logps(vlm.model, rows, images, len(blocks), features)
        for row, values, kept in zip(chain(*blocks), logps.cpu(), mask.cpu(), strict=True):
            if row.key in missing:
                shard[row.key] = values[kept].clone()
        if len(shard) >= SHARD_ROWS:
            yield shard
            shard = {}
    if shard:
        yield shard


def _save(folder: Path, model: str, shard: Mapping[str, Tensor], lengths: Mapping[str, int]) -> None:
    """Write a shard in one step, under a name that follows from its rows."""
    tokens = json.dumps({key: lengths[key] for key in shard})
    content = save(dict(shard), metadata={"model": model, "prompt_tokens": tokens})
    write_atomically(folder / f"references-{content_key(sorted(shard))}.safetensors", content)


def _load(folder: Path, model: str) -> References:
    """All shards of this model in the folder; those of another one are left alone."""
    logps: dict[str, Tensor] = {}
    prompt_tokens: dict[str, int] = {}
    for path in sorted(folder.glob("references-*.safetensors")) if folder.exists() else ():
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                if metadata["model"] == model:
                    logps |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
                    prompt_tokens |= json.loads(metadata["prompt_tokens"])
        except SafetensorError as error:
            raise TrainingError(
                f"{path} is broken ({error}); delete it, and what it held is computed again"
            ) from error
    return References(model, logps, prompt_tokens)
