"""Kill runs at random, take away their disk and their server, and compare what comes out with a run nobody stopped.

``python benchmarks/chaos.py --kills 50 --seconds 3600``, or ``make chaos``. Each trial goes on from a copy of a
finished run of which a stage and all after it are taken away; while that stage works, SIGKILL, SIGTERM or SIGINT comes
at a random moment, up to three times, to one process or to one of two. Then the same command is given until it ends.
What ends must equal the unstopped run: every table and metrics.json byte for byte, every adapter by hash.
Faults besides: a disk that is full (a small tmpfs, where there is the right to mount one), a folder that cannot be
written, a chat judge's server that goes away in the middle.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from radpref.pipeline import METHODS  # noqa: E402

SMALL = (
    "--data.train 8 --data.validation 2 --data.test 3 --run.threads 1 --run.precision float32 --sft.enabled false "
    "--sample.max_new_tokens 64 --align.batch 4 --align.save_steps 1 --align.lr 5e-4 --align.accumulate 1 "
    "--align.gradient_checkpointing false --evaluate.resamples 100 --report.studies 2 --report.pairs 2"
)
OF_METHOD = {
    "chexalign": "--sample.n 2 --pair.drop_unfinished false",
    "firempo": "--ground.studies 1 --ground.placements 1 --ground.attention false",
    "chexpo": "--task.per_study 2 --sample.max_new_tokens 12 --mine.budget 8 --mine.k 2 --align.epochs 1 "
    "--evaluate.controls [negated]",
    "grpo": "--grpo.steps 2 --grpo.questions 3 --grpo.n 2 --grpo.unfinished judged --sample.max_new_tokens 24",
}
"""So small that a road takes seconds; whatever its results are worth, they have to come out again."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FULL = "make room"
REFUSED = ("cannot write", "cannot read or write", "make room", "set that right", "Make it writable")


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    said: str


def words(method: str, folder: Path, *more: str) -> list[str]:
    """The command of a small run."""
    return ["run", method, "--preset", "tiny", "--out", str(folder), *SMALL.split(), *OF_METHOD[method].split(), *more]


@contextmanager
def started(command: list[str], processes: int, log: Path) -> Iterator[list[int]]:
    """The command at work, in processes of this one's own kin: what is loaded already need not be loaded again."""
    port = str(random.Random().randrange(20_000, 60_000))
    numbers = []
    for rank in range(processes):
        number = os.fork()
        if number == 0:
            _child(command, rank, processes, port, log)
        numbers.append(number)
    try:
        yield numbers
    finally:
        for number in numbers:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(number, 0)


