"""Fuzz every reader of what comes from outside: ``python benchmarks/fuzz.py --seconds 3600``, or ``make fuzz``.

Led by coverage where atheris is installed (``pip install atheris``); else what hypothesis makes of good inputs. Each
reader (``tests/fuzzed.py``) has a process, a corpus that later runs go on from (``--corpus``), and its share of the
time. What crashes one, or takes longer than ``--hang`` seconds, is kept in ``tests/cases/crashes``, where the tests run
it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

ATHERIS = importlib.util.find_spec("atheris") is not None
with contextlib.ExitStack() as led:
    if ATHERIS and "--reader" in sys.argv:
        import atheris

        led.enter_context(atheris.instrument_imports(include=["radpref", "yaml", "tarfile", "pydicom", "jinja2"]))
    from tests.fuzzed import CRASHES, READERS, survives


def keep(name: str, content: bytes) -> Path:
    """Keep what crashed a reader as a case of the tests."""
    path = CRASHES / name.replace(" ", "_") / hashlib.sha256(content).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class HangError(BaseException):
    """A reader is still at work."""


class Watched:
    """One reader with its count of inputs, crashes kept and hangs ended."""

    def __init__(self, name: str, hang: int, until: float) -> None:
        self.name, self.hang, self.until = name, hang, until
        self.inputs = 0
        self.crashes: dict[str, str] = {}
        signal.signal(signal.SIGALRM, self._stop)

    def _stop(self, _: int, frame: FrameType | None) -> None:
        raise HangError(f"still at work after {self.hang} s")

    def __call__(self, content: bytes) -> None:
        if time.monotonic() > self.until:
            self.report()
        self.inputs += 1
        signal.alarm(self.hang)
        try:
            survives(self.name, content)
        except (Exception, HangError) as error:
            signal.alarm(0)
            trace, where = error.__traceback__, ""
            while trace is not None:
                where, trace = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}", trace.tb_next
            kind = f"{type(error).__name__} at {where}"
            if kind not in self.crashes:
                self.crashes[kind] = str(keep(self.name, content).relative_to(HERE))
        finally:
            signal.alarm(0)

    def report(self) -> None:
        """Say what was done, and end the process: libFuzzer does not return."""
        print(json.dumps({"inputs": self.inputs, "crashes": self.crashes}), flush=True)
        os._exit(0)


def by_coverage(watched: Watched, corpus: Path) -> None:
    """atheris: inputs that reach new code are kept in the corpus."""
    quiet = ("-max_len=8192", "-verbosity=0", "-print_final_stats=0", f"-artifact_prefix={corpus.parent}/")
    atheris.Setup([sys.argv[0], str(corpus), *quiet], watched)
    atheris.Fuzz()


def by_examples(watched: Watched) -> None:
    """hypothesis: good inputs, spoilt."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    from tests.test_fuzz import spoilt

    seeds = READERS[watched.name].seeds

    @settings(max_examples=2000, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.one_of(spoilt(seeds), spoilt(seeds), st.binary(max_size=2000)))
    def run(content: bytes) -> None:
        watched(content)

    while True:
        run()


def one(name: str, seconds: float, corpus: Path, hang: int) -> None:
    """Fuzz one reader in this process, which ends with it."""
    survives(name, READERS[name].seeds[0])  # what is imported with the first input counts as no hang
    watched = Watched(name, hang, time.monotonic() + seconds)
    if ATHERIS:
        folder = corpus / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        for seed in READERS[name].seeds:
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
        by_coverage(watched, folder)
    else:
        by_examples(watched)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600, help="for all readers together")
    parser.add_argument("--corpus", type=Path, default=HERE / "runs" / "fuzz", help="inputs that reached new code")
    parser.add_argument("--hang", type=int, default=10, help="seconds after which a reader hangs")
    parser.add_argument("--reader", choices=list(READERS), help="one reader alone, in this process")
    parser.add_argument("--out", type=Path, help="write the counts there (JSON)")
    given = parser.parse_args()
    if given.reader:
        one(given.reader, given.seconds, given.corpus, given.hang)
    found: dict[str, Any] = {}
    for name in READERS:
        share = given.seconds / len(READERS)
        words = ["--reader", name, "--seconds", str(share), "--corpus", str(given.corpus), "--hang", str(given.hang)]
        done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, cwd=HERE)
        last = (done.stdout.strip().splitlines() or [""])[-1]
        found[name] = (
            json.loads(last) if last.startswith("{") else {"ended": done.returncode, "said": done.stderr[-500:]}
        )
        print(name, found[name], flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    broken = [name for name, one in found.items() if one.get("crashes", True)]
    print(f"{sum(one.get('inputs', 0) for one in found.values()):,} inputs; broken: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
