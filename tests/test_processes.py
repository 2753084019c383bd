"""Several processes, or a cluster, give the rows and the weights of one; a process that is killed loses nothing."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import radpref
from radpref.records import ImageFile, Pair

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
SMALL = shlex.split(
    "--data.train 13 --data.validation 3 --data.test 4 --run.precision float32 --evaluate.resamples "
    "100 --evaluate.batch 4 --sample.max_new_tokens 88"
)
OF_METHOD = {
    "chexalign": "--sft.epochs 1 --sft.batch 4 --sample.n 2 --sample.batch 4 --align.batch 4 --align.save_steps 2 "
    "--pair.drop_unfinished false",
    "firempo": "--align.batch 3 --align.save_steps 2 --ground.studies 3 --ground.attention false",
    "chexpo": "--sft.batch 8 --task.per_study 2 --mine.budget 9 --mine.k 2 --mine.image 1 --align.batch 4 "
    "--align.save_steps 9 --evaluate.controls [negated] --sample.max_new_tokens 12",
    "grpo": "--sft.batch 4 --grpo.steps 2 --grpo.questions 3 --grpo.n 2 --sample.max_new_tokens 24",
}
"""So small that each road takes seconds, and so uneven that last batches are short."""


def words(method: str, out: Path) -> list[str]:
    return ["run", method, "--preset", "tiny", "--out", str(out), *SMALL, *OF_METHOD[method].split()]


def alone(method: str, out: Path, *more: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "radpref", *words(method, out), *more], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


LIMIT = ("timeout", "900")
"""Processes that wait for each other for ever fail the test; torchrun takes its own with it when it is told to end."""


def launcher(count: int = 2) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]


def together(method: str, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LIMIT, *launcher(), "radpref", *words(method, out)], env=ENVIRONMENT, capture_output=True, text=True
    )


def tables(folder: Path) -> dict[str, str]:
    """Every finished table of a run; checks of images are keyed by their files' times of change."""
    names = [path for path in folder.glob("*/*.jsonl") if path.name != "images-checked.jsonl"]
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in [*names, folder / "metrics.json"]}


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Every model and adapter that the run trained."""
    found = [path for path in folder.glob("*/*/**/*.safetensors") if "features" not in str(path)]
    return {str(path.relative_to(folder)): load_file(path) for path in sorted(found)}


def assert_equal(one: Path, other: Path) -> None:
    """Texts and verdicts to the letter; weights, and numbers that a model gave, up to the order of sums."""
    first, second = tables(one), tables(other)
    assert first.keys() == second.keys()
    for name, text in first.items():
        _assert_like(name, [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text),
                     [json.loads(line) for line in second[name].splitlines()] if name.endswith("l")
                     else json.loads(second[name]))  # fmt: skip
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, tensors in ours.items():
        apart = torch.cat([(value - theirs[name][key]).float().abs().flatten() for key, value in tensors.items()])
        size = torch.cat([value.float().abs().flatten() for value in tensors.values()])
        # Adam's first steps have the size of the learning rate whatever the gradient's: where that is nothing but
        # rounding, which way they go follows from the order of a sum. So few places may differ, and by a step or two.
        assert (apart > 1e-5 + 1e-4 * size).float().mean() < 1e-4, name
        assert apart.norm() < 1e-4 * size.norm(), name


def _assert_like(where: str, one: object, other: object) -> None:
    if isinstance(one, float) and isinstance(other, float):
        assert other == pytest.approx(one, rel=1e-3, abs=2e-4), where
    elif isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            if key not in ("fingerprint", "values"):
                _assert_like(f"{where}/{key}", one[key], other[key])
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            _assert_like(f"{where}[{number}]", a, b)
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of one process by method, each made when it is first asked for."""
    home = tmp_path_factory.mktemp("single")

    class Runs(dict[str, Path]):
        def __missing__(self, method: str) -> Path:
            alone(method, home / method)
            self[method] = home / method
            return self[method]

    return Runs()


