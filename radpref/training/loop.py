"""What SFT and alignment have in common: arguments of the Trainer, its journal, and how a folder is resumed."""

from __future__ import annotations

import json
import logging
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import DistributedType, gather_object
from peft import PeftModel
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from radpref.config import AlignSection, Schedule, SftSection
from radpref.files import write_atomically
from radpref.models import Vlm, save, save_beside, trainable_summary
from radpref.training.division import part, processes
from radpref.training.errors import TrainingError

LOG = logging.getLogger(__name__)

JOURNAL = "log.jsonl"
_SETTINGS = "settings.json"
_TRAINABLE = "trainable.json"
_STEP = "batch x accumulate"

Log = Callable[[dict[str, float]], None]
"""Called after every step with what was logged: ``step``, ``steps`` (of the whole training), ``loss`` ..."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How far a training has come."""

    step: int
    """Steps done, by this call and those before it."""
    steps: int
    """Steps of the whole training."""
    history: list[dict[str, float]]
    """What was logged, a dict a step."""
    trainable: list[tuple[str, int]]
    """(module, parameters) of all that is trained, layers of a stack taken together."""

    @property
    def finished(self) -> bool:
        """False where ``max_steps`` stopped it: the same call goes on."""
        return self.step >= self.steps

    @property
    def last(self) -> dict[str, float]:
        """What was logged, as means over the last tenth of the steps."""
        return last_tenth(self.history)

    @property
    def loss(self) -> float:
        """Mean training loss of the last tenth of the steps."""
        return last_tenth(self.history)["loss"]


class Checkpoint(NamedTuple):
    """A saved state of training."""

    path: Path
    """A PEFT adapter, or a whole model where ``lora.rank`` is 0; with what the Trainer needs to go on."""
    step: int


