"""One hash for all that decides a model's answers."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

_DECISIVE = (
    "*.safetensors",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.*",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)


def fingerprint(folder: Path, adapter: Path | str | None = None) -> str:
    """SHA-256 (hex) over weights, config, processor and tokenizer files of ``folder``, and over the adapter.

    File names and contents count, the folder's own name does not: a moved model keeps its fingerprint. Of the
    adapter's config the place of its base is left out, since the base has just been hashed itself.
    """
    whole = hashlib.sha256()
    for file in sorted({file for pattern in _DECISIVE for file in folder.glob(pattern) if file.is_file()}):
        whole.update(f"{file.name}\0{_content(file)}\n".encode())
    if adapter is not None:
        adapter = Path(adapter).expanduser()
        for file in sorted(adapter.glob("*.safetensors")):
            whole.update(f"adapter/{file.name}\0{_content(file)}\n".encode())
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        config.pop("base_model_name_or_path", None)
        config.pop("revision", None)
        if isinstance(config.get("target_modules"), list):
            config["target_modules"].sort()  # peft writes a set: its order changes from save to save
        whole.update(json.dumps(config, sort_keys=True).encode())
    return whole.hexdigest()


def _content(file: Path) -> str:
    stat = file.stat()
    return _hash_file(file.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _hash_file(file: Path, size: int, modified: int) -> str:
    """Size and time of change are only there to notice a file that was written anew."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
