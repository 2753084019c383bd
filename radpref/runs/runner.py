"""The one runner of all stages: what is up to date, what is to be done, and the doing of it.

Everything that an author of a stage could forget follows here from what it declares: the key of its results, what is
outdated by which change, resuming, limits, batches, progress, quarantine, and the mark at the end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from itertools import compress
from typing import NamedTuple

from radpref.config import Recipe, UndeclaredKeyError, covered, declared_values, fields, narrowed
from radpref.errors import RadprefError
from radpref.files import disk_errors
from radpref.outside import enough_memory
from radpref.records import Record, reasons
from radpref.rooms import models
from radpref.runs.context import QUARANTINED, Context, before, writer
from radpref.runs.engine.local import Engine
from radpref.runs.folder import Mark, Run, RunError
from radpref.runs.progress import stopwatch
from radpref.runs.rows import Batch, batches, ids_of
from radpref.runs.stage import Basis, Outcome, Ranks, Road, Rows, Stage, TableOf
from radpref.versions import ROOMS


class State(NamedTuple):
    """Whether a stage's results are there."""

    finished: str
    """``yes``; ``no``; ``outdated``: what they were made from has changed; ``damaged``: they are not as written;
    ``unknown``: what they follow from cannot be read now, as of a model that was moved."""
    why: tuple[str, ...] = ()
    """What has changed."""
    basis: Basis | None = None
    """What its results would follow from now; None where a stage before it is not done or it cannot be known."""


# ------------------------------------------------------------------------------------------ what is there


def settled(run: Run) -> Recipe:
    """The recipe with ``run.precision: auto`` settled: what it came to once on a kind of device stays for the run."""
    section = run.recipe.run
    if section.precision != "auto":
        return run.recipe
    device = models.pick_device(section.device)
    known = (run.read_json("precision.json") or {}).get(device.type)
    precision = models.settle_precision(device) if known is None else known
    return run.recipe.model_copy(update={"run": section.model_copy(update={"precision": precision})})


def keep_precision(run: Run, recipe: Recipe) -> None:
    """Write down what ``run.precision: auto`` came to in the settled recipe, where that has not been done."""
    if run.recipe.run.precision == "auto":
        kind = models.pick_device(run.recipe.run.device).type
        known = run.read_json("precision.json") or {}
        if kind not in known:
            run.write_json({**known, kind: recipe.run.precision}, "precision.json")


def states(run: Run, road: Road, recipe: Recipe | None = None) -> dict[str, State]:
    """Each stage's state, in order. ``recipe`` is the settled one."""
    recipe = settled(run) if recipe is None else recipe
    marks: dict[str, Mark] = {}
    found: dict[str, State] = {}
    for stage in road:
        mark = run.mark(stage.name)
        earlier = before(road, stage)
        needs = {one.name for port in (*stage.reads, *stage.may_read) if (one := writer(earlier, port))}
        behind = [name for name in needs if found[name].finished != "yes"]
        try:
            basis = None if behind else basis_of(stage, road, marks, recipe)
        except UndeclaredKeyError:  # a mistake in a stage, not something that has gone
            raise
        except RadprefError as error:
            found[stage.name] = State("unknown" if mark else "no", (" ".join(str(error).split()),))
            continue
        if mark is None:
            found[stage.name] = State("no", (), basis)
        elif basis is None:
            outdated = any(found[name].finished != "unknown" for name in behind)
            word, how = ("outdated", "behind") if outdated else ("unknown", "unknown")
            found[stage.name] = State(word, tuple(f"`{name}` is {how}" for name in sorted(behind)))
        elif changes := basis.changes(mark.basis):
            found[stage.name] = State("outdated", tuple(changes), basis)
        elif damage := _damage(run, stage, mark):
            found[stage.name] = State("damaged", (damage,), basis)
        else:
            found[stage.name] = State("yes", (), mark.basis)  # whose rows have its keys, not those of a later version
            marks[stage.name] = mark
    return found


def basis_of(stage: Stage, road: Road, marks: Mapping[str, Mark], recipe: Recipe) -> Basis:
    """What a stage's results follow from now, given the marks of the stages that it reads."""
    identity = {one.name: one.of(narrowed(recipe, one.keys)) for one in stage.identities}
    versions = {f"the code of {room}": str(ROOMS[room]) for room in stage.rooms}
    inputs = {}
    for port in (*stage.reads, *stage.may_read):
        one = writer(before(road, stage), port)
        if one is not None:
            inputs[f"{one.name}/{port.name}"] = marks[one.name].digest(port.name)
    return Basis(declared_values(recipe, stage.config), identity | versions, inputs)


def _damage(run: Run, stage: Stage, mark: Mark) -> str:
    """What of a finished stage is not what it wrote; empty where all is well."""
    for name, digest in mark.tables.items():
        port = next((port for port in stage.writes if port.name == name), QUARANTINED)
        if isinstance(port, TableOf) and run.table(stage.name, port).digest() != digest:
            return f"{stage.name}/{name}.jsonl is not as it was written"
    return ""


# ------------------------------------------------------------------------------------------ doing it


def check(road: Road, recipe: Recipe) -> None:
    """Everything that can be known before any work, of all stages. Raises an error that reaches the user."""
    for stage in road:
        stage.check(narrowed(recipe, (*stage.readable, *stage.checked)))