def last_tenth(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What was logged, as means over the last tenth of the steps, at least one; a step counts by its items.

    A single step says little, and the last one of an epoch may hold a single pair.
    """
    last = history[-max(1, len(history) // 10) :]
    found = {}
    for name in dict.fromkeys(name for entry in last for name in entry):
        some = [(entry[name], entry.get("items", 1.0)) for entry in last if name in entry]
        found[name] = sum(value * items for value, items in some) / sum(items for _, items in some)
    return found


_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw-8bit": "adamw_bnb_8bit", "adafactor": "adafactor"}
"""AdamW goes over each tensor once: the other way makes lists of temporaries as large as all that is trained."""


def arguments(
    vlm: Vlm, section: SftSection | AlignSection, folder: Path, seed: int, trackers: Sequence[str] = ()
) -> dict[str, Any]:
    """Arguments of ``TrainingArguments`` (and so of ``SFTConfig``) that follow from a recipe's section.

    Betas of 0.9 and 0.999, gradients clipped at norm 1; a line of the journal for every step, which goes to
    ``trackers`` besides, and nothing drawn on the terminal. The rate's course is ``rates``.
    """
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": part(section.batch),
        "gradient_accumulation_steps": section.accumulate,
        "learning_rate": section.lr,
        "warmup_steps": section.warmup,  # below 1: a share of the steps
        "num_train_epochs": section.epochs,
        "weight_decay": section.weight_decay,
        "optim": _OPTIMIZERS[section.optimizer],
        "max_grad_norm": 1.0,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": vlm.device.type == "cpu",
        "bf16": vlm.compute == torch.bfloat16,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": section.save_steps,
        "eval_strategy": "no",
        "report_to": list(trackers) or "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        # what brought the processes together stays: a state of its own would forget how long they may wait
        **({"accelerator_config": {"use_configured_state": True}} if processes()[1] > 1 else {}),
        "dataloader_pin_memory": vlm.device.type == "cuda",
        "gradient_checkpointing": section.gradient_checkpointing,
    }


def rates(optimizer: Optimizer, schedule: Schedule, warmup: int, steps: int) -> LambdaLR:
    """The learning rate of each step as a share of its peak: a line up over the warm-up, then down.

    transformers' own schedules begin at 0, so that the first step, which may be the only one, changes nothing.
    """

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, steps - warmup)
        courses = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
        return max(0.0, courses[schedule])

    return LambdaLR(optimizer, share)


def schedule_of(trainer: Any, schedule: Schedule, steps: int) -> LambdaLR:
    """For a trainer's ``create_scheduler``."""
    if trainer.lr_scheduler is None:
        trainer.lr_scheduler = rates(trainer.optimizer, schedule, trainer.args.get_warmup_steps(steps), steps)
        trainer._created_lr_scheduler = True
    return trainer.lr_scheduler  # type: ignore[no-any-return]


def check_device(vlm: Vlm, args: TrainingArguments) -> None:
    """Raises TrainingError where the Trainer would not train on the model's device, or on several at once."""
    if args.n_gpu > 1:
        raise TrainingError(
            f"one process sees {args.n_gpu} GPUs, which would split each batch and train another objective; start "
            "radpref with `accelerate launch` (one process a GPU), or show it one GPU with CUDA_VISIBLE_DEVICES=0"
        )
    if args.device.type == "cuda" and (vlm.device.index or 0) != (args.device.index or 0):
        raise TrainingError(
            f"run.device is {vlm.device}, but training would take {args.device}; set CUDA_VISIBLE_DEVICES to the GPU "
            "that is meant and run.device to cuda"
        )


class _AtTheEnd(Exception):
    """The checkpoint that was resumed from is the last one; the Trainer would train a part of an epoch beyond."""


class Journal(TrainerCallback):  # type: ignore[misc]
    """Writes what is logged to ``log.jsonl``, a line a step, hands it to ``log``, and stops a loss that broke down.

    When training is resumed, the file is first cut back to the checkpoint, so that it reads as if training had
    never stopped.

    Args:
        folder: where the file goes.
        log: called with every line.
        max_steps: training stops, with a checkpoint, after so many steps from here.
    """

    def __init__(self, folder: Path, log: Log | None, max_steps: int | None) -> None:
        self._path, self._log, self._left = folder / JOURNAL, log, max_steps

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Cut back to what the checkpoint had logged."""
        if state.is_world_process_zero:
            write_atomically(self._path, "".join(_line(entry) for entry in state.log_history if "loss" in entry))
        if state.global_step >= state.max_steps:
            raise _AtTheEnd

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count down to ``max_steps``."""
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                control.should_save = control.should_training_stop = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """One line. Raises TrainingError for a loss or gradient that is not finite."""
        entry = state.log_history[-1]
        if "loss" not in entry:
            return
        if not math.isfinite(entry["loss"]) or not math.isfinite(entry.get("grad_norm", 0.0)):
            raise TrainingError(
                f"training broke down at step {state.global_step}: loss {entry['loss']}, gradient norm "
                f"{entry.get('grad_norm')}. Lower the learning rate ({args.learning_rate} now), or train in float32 "
                "(run.precision); the checkpoints before are kept."
            )
        if state.is_world_process_zero:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(entry))
            if self._log is not None:
                self._log({**entry, "steps": state.max_steps})


def _line(entry: Mapping[str, float]) -> str:
    """A line of the journal, without TRL's count of tokens, which starts again with every resume."""
    return json.dumps({name: value for name, value in entry.items() if name != "num_tokens"}) + "\n"


