"""What the prepare stage keeps on disk: tensors by name in safetensors shards, read through memory maps.

A shard belongs to one model (its ``identity`` stands in the shard's metadata); names begin with the kind:

* ``prompt/{prompt}/{tensor}``: a prompt's token ids, types and image grids;
* ``features/{prompt}/{tensor}``: its encoded images (``radpref.training.features``);
* ``logps/{row}``: (T,) float32 log-probs of an answer under the reference;
* ``hidden/{row}/{places}``: (n, H) hidden states of the reference before the head, at some of its tokens.

Keys are content keys of prompt, images, answer and model: whatever changes has another name, and is computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from radpref.files import content_key, write_atomically
from radpref.training.errors import TrainingError

SHARD_BYTES = 1 << 28
"""A shard is written once it holds so much: at most so much is computed again after a kill."""


class Cache:
    """Tensors of one model in a folder; those of other models are left alone.

    Args:
        folder: where the shards lie; made when the first one is written.
        model: identity of the model that the tensors belong to.

    Raises:
        TrainingError: a shard that cannot be read.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.model = folder, model
        self._files: dict[str, Any] = {}
        self._groups: dict[str, dict[str, None]] = {}
        self._waiting: dict[str, Tensor] = {}
        self._size = 0
        for path in sorted(folder.glob("prepared-*.safetensors")) if folder.exists() else ():
            self._open(path)

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._waiting

    def __getitem__(self, name: str) -> Tensor:
        """A copy of the tensor, on the CPU. Raises KeyError where there is none."""
        waiting = self._waiting.get(name)
        if waiting is not None:
            return waiting
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of ``kind/key/``, by the rest of their names; {} where there are none."""
        return {name: self[prefix + name] for name in self._groups.get(prefix, ())}

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors; they are on disk after ``flush``, which comes by itself now and then."""
        for name, tensor in tensors.items():
            if name not in self:
                self._waiting[name] = tensor.detach().to("cpu").contiguous().clone()
                self._size += self._waiting[name].nbytes
                self._note(name)
        if self._size >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits, in one step."""
        if not self._waiting:
            return
        path = self.folder / f"prepared-{content_key(self.model, sorted(self._waiting))}.safetensors"
        write_atomically(path, save(self._waiting, metadata={"model": self.model}))
        self._waiting, self._size = {}, 0
        self._open(path)

    def _note(self, name: str) -> None:
        kind, key, *rest = name.split("/", 2)
        if rest:
            self._groups.setdefault(f"{kind}/{key}/", {})[rest[0]] = None

    def _open(self, path: Path) -> None:
        try:
            file: Any = safe_open(path, framework="pt")
            if (file.metadata() or {}).get("model") == self.model:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    self._files[name] = file
                    self._note(name)
        except (SafetensorError, OSError) as error:
            raise TrainingError(f"{path} is broken ({error}); delete it, and what it held is computed again") from error
