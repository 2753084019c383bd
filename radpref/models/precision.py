"""Which device, which dtype: decided when a model is loaded, by a measurement where the answer is not known."""

from __future__ import annotations

import statistics
import time
from functools import lru_cache

import torch
from torch import nn

from radpref.config import Precision
from radpref.models.vlm import ModelError


def pick_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU. Raises ModelError for an absent device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(
            f"run.device is {name!r}, which torch does not know; use auto, cpu, cuda, cuda:1 or mps"
        ) from error
    absent = {
        "cuda": (device.index or 0) >= torch.cuda.device_count(),
        "mps": not torch.backends.mps.is_available(),
    }
    if absent.get(device.type, False):
        raise ModelError(f"run.device is {name!r}, but torch sees no such device here; use run.device auto or cpu")
    return device


def pick_dtypes(precision: Precision, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """(dtype of the weights, dtype of the matrix products).

    On a GPU bfloat16 holds for both. On a CPU weights stay in float32, because an optimiser's small steps would
    be rounded away in bfloat16, and the products run in bfloat16 under autocast. ``auto`` is bfloat16 on a GPU
    that supports it and on a CPU where ``fast_bfloat16`` says so, else float32.
    """
    if precision == "float32" or device.type == "mps":
        return torch.float32, torch.float32
    if device.type == "cuda":
        dtype = torch.bfloat16 if precision == "bfloat16" or torch.cuda.is_bf16_supported(False) else torch.float32
        return dtype, dtype
    return torch.float32, torch.bfloat16 if precision == "bfloat16" or fast_bfloat16() else torch.float32


def rounded(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether matrix products of a dtype are rounded to less than float32 holds.

    So they are in bfloat16, and in float32 where torch or the driver takes fewer bits for speed: TensorFloat-32 on
    GPUs (``NVIDIA_TF32_OVERRIDE``, ``torch.set_float32_matmul_precision``), bfloat16 on CPUs that have it. There are
    several switches, so it is tried.
    """
    return dtype != torch.float32 or _rounds_float32(device)


def _rounds_float32(device: torch.device) -> bool:
    left, right = torch.randn(2, 128, 128, generator=torch.Generator().manual_seed(0))
    product = (left.to(device) @ right.to(device)).cpu().double()
    return float((product - left.double() @ right.double()).abs().max()) > 1e-3  # 1e-5 and less in float32


def settle_precision(device: torch.device) -> Precision:
    """What ``auto`` comes to on a device now, as a setting that stays."""
    _, compute = pick_dtypes("auto", device)
    return "bfloat16" if compute == torch.bfloat16 else "float32"


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Whether a CPU training step of a small feed-forward block is at least a fifth faster under bfloat16 autocast.

    A fraction of a second, once a process: forward and backward of 512 to 2048 to 512 over 512 rows, the shape of
    what a small model spends its time on; the median of five alternating runs, in CPU time, so that a busy machine
    decides as an idle one.
    """
    block = nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 512))
    rows = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))

    def seconds(enabled: bool) -> float:
        start = time.process_time()
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            block(rows).sum().backward()
        return time.process_time() - start

    seconds(True), seconds(False)
    runs = [(seconds(True), seconds(False)) for _ in range(5)]
    return statistics.median(a for a, _ in runs) * 1.2 < statistics.median(b for _, b in runs)
