"""The exact search of mining: how fast, how much memory, and against the published script's way.

python benchmarks/search.py gallery   1,000,000 x 512, 1,000 queries, exact top 10, and an eighth, a quarter, a half
python benchmarks/search.py matrix    20,000 x 20,000 against the full matrix of distances
python benchmarks/search.py loop      20,000 x 20,000 against a loop over queries (the first 500, times 40)
python benchmarks/search.py questions 20,000 questions made from phantoms, whose vectors repeat, against that matrix

All run in one thread and count CPU seconds, which other work on the machine stretches little. Vectors of
the first three are Gaussian, the hardest case: nothing is near anything, nothing repeats, nothing can be left out.

The published way (tools/step4_combine_similarity.py of CheX-Phi35V, written anew here): the distances of every kind
of vector as a full matrix, added up in float64; the Hamming distances row by row in a Python loop; then every row
sorted whole, row by row, for its first ten.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import torch

from radpref.mining import Part, search, signs, unit

K = 10
DIMS = 512
FLAGS = 14


def clocked(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def peak() -> float:
    """GB that this process has held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def written(path: Path, rows: int, dims: int, seed: int) -> np.memmap:
    """Unit vectors in a float32 file, made block by block."""
    file = np.memmap(path, np.float32, "w+", shape=(rows, dims))
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, rows, 1 << 14):
        stop = min(rows, start + (1 << 14))
        file[start:stop] = unit(torch.randn(stop - start, dims, generator=generator)).numpy()
    file.flush()
    return np.memmap(path, np.float32, "c", shape=(rows, dims))


