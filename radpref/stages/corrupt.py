"""The corrupt stage: the other image of every pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from radpref.config import CorruptSection, RecipeError
from radpref.files import content_key
from radpref.records import ImageFile, Pair, Quarantined
from radpref.run.folder import Run, RunError, progress
from radpref.stages.common import fine_tuned, load, reasons

BATCH = 32
"""Pairs between two writes of the table."""


def corrupt(run: Run, limit: int | None = None) -> str:
    """Corrupted images for every pair of the pair stage; what is there from the same settings is kept.

    Raises:
        RecipeError: ``corrupt.masks`` names the segmenter, but ``corrupt.segmenter`` no checkpoint.
        ModelError: the segmenter, or the model whose evidence is asked for, cannot be used.
    """
    from radpref.images import ImageError
    from radpref.pairs.corrupt import VERSION, corrupt_pair

    section = run.recipe.corrupt
    check_corrupt(section)
    pairs = run.rows("pair", "pairs", Pair)
    folder = run.path("corrupt", "images").resolve()
    key = content_key("corrupt", VERSION, section.model_dump(), _versions(run, section))
    keys = {pair.id: content_key(key, _content(pair)) for pair in pairs}
    table, failed = run.table("corrupt", "pairs", Pair), run.table("corrupt", "quarantined", Quarantined)
    masks = run.table("corrupt", "masks-quarantined", Quarantined)

    def complete(pair: Pair) -> bool:
        row = table.get(pair.id, keys[pair.id])
        there = row is not None and all(Path(image.path).exists() for image in row.corrupted)
        return there or failed.get(pair.id, keys[pair.id]) is not None

    todo = [pair for pair in pairs if not complete(pair)]
    if todo or not run.done("corrupt"):
        run.begin("corrupt")
    providers = providers_of(section, run.recipe.run.device, lambda: load(run, fine_tuned(run)[0]))
    now = todo if limit is None else todo[:limit]
    bar = progress(total=len(pairs), done=len(pairs) - len(todo), unit="pairs", what="corrupt")
    for start in range(0, len(now), BATCH):
        good, bad, broken = [], [], []
        for pair in now[start : start + BATCH]:
            try:
                made = corrupt_pair(pair, section, folder, providers)
                good.append((keys[pair.id], made.pair))
                broken += [(keys[pair.id], row) for row in made.broken]
            except ImageError as error:
                bad.append((keys[pair.id], Quarantined(id=pair.id, stage="corrupt", reason=error.reason)))
        masks.append(broken)
        failed.append(bad)
        table.append(good)
        bar.update(len(good) + len(bad))
    bar.close()
    if len(now) < len(todo):
        return f"{len(pairs) - len(todo) + len(now)} of {len(pairs)} pairs (--limit)"
    wanted = {pair.id for pair in pairs}
    refused = failed.finish(pair.id for pair in pairs if failed.get(pair.id, keys[pair.id]))
    out = {row.id for row in refused}
    rows = table.finish(pair.id for pair in pairs if pair.id not in out)
    broken_masks = masks.finish(row.id for row in masks if row.id.rpartition("#")[0] in wanted)
    _remove_others(folder, rows)
    if not rows:
        raise RunError(f"no pair is left to corrupt: {len(refused)} quarantined{reasons(refused)}.")
    paths = Counter(row.provenance["corruption_path"] for row in rows)
    facts = {
        "paths": dict(paths.most_common()),
        "why": dict(Counter(row.provenance.get("corruption_why", "") for row in rows).most_common()),
        "masks_quarantined": len(broken_masks),
    }
    run.write_json(facts, "corrupt", "statistics.json")
    run.finish("corrupt", run.digest("corrupt", "pairs"), pairs=len(rows), paths=dict(paths))
    told = ", ".join(f"{path} {count / len(rows):.1%}" for path, count in paths.most_common())
    lost = f"; {len(broken_masks)} masks quarantined{reasons(broken_masks)}" if broken_masks else ""
    gone = f"; {len(refused)} pairs quarantined{reasons(refused)}" if refused else ""
    return f"{len(rows)} pairs, {section.operator}: {told}{lost}{gone}"


def check_corrupt(section: CorruptSection) -> None:
    """What can be known of the section before any work. Raises RecipeError."""
    if "segmenter" in section.masks and section.segmenter is None:
        raise RecipeError(
            "`corrupt.masks` names the segmenter, but `corrupt.segmenter` is not set; give the folder of a SAM 3 "
            "checkpoint or its name on the hub, or leave segmenter out of corrupt.masks."
        )


def providers_of(section: CorruptSection, device: str, model: Callable[[], Any] | None = None) -> dict[str, Any]:
    """The providers that ``section.masks`` may name; a model is loaded when it is first asked.

    ``device`` as in the recipe's run section; ``model`` gives the model whose evidence may be asked for.
    """
    from radpref.pairs.corrupt import by_prompt, own

    @cache
    def segmenter() -> Any:
        from radpref.models import pick_device
        from radpref.models.segmenter import load_segmenter

        return load_segmenter(str(section.segmenter), score=section.segmenter_score, device=pick_device(device))

    def segment(picture: Image.Image, names: Sequence[str]) -> Any:
        from radpref.models.segmenter import segment

        return segment(segmenter(), picture, names)

    found = {"own": own, "segmenter": by_prompt(segment)}
    return found if model is None else {**found, "evidence": _evidence(cache(model), section.quantile)}


def _evidence(model: Callable[[], Any], quantile: float) -> Any:
    def locate(pair: Pair, pictures: Sequence[Image.Image]) -> Any:
        from radpref.grounding.evidence import locate

        return locate(model(), pair, pictures, quantile)

    return locate


def _versions(run: Run, section: CorruptSection) -> Mapping[str, str]:
    """The weights that the masks depend on."""
    found = {}
    if "evidence" in section.masks:
        found["evidence"] = fine_tuned(run)[1]
    if "segmenter" in section.masks:
        found["segmenter"] = str(section.segmenter)
    return found


def _content(pair: Pair) -> Any:
    """What a pair's images and masks follow from, wherever the files lie."""
    return [pair.model_dump(exclude={"images", "corrupted"}), [_marks(image) for image in pair.images]]


def _marks(image: ImageFile) -> Any:
    from radpref.images import ImageError, image_hash, image_key

    def hashed(path: str) -> str:
        try:
            return image_hash(ImageFile(path=path))
        except ImageError:
            return ""

    boxes = {name: [box.model_dump() for box in drawn] for name, drawn in image.boxes.items()}
    return [image_key(image), {name: hashed(path) for name, path in image.masks.items()}, boxes]


def _remove_others(folder: Path, rows: Sequence[Pair]) -> None:
    """Images that no pair has any more: those of other settings."""
    kept = {Path(image.path).name for row in rows for image in row.corrupted}
    for path in folder.glob("*.png"):
        if path.name not in kept:
            path.unlink()
