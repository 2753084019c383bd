"""What is installed, what the hardware can do, and what the missing extras would add."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from radpref.plugins import GROUPS
from radpref.plugins import found as found_plugins
from radpref.versions import LIBRARIES

EXTRAS = {
    "dicom": (("pydicom", "gdcm"), "images in DICOM files"),
    "quantize": (("bitsandbytes",), "weights in 4 bits (--model.quantize nf4), AdamW with 8-bit states"),
    "ray": (("ray",), "runs over the hosts of a Ray cluster (--engine ray)"),
    "radeval": (("RadEval",), "CheXbert, RadGraph, RadCliQ, BERTScore and others as judges"),
    "tensorboard": (("tensorboard",), "training curves in TensorBoard (the report has them without it)"),
    "torchvision": (("torchvision",), "video inputs and fast image processors of Qwen-VL models"),
}
"""Extra to the modules it brings and what they add."""


def examine() -> Group:
    """Tables of libraries, hardware and extras, ready to print. Starts no model and reaches no network."""
    libraries = Table("library", "version", title="installed", title_justify="left")
    for name in LIBRARIES:
        try:
            libraries.add_row(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            libraries.add_row(name, Text("missing: pip install radpref", style="red"))

    hardware = Table("what", "found", title="hardware", title_justify="left")
    for what, found in machine().items():
        hardware.add_row(what, found)

    extras = Table("extra", "state", "adds", title="extras", title_justify="left")
    for name, (modules, adds) in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        state = Text("installed", style="green")
        if missing:
            state = Text(f"missing: pip install 'radpref[{name}]'", style="yellow")
        extras.add_row(name, state, adds)

    added = Table("group", "name", "package", title="added by other packages", title_justify="left")
    for group in GROUPS:
        for name, point in found_plugins(group).items():
            package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            added.add_row(f"radpref.{group}", name, package)
    return Group(libraries, hardware, extras, *([added] if added.row_count else []))


def machine() -> dict[str, str]:
    """Processor, memory, accelerators, disk, and the precision that `auto` would take."""
    import torch

    from radpref.models.precision import fast_bfloat16

    found = {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cores": f"{os.cpu_count()}, torch uses {torch.get_num_threads()} threads",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    found["disk here"] = f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    else:
        found["cuda"] = "none"
    found["mps"] = "available" if torch.backends.mps.is_available() else "none"
    found["bfloat16 on this CPU"] = "faster than float32" if fast_bfloat16() else "no faster than float32"
    found["hub"] = "offline (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") == "1" else "reached when named"
    return found
