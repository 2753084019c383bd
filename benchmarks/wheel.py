"""The wheel in a bare environment, without the checkout: ``python benchmarks/wheel.py dist``.

Measures the wheel's size, how long ``pip install`` takes, and how long it is from the command to the demo's first line.
What is left out of the package, or imported and not declared, fails here and nowhere else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

NEEDED = (
    "recipes/chexalign.yaml",
    "findings/lexicon.yaml",
    "report/page.html.j2",
    "judges/templates/json.jinja",
    "py.typed",
)


def main(dist: Path, *options: str) -> int:
    wheel = max(dist.glob("*.whl"), key=lambda path: path.stat().st_mtime).resolve()
    names = zipfile.ZipFile(wheel).namelist()
    lacking = [name for name in NEEDED if f"radpref/{name}" not in names]
    strange = [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
    assert not lacking, f"the wheel lacks {lacking}"
    assert not strange, f"the wheel holds {strange[:3]}"
    assert wheel.name.endswith("-py3-none-any.whl"), "one wheel for every Python and machine"
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {len(names)} files", flush=True)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        venv.create(home / "bare", with_pip=True)
        python = home / "bare" / "bin" / "python"
        began = time.monotonic()
        subprocess.run([python, "-m", "pip", "install", "--quiet", *options, str(wheel)], check=True, cwd=home)
        installed = time.monotonic() - began
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        began = time.monotonic()
        words = [str(python), "-m", "radpref", "run", "chexalign", "--preset", "tiny", "--out", "demo"]
        environment |= {"HF_HUB_OFFLINE": "1"}
        demo = subprocess.Popen(words, cwd=home, env=environment, stderr=subprocess.PIPE, text=True)
        assert demo.stderr is not None
        first = next((line for line in demo.stderr if line.startswith("studies")), "")
        line = time.monotonic() - began
        rest = demo.stderr.read()
        assert demo.wait() == 0, rest[-2000:]
        assert first, "no line of the first stage"
        assert (home / "demo" / "report.html").is_file()
        whole = time.monotonic() - began
    print(json.dumps({"installed in s": round(installed, 1), "to the first line in s": round(line, 1),
                      "demo (tiny) in s": round(whole, 1)}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
