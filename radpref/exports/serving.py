"""How to start servers for the models that a run is about to ask: ``radpref serve-command``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from radpref.files import read_json
from radpref.records import Weights
from radpref.rooms import models
from radpref.runs.context import Context, Left, section_of
from radpref.runs.engine.local import Processes
from radpref.runs.folder import Run, RunError
from radpref.runs.runner import settled, states
from radpref.runs.stage import Road, Stage
from radpref.stages.answers import ANSWER, PREDICT, SAMPLE, VALIDATE, measured_systems, validated_systems
from radpref.stages.ports import MODEL

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as ``--max-lora-rank``."""
_SYSTEMS = {VALIDATE.name: validated_systems, PREDICT.name: measured_systems}


def serve_command(run: Run, road: Road, stage: str | None = None) -> str:
    """Lines for a shell that start vLLM with the models that a stage asks, and what to tell radpref.

    Args:
        run: the run.
        road: its stages.
        stage: sample, answer, validate or predict; the next one that is not finished where it is None.

    Raises:
        RunError: the method has no such stage, or what it asks is not there yet.
    """
    found = _stage(run, road, stage)
    own = [one.weights for one in _SYSTEMS[found.name](_context(run, road, found))] if found.name in _SYSTEMS else None
    weights = own if own is not None else [_model(run, road)]
    key = "evaluate.server" if own is not None else "sample.server"
    bases = list(dict.fromkeys((one.path, one.revision) for one in weights))
    lines, ports = [f"# the models that `radpref {found.name} {run.folder}` asks"], count(8000)
    addresses = []
    for path, revision in bases:
        port = next(ports)
        addresses.append(f"http://localhost:{port}/v1")
        lines.append(_vllm([one for one in weights if (one.path, one.revision) == (path, revision)], run, port))
    lines.append(f"# then: radpref {found.name} {run.folder} --{key} {','.join(addresses)}")
    return "\n".join(lines)


def _stage(run: Run, road: Road, name: str | None) -> Stage:
    able = [stage for stage in road if stage.name in {one.name for one in (SAMPLE, ANSWER, VALIDATE, PREDICT)}]
    if name is not None:
        found = next((stage for stage in able if stage.name == name), None)
        if found is None:
            known = ", ".join(stage.name for stage in able)
            raise RunError(f"{run.folder} has no stage {name!r} that a server could answer for; it has {known}.")
        return found
    now = states(run, road)
    return next((stage for stage in able if now[stage.name].finished != "yes"), able[-1])


def _context(run: Run, road: Road, stage: Stage) -> Context:
    return Context(run, road, stage, settled(run), Processes())


def _model(run: Run, road: Road) -> Weights:
    found = Left(run, road).fact(MODEL)
    if found is None:
        raise RunError(f"{run.folder} has no fine-tuned model yet; `radpref sft {run.folder}` makes it.")
    return found


def _vllm(weights: Sequence[Weights], run: Run, port: int) -> str:
    """One server: a base under the name of its weights where it is asked itself, and adapters on it."""
    base, adapters = weights[0].path, [one for one in weights if one.adapter]
    base = str(models.locate(section_of(weights[0]))) if base == "builtin" else base
    itself = next((models.served_name(one.fingerprint) for one in weights if not one.adapter), None)
    dtype = {"float32": "float32", "bfloat16": "bfloat16"}[settled(run).run.precision]
    words = ["vllm", "serve", base, "--port", str(port), "--dtype", dtype]
    words += ["--revision", str(weights[0].revision)] if weights[0].revision else []
    words += ["--served-model-name", itself] if itself else []
    words += ["--generation-config", "vllm"]  # the checkpoint's own temperature and top_p are not the recipe's
    words += ["--limit-mm-per-prompt", json.dumps({"image": run.recipe.data.max_images})]
    if adapters:
        settings = [read_json(Path(str(one.adapter)) / "adapter_config.json") for one in adapters]
        rank = max(int(one["r"]) for one in settings)
        words += ["--enable-lora", "--max-lora-rank", str(next((r for r in _RANKS if r >= rank), rank))]
        words += ["--lora-modules"]
        words += [f"{models.served_name(one.fingerprint)}={one.adapter}" for one in adapters]
    return shlex.join(words)
