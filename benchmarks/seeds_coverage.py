"""How often intervals over seeds and patients hold the true difference: ours, and the plain nested bootstrap.

    python benchmarks/seeds_coverage.py [--worlds 2000] [--patients own]

Simulated are differences of a score by patient: a part of the training (standard deviation ``spread``, in units of
what one training's patients bring), one of the patient that all trainings share, and one of patient and training
together. Printed is the share of 95 % intervals that hold the truth, and their mean width.
"""

from __future__ import annotations

import argparse

import numpy as np

from radpref.evaluation import PatientSums, over_seeds
from radpref.evaluation.resampling import interval

PATIENTS = 100
RESAMPLES = 400
COLUMNS = ("words", "studies")
METRIC = "words_mean"
TRUTH = 5.0


def simulated(rng: np.random.Generator, seeds: int, spread: float, crossed: bool) -> dict[int, PatientSums]:
    """One outcome of an experiment: each patient of each seed has one study."""
    shared = rng.normal(size=PATIENTS)
    found = {}
    for seed in range(seeds):
        person = shared if crossed else rng.normal(size=PATIENTS)
        training = rng.normal() * spread * (2 / PATIENTS) ** 0.5
        score = TRUTH + training + person + rng.normal(size=PATIENTS)
        values = np.stack([score, np.ones(PATIENTS)], axis=1)
        names = tuple(f"{number:04d}" for number in range(PATIENTS))
        found[seed] = PatientSums("all" if crossed else f"test {seed}", names, COLUMNS, values)
    return found


def nested(runs: dict[int, PatientSums], rng: np.random.Generator, crossed: bool) -> tuple[float, float]:
    """The plain nested bootstrap: seeds with replacement, patients with replacement within; percentiles."""
    scores = np.stack([one.values[:, 0] for one in runs.values()])
    seeds = len(scores)
    share = np.full(PATIENTS, 1 / PATIENTS)
    drawn = rng.integers(0, seeds, size=(RESAMPLES, seeds))
    weights = rng.multinomial(PATIENTS, share, size=(RESAMPLES, 1 if crossed else seeds)) / PATIENTS
    means = np.einsum("rsp,rsp->rs", np.broadcast_to(weights, (RESAMPLES, seeds, PATIENTS)), scores[drawn])
    return interval(means.mean(1)) or (np.nan, np.nan)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--worlds", type=int, default=2000, help="experiments simulated a row")
    parser.add_argument(
        "--patients", choices=("own", "shared"), help="of each seed its own, or the same; both if absent"
    )
    worlds, only = parser.parse_args().worlds, parser.parse_args().patients
    print("| test patients | seeds | spread | nested bootstrap | its width | ours | its width |\n" + "|---" * 7 + "|")
    for crossed in (False, True) if only is None else (only == "shared",):
        for seeds in (2, 3, 5, 10):
            for spread in (0.0, 1.0, 3.0):
                rng = np.random.default_rng([seeds, int(spread), crossed])
                plain, own = [], []
                for _ in range(worlds):
                    runs = simulated(rng, seeds, spread, crossed)
                    plain.append(nested(runs, rng, crossed))
                    one = over_seeds(METRIC, runs, resamples=RESAMPLES)
                    assert one is not None
                    own.append((one.low, one.high))
                cells = []
                for rows in (np.array(plain), np.array(own)):
                    held = np.mean((rows[:, 0] <= TRUTH) & (rows[:, 1] >= TRUTH))
                    cells += [f"{held:.1%}", f"{np.mean(rows[:, 1] - rows[:, 0]):.2f}"]
                print("| " + " | ".join(["shared" if crossed else "own", str(seeds), f"{spread:g}", *cells]) + " |",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
