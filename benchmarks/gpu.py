"""One GPU of 80 GB, in under eight minutes: our step against TRL's at real size, sampling, the whole road in 16 bit.

    python benchmarks/gpu.py [--out FILE] [--tiny] [--minutes 8] [--only TEXT ...]

Models have the shapes of Qwen3-VL-2B and Gemma-3-4B and random weights, so that nothing is downloaded. Parts come in
the order of their worth; one that would not end in time is left out, and said to be. ``--tiny`` takes the smallest
models of the same make, on whatever device there is: it shows that every part runs, and its numbers mean nothing.
``--only`` measures the parts alone whose title has one of the texts in it.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from radpref.bench.measure import Row, Setting, bench, section_of
from radpref.bench.real import SIZES, build
from radpref.bench.shapes import PROMPT, WORDS, pairs
from radpref.config import ModelSection, RunSection
from radpref.doctor import machine
from radpref.models import generate, load
from radpref.records import Question
from radpref.training.memory import estimate
from radpref.versions import installed

CORPUS = [" ".join(WORDS), PROMPT, "user assistant"]
RANK = 16


@dataclass
class Clock:
    """How much of the time is left."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.minutes * 60 - (time.monotonic() - self.began)


@dataclass
class Page:
    """What was measured, as Markdown."""

    tiny: bool
    out: Path | None
    """Written anew after every part, so that what was measured is there whatever ends the command."""
    only: tuple[str, ...] = ()
    """Texts: a part is measured if its title holds one of them; all are where there is none."""
    measured: int = 0
    """Parts that were begun."""
    lines: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def part(self, title: str, clock: Clock, needs: float, work: Callable[[], list[str]]) -> None:
        """A part of the page, where the time is enough for it; what fails is said and stops nothing else."""
        if self.only and not any(text in title for text in self.only):
            return
        self.measured += 1
        start = time.monotonic()
        if clock.left < needs:
            self.left_out.append(f"{title}: {clock.left:.0f} s were left and it takes some {needs:.0f}")
        else:
            try:
                found = work()
            except Exception as error:  # a benchmark tells all that it can
                traceback.print_exc()
                self.left_out.append(f"{title}: {type(error).__name__}: {str(error)[:300]}")
            else:
                self.lines += [f"## {title}", "", *found, "", f"{time.monotonic() - start:.0f} s.", ""]
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        print(f"{title}: {time.monotonic() - start:.0f} s, {clock.left:.0f} s left", file=sys.stderr, flush=True)
        if self.out:
            self.out.write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """The page as far as it has come."""
        head = ["# On a GPU" if not self.tiny else "# The smallest shapes of the GPU benchmark", ""]
        asked = [" --tiny"] * self.tiny + [f" --only {' '.join(map(repr, self.only))}"] * bool(self.only)
        head += ["`python benchmarks/gpu.py" + "".join(asked) + "`", ""]
        head += [f"{platform.machine()}; " + "; ".join(f"{name}: {what}" for name, what in machine().items())]
        head += ["", ", ".join(f"{name} {version}" for name, version in installed().items()), ""]
        head += [f"Left out: {why}." for why in self.left_out]
        return "\n".join([*head, "", *self.lines])


def step(
    path: Path,
    name: str,
    objective: str,
    device: str,
    tiny: bool,
    precision: str,
    *,
    pairs: int,
    thrifty: bool,
) -> list[str]:
    """Our step and the other's on one batch, ``thrifty`` with gradient checkpointing."""
    pixels = SIZES[name].pixels
    times, memory = (2, False) if tiny else (1, False) if precision == "float32" else (5, True)
    setting = Setting(
        str(path), objective, pairs, pairs, times, 0, device, precision, RANK, checkpointing=thrifty, pixels=pixels
    )
    (row,) = bench(setting, phases=("steady",), memory=memory, tell=lambda _: None)
    tokens = 32 + (784 if SIZES[name].family == "qwen3-vl" else 256)
    told = estimate(torch_config(path), section_of(setting), tokens=tokens, dtype=precision).total / 2**20  # type: ignore[arg-type]
    size = sum(file.stat().st_size for file in path.glob("*.safetensors")) / 2**20
    words = f"{size:,.0f} MB of weights, images of {pixels} pixels"
    return [*_table(row), "", f"{words}; estimated beforehand (`radpref models memory`): {told:.0f} MB a step."]


def torch_config(path: Path) -> object:
    """The config of a saved model."""
    from radpref.models import read_config

    return read_config(str(path))