def gallery(rows: int, queries: int) -> None:
    asking = unit(torch.randn(queries, DIMS, generator=torch.Generator().manual_seed(1)))
    with tempfile.TemporaryDirectory() as folder:
        whole = written(Path(folder) / "gallery.bin", rows, DIMS, 0)
        print(f"{queries} queries, exact top {K}, {DIMS} dimensions in float32 on disk; {peak():.2f} GB before")
        search([Part(asking[:64], whole[:4096])], K)  # the first products load their kernels
        for share in (8, 4, 2, 1):
            part = whole[: rows // share]
            found, seconds = clocked(lambda part=part: search([Part(asking, part)], K))
            each = 1e6 * seconds / len(part)
            print(
                f"{len(part):>9,d} rows  {seconds:7.2f} s  {each:6.2f} s a million rows  {found.searched}", flush=True
            )
        print(f"peak {peak():.2f} GB, the pages of the file that the system keeps included")
        sample = torch.arange(0, queries, max(1, queries // 50))
        best = torch.full((len(sample), K), -torch.inf, dtype=torch.float64)
        for start in range(0, rows, 1 << 15):
            block = torch.from_numpy(whole[start : start + (1 << 15)]).double()
            best = torch.cat([best, asking[sample].double() @ block.T], 1).topk(K, 1).values
        same = torch.equal(1 - best, found.distance[sample])
        print(f"distances of {len(sample)} queries by float64 over all rows: {'equal' if same else 'DIFFERENT'}")


def cosine_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return np.clip(1 - a @ b.T, 0, 2)


def published(cosines: list[np.ndarray], flags: list[np.ndarray], k: int) -> list[list[int]]:
    rows = len(cosines[0])
    total = np.zeros((rows, rows))
    for vectors in cosines:
        total += 1.0 * cosine_distances(vectors, vectors)
    for own in flags:
        hamming = np.zeros((rows, rows))
        for i, row in enumerate(own):
            hamming[i] = np.mean(row != own, axis=1)
        total += 1.0 * hamming
    return [np.argsort(row)[:k].tolist() for row in total]


def row_by_row(cosines: list[np.ndarray], flags: list[np.ndarray], k: int, queries: int) -> list[list[int]]:
    """The same distances in float64 without matrix products: what a loop over queries costs."""
    cosines = [own / np.linalg.norm(own, axis=1, keepdims=True) for own in cosines]
    nearest = []
    for i in range(queries):
        total = np.zeros(len(cosines[0]))
        for own in cosines:
            total += 1 - own @ own[i]
        for own in flags:
            total += np.mean(own[i] != own, axis=1)
        nearest.append(np.argsort(total)[:k].tolist())
    return nearest


def loop(rows: int, queries: int) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = [unit(torch.randn(rows, DIMS, generator=generator)) for _ in range(2)]
    flags = torch.rand(rows, FLAGS, generator=generator) < 0.1
    parts = [*(Part(own, own) for own in vectors), Part(s := signs(flags), s, 1.0, "signs")]
    search([Part(vectors[0][:64], vectors[0][:4096])], K)
    found, ours = clocked(lambda: search(parts, K))
    wide = [own.numpy().astype(np.float64) for own in vectors]
    order, theirs = clocked(lambda: row_by_row(wide, [flags.numpy()], K, queries))
    same = np.mean([set(a) == set(b) for a, b in zip(order, found.row.tolist(), strict=False)])
    whole = theirs * rows / queries
    print(
        f"q + e + d, {rows} x {rows}: ours {ours:.2f} s; float64 row by row {theirs:.1f} s for {queries} queries "
        f"({same:.4f} equal), so {whole:.0f} s for all, {whole / ours:.0f} x"
    )


def matrix(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = [unit(torch.randn(rows, DIMS, generator=generator)) for _ in range(3)]
    flags = torch.rand(rows, FLAGS, generator=generator) < 0.1
    print(f"{rows} queries in a gallery of {rows}, exact top {K}, {DIMS} dimensions a cosine, {FLAGS} flags")
    search([Part(vectors[0][:64], vectors[0][:4096])], K)
    for name, cosines, flagged in (("q", 1, 0), ("q + e + d", 2, 1), ("q + e + v + d", 3, 1)):
        parts = [Part(own, own) for own in vectors[:cosines]] + [Part(s := signs(flags), s, 1.0, "signs")] * flagged
        found, ours = clocked(lambda parts=parts: search(parts, K))
        line = f"{name:14s} ours {ours:6.2f} s"
        for kind in (np.float32, np.float64):
            own = [vector.numpy().astype(kind) for vector in vectors[:cosines]]
            order, theirs = clocked(lambda own=own, n=flagged: published(own, [flags.numpy()] * n, K))
            same = np.mean([set(a) == set(b) for a, b in zip(order, found.row.tolist(), strict=True)])
            line += (
                f"   published, {np.dtype(kind)} features {theirs:6.1f} s ({theirs / ours:4.1f} x; {same:.4f} equal)"
            )
        print(line, flush=True)


def questions(rows: int) -> None:
    """The recipe's own vectors of questions that are made from phantoms: templated, as instruction sets are."""
    from radpref import config
    from radpref.mining import as_tensor, finding_vectors, findings_of, names_of, text_vectors
    from radpref.pipeline import run_stage_alone
    from radpref.runs.folder import Run
    from radpref.stages.ports import TRAIN

    studies = rows // 5
    set_ = [f"data.train={studies}", "data.validation=1", "data.test=1", "task.marks=[arrow]"]
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run", config.load("chexpo", overrides=set_))
        run_stage_alone(run, "studies")
        asked = list(run.table("studies", TRAIN))[:rows]
    everyone = slice(None)
    texts = [
        as_tensor(text_vectors(own), everyone) for own in zip(*((q.prompt, q.reference) for q in asked), strict=True)
    ]
    found_signs = as_tensor(finding_vectors([names_of(findings_of(q)) for q in asked])[0], everyone)
    alike = len({(q.prompt, q.reference) for q in asked})
    print(f"{len(asked)} questions of {studies} phantoms, {alike} distinct pairs of question and rationale")
    search([Part(texts[0][:64], texts[0][:4096])], K)
    for name, flagged in (("q + e", 0), ("q + e + d", 1)):
        parts = [Part(own, own) for own in texts] + [Part(found_signs, found_signs, 1.0, "signs")] * flagged
        found, ours = clocked(lambda parts=parts: search(parts, K))
        vectors = [own.numpy() for own in texts]
        flags = [found_signs.numpy() > 0] * flagged
        order, theirs = clocked(lambda vectors=vectors, flags=flags: published(vectors, flags, K))
        nearest = np.array(order)
        total = sum(part.weight * 2 for part in parts)  # equal distances are ties: compare distances, not rows
        ours_far = found.distance.numpy()
        theirs_far = np.zeros_like(ours_far)
        for own in texts:
            wide = own.double()
            theirs_far += 1 - torch.einsum("qd,qkd->qk", wide, wide[torch.from_numpy(nearest)]).numpy()
        if flagged:
            theirs_far += (found_signs[:, None] != found_signs[torch.from_numpy(nearest)]).double().mean(-1).numpy()
        same = np.abs(np.sort(theirs_far, 1) - ours_far).max() / total
        print(
            f"{name:10s} ours {ours:6.2f} s {found.searched}   published {theirs:6.1f} s ({theirs / ours:5.1f} x; "
            f"distances differ by at most {same:.0e} of their range)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gallery", "matrix", "loop", "questions"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--queries", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "gallery":
        gallery(given.rows or 1_000_000, given.queries)
    elif given.what == "matrix":
        matrix(given.rows or 20_000)
    elif given.what == "questions":
        questions(given.rows or 20_000)
    else:
        loop(given.rows or 20_000, 500)


if __name__ == "__main__":
    main()