def _child(command: list[str], rank: int, processes: int, port: str, log: Path) -> None:
    status = 70
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if processes > 1:
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            os.environ |= {**place, "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        from radpref.cli import app

        sys.argv = ["radpref", *command]
        status = int(app(command, standalone_mode=False) or 0)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException as ended:
        status = getattr(ended, "exit_code", 1)
        if status == 1:
            import traceback

            traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def ended(numbers: list[int], log: Path, seconds: float = 600) -> Ended:
    """Wait for all; the first that does not end well says how it ended, and the others are given a moment."""
    left, worst, until = list(numbers), 0, time.monotonic() + seconds
    while left:
        for number in list(left):
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                left.remove(number)
                code = os.waitstatus_to_exitcode(status)
                worst = worst or code
                if code:
                    until = min(until, time.monotonic() + 20)  # torchrun ends the others; here they are ended
        if time.monotonic() > until:
            for number in left:
                os.kill(number, signal.SIGKILL)
            until = time.monotonic() + 60
            worst = worst or 71
        time.sleep(0.02)
    return Ended(worst, log.read_text("utf-8", errors="replace") if log.exists() else "")


def finish(command: list[str], processes: int, log: Path) -> Ended:
    """Give a command and wait for its end."""
    with started(command, processes, log) as numbers:
        return ended(numbers, log)


def result(folder: Path) -> dict[str, str]:
    """What a run comes to: its tables and adapters by hash, and the numbers of its metrics."""
    found = {}
    for path in sorted([*folder.glob("*/*.jsonl"), *folder.rglob("*.safetensors")]):
        name = str(path.relative_to(folder))
        if (
            path.name == "images-checked.jsonl"
            or "checkpoint-" in name
            or "answers" in name
            or path.name == "log.jsonl"
        ):
            continue
        if path.parent.parent.name == "prepare" or path.parent.name == "prepare":
            continue  # a cache: its parts are cut as the work was, and say the same
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    metrics = folder / "metrics.json"
    if metrics.exists():
        found["metrics.json"] = hashlib.sha256(metrics.read_bytes()).hexdigest()
    return found


def litter(folder: Path) -> list[str]:
    """What was being written when a process died and is still there."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*.unfinished")]


def without(whole: Path, folder: Path, method: str, stage: str) -> None:
    """A copy of a finished run that has to begin again with a stage."""
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns(".lock"))
    names = [one.name for one in METHODS[method]]
    for name in names[names.index(stage) :]:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("report.html", "metrics.json"):
        if stage != "report" or name != "metrics.json":
            (folder / name).unlink(missing_ok=True)


def events(folder: Path) -> list[dict[str, Any]]:
    """The event log as far as it can be read."""
    found = []
    with suppress(OSError):
        for line in (folder / "events.jsonl").read_text("utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return found


class Trial(NamedTuple):
    """What was done to a run, and what is wrong with what came out."""

    what: str
    method: str
    stage: str
    processes: int
    hits: tuple[str, ...]
    wrong: tuple[str, ...]


class Chaos:
    """Trials on copies of unstopped runs, which are made when they are first needed."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.random = home, random.Random(seed)
        self._number = 0
        home.mkdir(parents=True, exist_ok=True)

    def whole(self, method: str, processes: int) -> Path:
        """The unstopped run."""
        folder = self.home / f"whole-{method}-{processes}"
        if not (folder / "report.html").exists():
            done = finish(words(method, folder), processes, folder.with_suffix(".log"))
            if done.status:
                raise RuntimeError(f"the unstopped run of {method} fails: {done.said[-3000:]}")
        return folder

    def seconds(self, whole: Path, stage: str) -> float:
        """How long a stage took there."""
        took = [one["seconds"] for one in events(whole) if one.get("event") == "finished" and one["stage"] == stage]
        return float(took[-1]) if took else 1.0

    def place(self) -> Path:
        """A new folder for a trial."""
        self._number += 1
        return self.home / f"trial-{self._number}"

    def kill(self, method: str, stage: str, processes: int, times: int = 3) -> Trial:
        """Up to ``times`` signals while the stage works, then the same command until it ends."""
        whole = self.whole(method, processes)
        folder = self.place()
        without(whole, folder, method, stage)
        command, log, hits, wrong = words(method, folder), folder.with_suffix(".log"), list[str](), list[str]()
        for _ in range(self.random.randint(1, times)):
            which = self.random.choice(SIGNALS)
            before = len(events(folder))
            with started(command, processes, log) as numbers:
                self._until_at_work(folder, stage, before, numbers)
                time.sleep(self.random.uniform(0, 1.2 * self.seconds(whole, stage)))
                at = next((one["stage"] for one in reversed(events(folder)) if one.get("event") == "started"), "start")
                with suppress(ProcessLookupError):
                    os.kill(self.random.choice(numbers), which)
                done = ended(numbers, log)
            hits.append(f"{which.name} in {at}: {done.status}")
            if done.status == 0:
                break
            if which is signal.SIGINT and processes == 1 and done.status != 130:
                wrong.append(f"SIGINT in {at} ends with {done.status}: {done.said[-400:]}")
        wrong += self._compared(command, folder, whole, processes, log)
        return self._done(Trial("kill", method, stage, processes, tuple(hits), tuple(wrong)), folder)

    def full_disk(self, method: str, stage: str, megabytes: int) -> Trial:
        """A tmpfs without room; then it is given some."""
        whole, mount = self.whole(method, 1), self.place()
        mount.mkdir()
        used = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) >> 20
        with mounted(mount, f"size={used + 64}m") as remount:
            folder = mount / "run"
            without(whole, folder, method, stage)
            kept = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
            remount(f"remount,size={kept + (megabytes << 20)}")
            log = mount.with_suffix(".log")
            done = finish(words(method, folder), 1, log)
            wrong = []
            if done.status not in (0, 2) or "Traceback" in done.said or (done.status and FULL not in done.said.lower()):
                wrong.append(f"a full disk ends with {done.status}: {done.said[-600:]}")
            remount(f"remount,size={used + 400}m")
            wrong += self._compared(words(method, folder), folder, whole, 1, log)
        hits = (f"{megabytes} MB left: {done.status}",)
        return self._done(Trial("full disk", method, stage, 1, hits, tuple(wrong)), mount)

    def read_only(self, method: str, stage: str) -> Trial:
        """A folder that cannot be written; then it can."""
        whole, mount = self.whole(method, 1), self.place()
        mount.mkdir()
        with mounted(mount, "size=600m") as remount:
            folder = mount / "run"
            without(whole, folder, method, stage)
            remount("remount,ro")
            log = mount.with_suffix(".log")
            done = finish(words(method, folder), 1, log)
            said, wrong = " ".join(done.said.split()), []
            if done.status != 2 or "Traceback" in said or not any(word in said for word in REFUSED):
                wrong.append(f"a read-only folder ends with {done.status}: {done.said[-600:]}")
            remount("remount,rw")
            wrong += self._compared(words(method, folder), folder, whole, 1, log)
        return self._done(Trial("read-only", method, stage, 1, (str(done.status),), tuple(wrong)), mount)

    def lost_server(self) -> Trial:
        """A chat judge whose server goes away after some answers, lets nobody in, and comes back."""
        from tests.chat_server import Handler, say, scripted

        asked: Counter[str] = Counter()
        mood = {"left": 10**9}

        def script(handler: Handler, question: dict[str, Any], _: int) -> None:
            text = question["messages"][0]["content"]
            if mood["left"] <= 0:
                say(handler, "", self.random.choice((401, 403, 404)))
                return
            mood["left"] -= 1
            asked[text] += 1
            shown = text.split("=== candidate ")[1].split("===")[1]
            word = max(shown.split() or ["none"], key=len)
            score = int.from_bytes(hashlib.sha256(text.split("Answer with one")[0].encode()).digest()[:1], "big") % 4
            errors = [{"kind": "false_finding", "finding": "x", "significant": True, "reference": "", "candidate": ""}]
            matched = [{"finding": word, "candidate": word}]
            say(handler, json.dumps({"errors": errors * score, "matched": matched}))

        with scripted(script) as server:
            more = ["--judge.name", "chat", "--judge.server", server.url, "--judge.model", "m", "--judge.retries", "0",
                    "--judge.concurrency", "1"]  # fmt: skip
            whole = self.home / "whole-chat"
            if not (whole / "report.html").exists():
                done = finish(words("chexalign", whole, *more), 1, whole.with_suffix(".log"))
                if done.status:
                    raise RuntimeError(f"the unstopped run with a chat judge fails: {done.said[-3000:]}")
            folder, wrong = self.place(), list[str]()
            without(whole, folder, "chexalign", "judge")
            recipe = (folder / "recipe.yaml").read_text("utf-8")
            (folder / "recipe.yaml").write_text(recipe, "utf-8")
            asked.clear()
            mood["left"] = self.random.randint(1, 10)
            log = folder.with_suffix(".log")
            done = finish(words("chexalign", folder, *more), 1, log)
            if done.status != 2 or "takes no question" not in done.said or "Traceback" in done.said:
                wrong.append(f"a server that lets nobody in ends with {done.status}: {done.said[-600:]}")
            mood["left"] = 10**9
            wrong += self._compared(words("chexalign", folder, *more), folder, whole, 1, log)
            if twice := [count for count in asked.values() if count > 1]:
                wrong.append(f"{len(twice)} questions were asked again though they were answered")
        return self._done(Trial("lost server", "chexalign", "judge", 1, (str(done.status),), tuple(wrong)), folder)

    # -------------------------------------------------------------------------------------- parts

    def _until_at_work(self, folder: Path, stage: str, before: int, numbers: list[int]) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if any(one.get("event") == "started" and one["stage"] == stage for one in events(folder)[before:]):
                return
            if all(_gone(number) for number in numbers):
                return
            time.sleep(0.02)

    def _compared(self, command: list[str], folder: Path, whole: Path, processes: int, log: Path) -> list[str]:
        done = finish(command, processes, log)
        if done.status:
            return [f"the same command ends with {done.status}: {done.said[-1500:]}"]
        ours, theirs = result(folder), result(whole)
        wrong = [
            f"{name} differs" for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)
        ]
        return wrong + [f"left over: {name}" for name in litter(folder)]

    def _done(self, trial: Trial, folder: Path) -> Trial:
        if not trial.wrong:
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_suffix(".log").unlink(missing_ok=True)
        return trial