def _table(row: Row) -> list[str]:
    def pair(ours: float | None, other: float | None, form: str = ".0f") -> str:
        return "" if ours is None or other is None else f"{ours:{form}} / {other:{form}}"

    cells = {
        "against": row.other,
        "seconds, ours / other": pair(row.ours_s, row.other_s, ".3f"),
        "ratio": f"**{row.ratio:.2f}**",
        "peak MB": pair(row.ours_peak_mb, row.other_peak_mb),
        "loss differs": f"{row.loss_diff:.0e}",
        "gradient differs": f"{row.grad_rel_diff:.0e}",
        "tokens/s": pair(row.ours_tokens_s, row.other_tokens_s),
        "images encoded": pair(row.ours_encodings, row.other_encodings),
    }
    return [f"| {' | '.join(cells)} |", "|---" * len(cells) + "|", f"| {' | '.join(cells.values())} |"]


def sampling(path: Path, name: str, folder: Path, device: str, tiny: bool) -> list[str]:
    """Tokens a second of our own decoding: prompts prefilled once for four candidates each."""
    run = RunSection(device=device, precision="float32" if device == "cpu" else "bfloat16")
    vlm = load(ModelSection(path=str(path)), run)
    count, length = (2, 8) if tiny else (16, 128)
    made = pairs(count, SIZES[name].pixels, folder / "sampled")
    questions = [
        Question(id=pair.id, study=pair.id, patient=pair.id, split="train", images=pair.images, prompt=PROMPT,
                 reference="")
        for pair in made
    ]  # fmt: skip
    rates = []
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        answers = generate(vlm, questions, n=4, temperature=1.0, max_new_tokens=length, batch=count, seed=0)
        tokens = sum(row.tokens for _, rows in answers if isinstance(rows, list) for row in rows)
        rates.append(tokens / (time.perf_counter() - start))
    return [f"{count} studies of one image, 4 candidates of up to {length} tokens: **{rates[-1]:.0f} tokens/s**."]


def road(folder: Path, device: str) -> list[str]:
    """The whole of CheXalign on phantoms with the built-in model, as a user runs it."""
    precision = "float32" if device == "cpu" else "bfloat16"
    command = [sys.executable, "-m", "radpref", "run", "chexalign", "--preset", "tiny", "--out", str(folder / "road")]
    command += ["--run.device", device, "--run.precision", precision]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    stages = [line.rstrip() for line in done.stderr.splitlines() if line.rstrip().endswith(" s]")]
    return ["```", *stages, "```"]


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="parts whose title has one of these in it"
    )
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.tiny:
        parser.error("torch sees no GPU here; --tiny runs the smallest shapes of every part")
    clock, page = Clock(given.minutes), Page(given.tiny, given.out, tuple(given.only))
    qwen, gemma = ("qwen3-vl-tiny", "gemma-3-tiny") if given.tiny else ("qwen3-vl-2b", "gemma-3-4b")
    some = 0.0 if given.tiny else 1.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths: dict[str, Path] = {}

        def made(name: str) -> Path:
            if name not in paths:
                paths[name] = build(name, folder / name, CORPUS, device=device)
            return paths[name]

        def steps(
            name: str, objective: str, needs: float, precision: str, pairs: int = 2, thrifty: bool = False
        ) -> None:
            title = f"{name}: a step of {objective}, {pairs} pairs, LoRA of rank {RANK}, {precision}"
            title += ", gradient checkpointing" if thrifty else ""
            page.part(
                title,
                clock,
                needs * some,
                lambda: step(made(name), name, objective, device, given.tiny, precision, pairs=pairs, thrifty=thrifty),
            )

        half = "float32" if device == "cpu" else "bfloat16"
        steps(qwen, "dpo", 120, half)
        steps(qwen, "firempo", 60, half)
        steps(gemma, "dpo", 140, half)
        page.part(f"{qwen}: sampling", clock, 30 * some, lambda: sampling(made(qwen), qwen, folder, device, given.tiny))
        page.part("The road on phantoms, built-in model", clock, 60 * some, lambda: road(folder, device))
        steps(qwen, "dpo", 90, half, pairs=8, thrifty=True)
        steps(qwen, "firempo", 90, half, pairs=8, thrifty=True)
        steps(qwen, "sft", 60, half, pairs=8)
        if half != "float32":  # how far apart the two are where rounding is out of the way
            steps(qwen, "dpo", 40, "float32")
    if not page.measured:
        parser.error(f"no part has any of {', '.join(map(repr, given.only))} in its title")
    print(page.text())
    if given.out:
        given.out.write_text(page.text(), encoding="utf-8")


if __name__ == "__main__":
    main()