@pytest.mark.parametrize("method", OF_METHOD)
def test_two_processes_give_the_tables_and_weights_of_one(method: str, single: dict[str, Path], tmp_path: Path) -> None:
    done = together(method, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(single[method], tmp_path / "two")
    assert not list((tmp_path / "two").glob("*/*.part*"))
    assert done.stderr.count("studies   ") == 1, "one process speaks"


def test_a_process_that_is_killed_loses_nothing(single: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "killed"
    for sign in ("sample/completions.part1", "align/*/checkpoint-*/trainer_state.json", "predict/predicted.part0"):
        process = subprocess.Popen(
            [*launcher(), "radpref", *words("chexalign", out)],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 300
        while process.poll() is None and not list(out.glob(sign)) and time.monotonic() < deadline:
            time.sleep(0.02)
        ranks = _children(process.pid)
        if process.poll() is None:
            assert len(ranks) >= 2
            os.kill(ranks[-1], signal.SIGKILL)
        process.wait(120)
    done = together("chexalign", out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(single["chexalign"], out)


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return sorted(found)


def test_what_stops_one_process_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [*LIMIT, *launcher(), "radpref", *words("chexalign", tmp_path / "r"), "--pair.margin", "1e9"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "no question gave a pair" in done.stderr
    ours = done.stderr.partition("torch/distributed/elastic")[0]  # the launcher tells its own story after it
    assert "Traceback" not in ours


# ------------------------------------------------------------------------------------------ FSDP, DeepSpeed

# A gloo group has two workers, and in torch 2.13 both write the name of the work that they have done to one string,
# with no lock (ProcessGroupGloo::runLoop). The name of what gathers a DTensor, ALLGATHER_COALESCED, is long enough to
# lie on the heap: once in many runs both free the old one, and the process dies by a signal inside malloc. Names of 15
# letters or less, as of all that the package itself sends over gloo, are not on the heap. One worker races with nobody.
_SHARDED = """
import json, os, sys
from pathlib import Path
from torch.distributed import distributed_c10d

class OneWorker(distributed_c10d.ProcessGroupGloo):
    def __init__(self, store, rank, size, timeout):
        options = self._Options()
        options._devices, options._threads, options._timeout = [self.create_default_device()], 1, timeout
        super().__init__(store, rank, size, options)

distributed_c10d.ProcessGroupGloo = OneWorker
from radpref.runs.engine.local import started
processes = started("cpu")
if processes.world > 1:  # accelerate shards on accelerators alone: this test tells it that a CPU is one
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU
from radpref import models, training
from radpref.config import AlignSection, LoraSection, ModelSection, RunSection
from radpref.records import Pair

home, rank = Path(sys.argv[1]), int(sys.argv[2])
pairs = [Pair.model_validate_json(line) for line in (home / "pairs.jsonl").read_text().splitlines()]
section = AlignSection(batch=2, epochs=2, lr=1e-3, save_steps=2, lora=LoraSection(rank=rank))
vlm = models.load(ModelSection(), RunSection(device="cpu", precision="float32", threads=1))
out = home / f"rank-{rank}-of-{processes.world}"
prepared = training.prepare(vlm, pairs, section, out / "prepared", processes=processes)
result = training.align(vlm, prepared, section, out / "training", seed=3)
if processes.first:
    last = result.checkpoints[-1].path
    again = ModelSection(adapter=str(last)) if rank else ModelSection(path=str(last))
    whole = models.merged(models.load(again, RunSection(device="cpu", precision="float32", threads=1)))
    sums = {name: float(p.double().sum()) for name, p in whole.model.named_parameters()}
    (out / "told.json").write_text(json.dumps({"losses": [row["loss"] for row in result.history], "sums": sums}))
processes.wait()
"""


@pytest.mark.parametrize("rank", [8, 0], ids=["lora", "full"])
def test_fsdp2_trains_as_one_process_saves_and_loads_again(rank: int, tmp_path: Path) -> None:
    """With the settings of the shipped file, over gloo; losses to 1e-5, weights after loading to 1e-3 of their sums."""
    shipped = yaml.safe_load((Path(radpref.__file__).parent / "recipes" / "accelerate" / "fsdp2.yaml").read_text())
    settings = {name.upper(): str(value) for name, value in shipped["fsdp_config"].items()}
    pairs = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
        pairs.append(
            Pair(
                id=f"p{number}", question=f"q{number}", patient="p", images=(ImageFile(path=str(path)),),
                prompt="Write the findings.", chosen=f"Small left effusion {number}.", rejected="Clear lungs." * number
                or "Clear.",
            )
        )  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("\n".join(pair.model_dump_json() for pair in pairs))
    script = tmp_path / "sharded.py"
    script.write_text(_SHARDED)
    for start, extra in (([sys.executable], {}), (launcher()[:-1], {"ACCELERATE_USE_FSDP": "true", **settings})):
        done = subprocess.run(
            [*LIMIT, *start, str(script), str(tmp_path), str(rank)],
            env={**ENVIRONMENT, **extra, "PYTHONPATH": str(Path(radpref.__file__).parents[1])},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"rank-{rank}-of-{n}" / "told.json").read_text()) for n in (1, 2))
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert two["sums"] == pytest.approx(one["sums"], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero3"])
def test_shipped_settings_are_read_by_accelerate(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = Path(radpref.__file__).parent / "recipes" / "accelerate" / f"{name}.yaml"
    read = load_config_from_file(str(path))
    assert read.distributed_type.value == {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED"}[name]
    if name == "zero3":  # DeepSpeed itself does not run here; its settings are complete
        assert read.deepspeed_config["zero_stage"] == 3


# ------------------------------------------------------------------------------------------ Ray


def test_a_cluster_gives_the_tables_and_weights_of_one_process(single: dict[str, Path], tmp_path: Path) -> None:
    """Two nodes; one of them dies while candidates are sampled."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    node = cluster.add_node(num_cpus=2)
    out = tmp_path / "ray"
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "radpref", *words("chexalign", out), "--engine", "ray", "--engine.address",
             cluster.address],
            env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 400
        while process.poll() is None and not (out / "sample" / "completions.part0").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=2)
        _, told = process.communicate(timeout=600)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, told[-3000:]
    assert_equal(single["chexalign"], out)