def _gone(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A tmpfs; yields a function that mounts it anew with other options. Raises OSError where that is not allowed."""

    def mount(how: str) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"no tmpfs can be mounted here: {done.stderr.strip()}")

    mount(options)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(place)], capture_output=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="trials that kill")
    parser.add_argument("--seconds", type=float, default=3600, help="no trial begins later")
    parser.add_argument("--methods", nargs="+", default=list(OF_METHOD), choices=list(OF_METHOD))
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, help="where runs are made; a temporary folder where absent")
    parser.add_argument("--out", type=Path, help="write the trials there (JSON)")
    given = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    import trl  # noqa: F401  # what children need is loaded once

    import radpref.models
    import radpref.training  # noqa: F401

    home = given.home or Path(tempfile.mkdtemp(prefix="chaos-"))
    chaos, trials, until = Chaos(home, given.seed), list[Trial](), time.monotonic() + given.seconds
    plan = [
        (method, stage.name, processes)
        for method in given.methods
        for stage in METHODS[method]
        for processes in given.processes
    ]
    faults: list[Callable[[], Trial]] = []
    for method, stage, processes in [chaos.random.choice(plan) for _ in range(given.kills)]:
        faults.append(lambda m=method, s=stage, p=processes: chaos.kill(m, s, p))  # type: ignore[misc]
    for method in given.methods:
        stage = chaos.random.choice(METHODS[method]).name
        room = chaos.random.choice((0, 1, 4, 12))
        faults.append(lambda m=method, s=stage, r=room: chaos.full_disk(m, s, r))  # type: ignore[misc]
        faults.append(lambda m=method, s=stage: chaos.read_only(m, s))  # type: ignore[misc]
    faults += [chaos.lost_server] * 2
    chaos.random.shuffle(faults)
    skipped = Counter[str]()
    for fault in faults:
        if time.monotonic() > until:
            break
        try:
            trials.append(fault())
        except OSError as error:
            skipped[str(error)] += 1
            continue
        last = trials[-1]
        print(f"{last.what} {last.method}/{last.stage} x{last.processes} {list(last.hits)} "
              f"{list(last.wrong) or 'equal'}", flush=True)  # fmt: skip
    if given.out:
        given.out.write_text(json.dumps([one._asdict() for one in trials], indent=1) + "\n", "utf-8")
    hits = sum(len(one.hits) for one in trials if one.what == "kill")
    wrong = [one for one in trials if one.wrong]
    print(f"{len(trials)} trials, {hits} signals, {dict(Counter(one.what for one in trials))}; wrong: {len(wrong)}"
          + (f"; skipped: {dict(skipped)}" if skipped else ""))  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