class Means:
    """Sums and counts of what is logged between two lines of the journal."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], device: torch.device) -> None:
        """Add a batch: any number of values for each name, none included."""
        for name, value in values.items():
            part = torch.stack([value.sum(), value.new_tensor(value.numel())]).detach().float().to(device)
            self._sums[name] = self._sums[name] + part if name in self._sums else part

    def taken(self, accelerator: Any) -> dict[str, float]:
        """The means over all processes since the last call, of names that had a value; every process calls it.

        ``items`` is how many values there were of ``loss``, where that is among them.
        """
        # a process whose shares of the last batches were empty has fewer names, or none, and must not stay away
        names = sorted(set(gather_object(list(self._sums))))
        if not names:
            return {}
        nothing = torch.zeros(2, device=accelerator.device)
        sums = accelerator.reduce(torch.stack([self._sums.get(name, nothing) for name in names]), reduction="sum")
        found = dict(zip(names, sums.tolist(), strict=True))
        means = {name: total / count for name, (total, count) in found.items() if count}
        if "loss" in found:
            means["items"] = found["loss"][1]
        self._sums.clear()
        return means


def save_trained(trainer: Any, vlm: Vlm, output_dir: str | None) -> None:
    """Write a checkpoint that ``radpref.models.load`` reads, on the process that saves.

    Where FSDP or DeepSpeed has gathered and written the weights, only what belongs beside them.
    """
    if trainer.args.should_save:
        write = save_beside if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled else save
        write(vlm, Path(output_dir or trainer.args.output_dir))


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, its warnings about argument names that TRL still uses, and the Trainer's
    about weights that ``_restore`` has put in place."""
    bars, trainer = is_progress_bar_enabled(), logging.getLogger("transformers.trainer")
    level = trainer.level
    disable_progress_bar()
    trainer.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        trainer.setLevel(level)
        if bars:
            enable_progress_bar()


def run(trainer: Any, folder: Path, log: Log | None, max_steps: int | None) -> None:
    """Train from the folder's last complete checkpoint, or from the start, with a journal.

    Raises TrainingError where nothing is trained, or where the loss breaks down.
    """
    table = trainable_summary(trainer.model)
    if not table:
        raise TrainingError("nothing is trained: all parts of the model are frozen")
    for name, parameters in table:
        LOG.info("trained: %s (%s parameters)", name, f"{parameters:,}")
    write_atomically(folder / _TRAINABLE, json.dumps(table) + "\n")
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Journal(folder, log, max_steps))
    saved = checkpoints(folder)
    if trainer.is_world_process_zero():
        # a torn checkpoint of a higher step would be taken for the latest one when old ones are deleted
        for torn in {*folder.glob("checkpoint-*")} - {checkpoint.path for checkpoint in saved}:
            shutil.rmtree(torn)
    if saved and not isinstance(trainer.model, PeftModel):
        _restore(trainer.model, saved[-1].path)
    _name_layers(trainer)
    before = None if saved else _sample(trainer.model)
    with suppress(_AtTheEnd), walked_once(trainer):  # the weights have been read by then
        trainer.train(resume_from_checkpoint=str(saved[-1].path) if saved else None)
    if before is not None and _sample(trainer.model) == before:
        why = _why_unchanged(trainer)
        if trainer.is_world_process_zero():  # or the next call would take it for a training that is done
            for checkpoint in checkpoints(folder):
                shutil.rmtree(checkpoint.path)
        raise TrainingError(why)


@contextmanager
def walked_once(trainer: Any) -> Iterator[None]:
    """Spare a training the walks over all modules that the Trainer takes several times a step.

    An adapter gives a model of a few layers a thousand modules, and a short step spends a twentieth of its time on
    asking them for their parameters and for the mode that they are in. The parameters stay the same ones while a single
    process trains (what shards a model puts others in their place), and the mode is set when it is another one.
    """
    if trainer.accelerator.distributed_type != DistributedType.NO:
        yield
        return
    model = trainer.model
    known, parameters, train = list(model.parameters()), model.parameters, model.train

    def set_mode(mode: bool = True) -> Any:
        return model if model.training is mode else train(mode)

    def forget_gradients(set_to_none: bool = True) -> None:  # nothing here asks for zeros in their place
        for parameter in known:
            parameter.grad = None

    model.eval()  # all of them in one mode, from where the first step sets the other
    shadows = {
        "train": set_mode,
        "zero_grad": forget_gradients,
        "parameters": lambda recurse=True: iter(known) if recurse else parameters(recurse=False),
    }
    vars(model).update(shadows)
    try:
        yield
    finally:
        for name in shadows:
            del vars(model)[name]