def run_stage(run: Run, road: Road, stage: Stage, recipe: Recipe, engine: Engine, *, limit: int | None = None) -> None:
    """Bring one stage up to date: do what is missing, mark it, say what it did. All processes enter together.

    The stages that it reads are up to date.
    """
    memory = enough_memory(f"`{stage.name}`", _lower(stage))
    with stopwatch() as seconds, memory, disk_errors(run.path(stage.name)):
        state = engine.processes.share(states(run, road, recipe)[stage.name])
        run.event(stage.name, "started", limit=limit, basis=state.basis.key if state.basis else None)
        if state.basis is None:
            raise RunError(f"{stage.name} cannot be done: {'; '.join(state.why)}")
        stale = engine.processes.share(_stale(run, stage))
        if state.finished == "yes" and not (stage.outside or stale):
            line = "up to date"
        else:
            context = Context(run, road, stage, recipe, engine.processes, limit, state.basis)
            line = _work(run, stage, context, engine, state.basis)
    run.event(stage.name, "finished", seconds=seconds[0], result=line)
    if run.main:
        print(f"{stage.name:9} {line}  [{seconds[0]:.1f} s]", file=sys.stderr, flush=True)


_LARGE = ("batch", "image_batch", "max_new_tokens", "max_length", "max_pixels", "questions", "max_images", "n")
"""Keys by which the memory of a stage grows."""


def _lower(stage: Stage) -> str:
    """The settings of a stage that memory grows with, as a message names them."""
    if "*" in stage.readable:  # it tells of all settings, and grows with its own
        return ", ".join(key for key, _ in fields() if key.startswith(f"{stage.name}."))
    every = [key for key, _ in fields() if covered(key, stage.readable)]
    large = [key for key in every if key.rpartition(".")[2] in _LARGE and not key.startswith("data.phantom")]
    return ", ".join(large) or "data.train, data.validation, data.test"


def _stale(run: Run, stage: Stage) -> bool:
    """Whether a row of a finished table is to be made once more: a server was away."""
    work = stage.work
    if not isinstance(work, Rows) or work.again is None or not run.main:
        return False
    return any(work.again(row) for port in (work.into, QUARANTINED) for row in run.table(stage.name, port))


def _work(run: Run, stage: Stage, context: Context, engine: Engine, basis: Basis) -> str:
    processes = engine.processes
    if run.main:
        run.path(stage.name).mkdir(parents=True, exist_ok=True)
        if not stage.outside:
            run.begin(stage.name)
    processes.wait()
    if isinstance(stage.work, Rows):
        outcome = _rows(run, stage, stage.work, context, engine, basis)
    elif isinstance(stage.work, Ranks):
        outcome = engine.together(stage, stage.work, context)
    else:
        outcome = stage.work.work(context) if processes.first else Outcome("")
    outcome = processes.share(outcome)
    if outcome.finished and run.main:
        _finish(run, stage, basis, outcome, tuple(context.published))
    processes.wait()
    return outcome.line


def _finish(run: Run, stage: Stage, basis: Basis, outcome: Outcome, published: tuple[str, ...]) -> None:
    tables = {
        port.name: run.table(stage.name, port).digest()
        for port in (*stage.writes, QUARANTINED)
        if isinstance(port, TableOf) and run.path(stage.name, f"{port.name}.jsonl").exists()
    }
    context = {"root": run.root}
    facts = {name: fact.model_dump(mode="json", context=context) for name, fact in outcome.facts.items()}
    missing = {port.name for port in stage.writes} - tables.keys() - facts.keys()
    if missing:
        raise RunError(f"`{stage.name}` declares that it writes {', '.join(sorted(missing))}, and has not.")
    counts = dict(outcome.counts)
    run.finish(stage.name, Mark(basis=basis, tables=tables, facts=facts, counts=counts, published=published))
    for port in stage.writes:
        if isinstance(port, TableOf):
            run.table(stage.name, port).tidy()


def _rows(run: Run, stage: Stage, work: Rows[Record], context: Context, engine: Engine, basis: Basis) -> Outcome:
    """Fill the table of a row stage: what is missing of it, divided among all, then one merge."""
    processes, table = engine.processes, run.table(stage.name, work.into)
    if run.main:
        table.reopen()
    processes.wait()
    known = table.known(work.again)
    began = time.monotonic()
    bar = context.progress(total=work.total(context), unit=work.unit)
    done = left = rows = 0

    def missing() -> Iterator[Batch]:
        nonlocal done, left
        now = 0
        for batch in batches(context, stage, work, basis):
            count = len(batch.items)
            lacks = [entry not in known for entry in ids_of(batch)]
            if not any(lacks):
                bar.update(len(batch.items))
            elif context.limit is not None and now >= context.limit:
                left += len(batch.items)
                continue
            else:
                now += len(batch.items)
                if work.alone(context.config):
                    bar.update(len(batch.items) - sum(lacks))
                    batch = Batch(batch.number, list(compress(batch.items, lacks)), list(compress(batch.keys, lacks)))
                yield batch
            done += count

    for made in engine.rows(stage, work, context, missing()):
        table.append(processes.rank, made)
        rows += sum(len(one.rows) for one in made)
        bar.update(len(made))
    bar.close()
    rows = sum(processes.gather(rows))
    rate = f", {rows / max(time.monotonic() - began, 1e-9):.1f} rows a second" if rows else ""
    if left:
        return Outcome(f"{done} of {done + left} {work.unit} (--limit){rate}", finished=False)
    if not run.main:
        return Outcome("")
    order = (entry for batch in batches(context, stage, work, basis) for entry in ids_of(batch))
    merged = table.merge(order, work.most(context.config))
    context.write(QUARANTINED, merged.refused)
    outcome = work.close(context, merged)
    refused = f"; {len(merged.refused)} quarantined{reasons(merged.refused)}" if merged.refused else ""
    return outcome._replace(line=f"{outcome.line}{refused}{rate}")
