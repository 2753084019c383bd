"""A Ray cluster: row stages as Ray Data over actors that each hold a model, trainings through Ray Train.

Every host sees the run folder under the same path. The driver alone writes the run: actors hand back what they made of
a batch, so that a batch that was lost with its host is done again and nothing stands twice. What is scheduled, tried
again and moved is Ray's business.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import ray
    import ray.data
    import ray.train
    from ray.train.torch import TorchTrainer
except ImportError as _error:
    _missing: ImportError | None = _error
else:
    _missing = None

from radpref.config import EngineSection
from radpref.errors import RadprefError
from radpref.files import StoreError, write_atomically
from radpref.records import Quarantined, Record
from radpref.runs.context import Context
from radpref.runs.engine.local import Processes, started
from radpref.runs.rows import Batch, ids_of, made_of
from radpref.runs.stage import Fact, Outcome, Ranks, Rows, Stage
from radpref.runs.table import Made

_OUTCOME = "outcome.json"
TRIES = 3
"""How often a training is begun again, from its last checkpoint, after a host was lost."""


ALONE = Processes()


class EngineError(RadprefError):
    """A cluster that cannot be used; the message says why and what to do."""


def connect(section: EngineSection) -> RayEngine:
    """The engine on a cluster that is there, or on one that is started here. Raises EngineError."""
    if _missing is not None:
        raise EngineError(f"engine.name is ray, which is not installed: pip install 'radpref[ray]' ({_missing}).")
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
        try:
            ray.init(address=section.address, logging_level=logging.WARNING, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"there is no Ray cluster at engine.address {section.address!r} ({error}). Start one with `ray start "
                "--head`, or leave engine.address out to start one on this machine."
            ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return RayEngine(section)


class _Worker:
    """An actor: it holds the stage's model, and makes rows of batches."""

    def __init__(self, work: Rows[Record], context: Context, todo: str) -> None:
        self._work, self._context, self._todo = work, context, Path(todo)
        context.processes = Processes()

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Make the rows of the batch that begins at ``row["at"]`` of the list of what is to be done."""
        with self._todo.open("rb") as lines:
            lines.seek(int(row["at"]))
            told = json.loads(lines.readline())
        paths = {"root": self._context.root}
        items = [self._work.item.model_validate(item, context=paths) for item in told["items"]]
        made = made_of(self._work, self._context, Batch(told["number"], items, told["keys"]))
        return {"made": json.dumps([_plain(one, paths) for one in made])}


def _plain(made: Made, paths: dict[str, Path]) -> dict[str, Any]:
    return {
        "item": made.item,
        "key": made.key,
        "rows": [row.model_dump(mode="json", context=paths) for row in made.rows],
        "refused": [row.model_dump() for row in made.refused],
    }


@dataclass(frozen=True)
class RayEngine:
    """The work of a stage on a cluster; this process is the driver."""

    section: EngineSection
    processes: Processes = ALONE

    def rows(
        self, stage: Stage, work: Rows[Record], context: Context, missing: Iterable[Batch]
    ) -> Iterator[list[Made]]:
        """What actors make of the missing batches, in the order in which they come back."""
        todo = context.folder / f"{work.into.name}.todo"
        places = _write_todo(todo, missing, {"root": context.root})
        if not places:
            return
        batches = ray.data.from_items([{"at": at} for at in places], override_num_blocks=len(places))
        done = batches.map(
            _Worker,
            fn_constructor_args=(work, context, str(todo)),
            concurrency=min(self.section.workers, len(places)),
            num_cpus=self.section.cpus,
            num_gpus=self.section.gpus or None,
        )
        paths = {"root": context.root}
        try:
            for row in done.iter_rows():
                yield [
                    Made(
                        one["item"],
                        one["key"],
                        [work.into.row.model_validate(made, context=paths) for made in one["rows"]],
                        [Quarantined.model_validate(refused) for refused in one["refused"]],
                    )
                    for one in json.loads(row["made"])
                ]
        except ray.exceptions.RayError as error:
            raise _explained(error, f"`{stage.name}`") from error
        todo.unlink(missing_ok=True)

    def together(self, stage: Stage, work: Ranks, context: Context) -> Outcome:
        """A training by workers that Ray Train starts and joins; of them the first writes the run."""
        trainer = TorchTrainer(
            _train,
            train_loop_config={"work": work, "context": context, "cpu": not self.section.gpus},
            scaling_config=ray.train.ScalingConfig(
                num_workers=self.section.workers,
                use_gpu=bool(self.section.gpus),
                resources_per_worker={
                    "CPU": self.section.cpus,
                    **({"GPU": self.section.gpus} if self.section.gpus else {}),
                },
            ),
            run_config=ray.train.RunConfig(
                name=context.folder.name,
                storage_path=str(context.folder / "ray"),
                failure_config=ray.train.FailureConfig(max_failures=TRIES),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # Ray wraps whatever a worker raised
            raise _explained(error, f"`{stage.name}`") from error
        return _read_outcome(context, stage)


def _write_todo(path: Path, missing: Iterable[Batch], paths: dict[str, Path]) -> list[int]:
    """Write the missing batches, a line each; returns where each begins."""
    places: list[int] = []
    at = 0
    lines: list[bytes] = []
    for batch in missing:
        line = {
            "number": batch.number,
            "keys": [key for _, key in ids_of(batch)],
            "items": [item.model_dump(mode="json", context=paths) for item in batch.items],
        }
        lines.append(json.dumps(line).encode() + b"\n")
        places.append(at)
        at += len(lines[-1])
    if places:
        write_atomically(path, b"".join(lines))
    return places


def _train(config: dict[str, Any]) -> None:
    """What each worker of a training does."""
    context: Context = config["context"]
    processes = started("cpu" if config["cpu"] else "auto")
    context.enter(processes)
    outcome = config["work"].work(context)
    if processes.first:
        _write_outcome(context, outcome)
    processes.wait()


def _write_outcome(context: Context, outcome: Outcome) -> None:
    facts = {name: fact.model_dump(mode="json", context={"root": context.root}) for name, fact in outcome.facts.items()}
    content = {**outcome._asdict(), "facts": facts, "counts": dict(outcome.counts)}
    write_atomically(context.folder / _OUTCOME, json.dumps(content))


def _read_outcome(context: Context, stage: Stage) -> Outcome:
    """What the first worker's work came to; worker and driver meet in the run folder alone."""
    path = context.folder / _OUTCOME
    content = json.loads(path.read_text("utf-8"))
    path.unlink()
    kinds = {port.name: port.kind for port in stage.writes if isinstance(port, Fact)}
    paths = {"root": context.root}
    facts = {name: kinds[name].model_validate(fact, context=paths) for name, fact in content["facts"].items()}
    return Outcome(**{**content, "facts": facts})


def _explained(error: BaseException, what: str) -> RadprefError:
    """Our own error that a worker raised, or what became of the worker."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RadprefError):
            return cause
        inner = getattr(cause, "cause", None) or cause.__cause__
        failures = getattr(cause, "worker_failures", None)
        inner = next(iter(failures.values()), inner) if failures else inner
        cause = inner if isinstance(inner, BaseException) and inner is not cause else None
    return StoreError(f"{what} failed on the cluster: {str(error).strip().splitlines()[-1]}. The same command goes on.")


__all__ = ["EngineError", "RayEngine", "connect"]