def _name_layers(trainer: Any) -> None:
    """Tell FSDP which of the model's layers to split.

    A family's own list may name layers that this model has not (a CLIP's text side, beside its tower), at which
    accelerate stops.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.transformer_cls_names_to_wrap is None:
        there = {type(module).__name__ for module in trainer.model.modules()}
        named = {
            name for module in trainer.model.modules() for name in getattr(module, "_no_split_modules", None) or ()
        }
        plugin.transformer_cls_names_to_wrap = sorted(there & named)


def _sample(model: Any) -> dict[str, bytes]:
    """The beginning of every trained tensor, bit for bit: enough to see whether training moved anything."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter  # FSDP holds parts
            part = whole.detach().flatten()[:4096].cpu().contiguous()
            found[name] = part.view(torch.uint8).numpy().tobytes()
    return found


def _why_unchanged(trainer: Any) -> str:
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    norms, fastest = [e.get("grad_norm", math.nan) for e in logged], max(e["learning_rate"] for e in logged)
    dtypes = ", ".join(
        sorted({str(p.dtype).removeprefix("torch.") for p in trainer.model.parameters() if p.requires_grad})
    )
    if all(norm == 0 for norm in norms):
        cause = "its gradient was 0 at every step: all answers are alike to it, or the objective has nothing to push"
    else:
        cause = f"{len(logged)} steps at a rate of at most {fastest:g} are less than weights in {dtypes} can take in"
    return f"training changed no tensor of the model: {cause}. Raise lr, train on more data, or for more epochs."


def _restore(model: Any, checkpoint: Path) -> None:
    """Read the weights of a whole model from a checkpoint, bit for bit.

    The Trainer reads a checkpoint's tensors by their names in the file. For many vision-language models these
    are other than the module's, because ``save_pretrained`` writes the names of the published checkpoints; the
    Trainer then reads nothing, warns, and goes on from whatever the model holds. So this is done beforehand.
    float32 holds every dtype that the parameters may have, and each takes its own again.
    """
    saved = type(model).from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    model.load_state_dict(saved.state_dict())


def checkpoints(folder: Path) -> list[Checkpoint]:
    """The complete checkpoints of a folder by step; one that was being written when the process died is left out."""
    found = []
    for path in folder.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if number.isdigit() and _state(path) is not None:
            found.append(Checkpoint(path, int(number)))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def reached(folder: Path) -> tuple[int, int]:
    """(steps done, steps of the whole training), from the last complete checkpoint; (0, 1) where there is none."""
    saved = checkpoints(folder)
    state = _state(saved[-1].path) if saved else None
    return (state["global_step"], state["max_steps"]) if state else (0, 1)


def history(folder: Path) -> list[dict[str, float]]:
    """What was logged, a dict a step."""
    path = folder / JOURNAL
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def trained(folder: Path) -> list[tuple[str, int]]:
    """The table of trainable modules of the folder's training."""
    return [(name, parameters) for name, parameters in json.loads((folder / _TRAINABLE).read_text(encoding="utf-8"))]


def _state(checkpoint: Path) -> dict[str, Any] | None:
    """The Trainer's state, which it writes last; None where it is absent or torn."""
    try:
        state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state


def claim(folder: Path, settings: Mapping[str, Any], step: int) -> None:
    """Bind a folder to the settings of a training, or compare them with those that it is bound to.

    ``step`` counts the items of a step over all processes, batch times accumulated batches; it must stay what it was,
    or a resumed training would skip data. How it is divided changes nothing, and stands in no settings. Raises
    TrainingError naming what differs: going on from a checkpoint of other settings would give a model that no settings
    describe.
    """
    path = folder / _SETTINGS
    given = json.loads(json.dumps(settings))
    given[_STEP] = step
    if not path.exists():
        write_atomically(path, json.dumps(given, indent=2, sort_keys=True) + "\n")
        return
    bound = json.loads(path.read_text(encoding="utf-8"))
    different = [
        f"{name} was {bound.get(name)!r}, is {given.get(name)!r}"
        for name in sorted(bound.keys() | given.keys())
        if bound.get(name) != given.get(name)
    ]
    if different:
        raise TrainingError(
            f"{folder} holds a training with other settings ({'; '.join(different)}). Give another folder, or "
            "delete this one to train anew."
        )
