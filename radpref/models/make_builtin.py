"""Makes the built-in model: ``python -m radpref.models.make_builtin --out FOLDER``.

Three steps, each saved so that a killed run goes on where it was:

1. *Shape.* A LLaVA of five million parameters from config, with its own byte-level BPE tokenizer (trained on phantom
   reports and lessons), chat template and PIL image processor.
2. *Sight.* The tower learns from an endless stream of phantoms and their lesion masks: binary cross-entropy for every
   patch and finding, for the whole image through a smooth maximum over patches, and for side, zone and grade of each
   finding, read from the patches that show it. A tower trained from scratch on reports alone does not see small
   opacities, and one trained on masks alone hides the side (docs/architecture.md).
3. *Words.* With the tower frozen, projector and language model learn lessons in which every word decides
   (``lessons``), and in the last quarter mostly reports: enough to be fluent. Supervised fine-tuning is the pipeline's
   own first stage.

Weights are stored in float16: half the size, and half an ulp of a float16 is far below what training moves.
The linear head of step 2 is stored beside them (``tower_head.safetensors``), so that what the tower sees can be
measured (`benchmarks/builtin_model.py`) and used.

The same command on the same machine makes the same weights but for the order of sums in bfloat16 products.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from radpref.data import phantom
from radpref.models.lessons import Turn, lessons, report
from radpref.records import View

SIZE = 128
PATCH = 16
WIDTH = 192
VOCABULARY = 1536
SPECIAL = ("<pad>", "<image>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PATCHES = (SIZE // PATCH) ** 2
TOKENS = 126
"""Text in a row of lessons, in tokens: with the images a multiple of ``STEP`` but one or none."""
STEP = 64
"""Rows are padded to a multiple of so many tokens, so that a compiled model meets few lengths."""
ROWS = 12
_FRONTAL: tuple[View, ...] = ("frontal",)
_VIEWS: tuple[tuple[View, ...], ...] = (*[_FRONTAL] * 7, *[(*_FRONTAL, "lateral")] * 2, ("lateral",))
WORDS_FROM = 5_000_000
"""First patient of the lessons; those before are for the tower."""
WORLD = 1
"""Seed of the phantoms that the built-in model is made from; the default world of a recipe has another."""


# ------------------------------------------------------------------------------------------------ shape


def make_tokenizer(texts: Iterator[str]) -> Any:
    """A byte-level BPE tokenizer: any text can be written, phantom reports in few pieces."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|end|>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=1024,
    )


def build(tokenizer: Any) -> tuple[Any, Any]:
    """An untrained LLaVA and its processor, from config alone."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
    )
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=SIZE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=(SIZE // PATCH) ** 2,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config), processor


# ------------------------------------------------------------------------------------------------ sight


class Images(torch.utils.data.IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """An endless stream of phantoms: pixels (3, SIZE, SIZE), patch targets (patches, findings), attributes."""

    def __init__(self, processor: Any, start: int, names: list[str]) -> None:
        self.processor, self.start, self.names = processor, start, names

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        number, of = (worker.id, worker.num_workers) if worker else (0, 1)
        index = self.start + number
        while True:
            image = phantom.draw(index, seed=WORLD, size=SIZE, view="lateral" if index % 8 == 7 else "frontal")
            yield (*tensors(self.processor, image, self.names), attributes(image, self.names))
            index += of


def tensors(processor: Any, image: phantom.Phantom, names: list[str]) -> tuple[Tensor, Tensor]:
    """Pixels (3, SIZE, SIZE) float32, and which patches each finding touches, (patches, findings) float32."""
    picture = Image.fromarray(image.image).convert("RGB")
    pixels = processor.image_processor(images=picture, return_tensors="pt")["pixel_values"][0]
    side = SIZE // PATCH
    target = np.zeros((side * side, len(names)), dtype=np.float32)
    for name, mask in image.masks.items():
        coverage = mask.reshape(side, PATCH, side, PATCH).mean((1, 3)).reshape(-1)
        # a patch counts when a noticeable part is touched; a lesion that touches no patch so much keeps its best one
        target[:, names.index(name)] = coverage >= min(0.06, coverage.max()) if coverage.max() > 0 else 0
    return pixels, torch.from_numpy(target)


ATTRIBUTES = ("left", "right", "upper zone", "mid zone", "lower zone", "at least moderate", "severe")


def attributes(image: phantom.Phantom, names: list[str]) -> Tensor:
    """What is true of each finding, (findings, ATTRIBUTES) float32: 1 yes, 0 no, NaN where it cannot be asked.

    It cannot of a finding that is absent or does not show, of an attribute that a finding has not, nor of a side on a
    lateral image, where both lie on each other.
    """
    target = torch.full((len(names), len(ATTRIBUTES)), torch.nan)
    for finding in image.truth:
        if finding.name not in image.masks:
            continue
        row = target[names.index(finding.name)]
        if finding.side and image.view == "frontal":
            row[0], row[1] = finding.side != "right", finding.side != "left"
        if finding.place in ATTRIBUTES:
            row[2:5] = torch.tensor([finding.place == zone for zone in ATTRIBUTES[2:5]])
        if finding.severity:
            row[5], row[6] = finding.severity != "mild", finding.severity == "severe"
    return target


def attribute_logits(patch_logits: Tensor, patch_attributes: Tensor) -> Tensor:
    """What the patches that show a finding say of it: (images, findings, ATTRIBUTES).

    The patches' ``patch_attributes`` (images, patches, findings * ATTRIBUTES) are averaged with attention on the
    finding, as a language model's attention would read them.
    """
    attention = patch_logits.detach().softmax(1)
    values = patch_attributes.reshape(*patch_logits.shape, len(ATTRIBUTES))
    return torch.einsum("ipf,ipfa->ifa", attention, values)


def image_logits(patch_logits: Tensor) -> Tensor:
    """Logits of the whole image, (images, findings), from those of its patches, (images, patches, findings)."""
    return torch.logsumexp(patch_logits, dim=1) - math.log(4.0)


def tower_features(model: nn.Module, pixels: Tensor) -> Tensor:
    """What the projector would be given: (images, patches, WIDTH), the class token left out."""
    hidden: Tensor = model.model.vision_tower(pixel_values=pixels).last_hidden_state  # type: ignore[union-attr,operator]
    return hidden[:, 1:]


def schedule(step: int, steps: int, warmup: int = 50) -> float:
    """Linear warm-up, then cosine to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(
    name: str,
    modules: dict[str, nn.Module],
    loss_of: Any,
    batches: Callable[[int], Iterator[Any]],
    *,
    steps: int,
    lr: float,
    work: Path,
    every: int = 100,
) -> None:
    """AdamW with warm-up and cosine under bfloat16 autocast where the machine has it; resumes from ``work``.

    ``batches(first)`` gives the batches from step ``first`` on.
    """
    from radpref.models.precision import fast_bfloat16

    parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.02)
    saved = work / f"{name}.pt"
    first = 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        first = state["step"]
        optimiser.load_state_dict(state["optimiser"])
        for key, module in modules.items():
            module.load_state_dict(state[key])
    began, seen, stream = time.time(), 0.0, batches(first)
    for step in range(first, steps):
        torch.manual_seed(step)  # so that a run that goes on draws as one that was not cut
        for group in optimiser.param_groups:
            group["lr"] = lr * schedule(step, steps)
        batch = next(stream)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            loss = loss_of(batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        seen = 0.95 * seen + 0.05 * loss.item() if step > first else loss.item()
        if (step + 1) % every == 0 or step + 1 == steps:
            state = {"step": step + 1, "optimiser": optimiser.state_dict()}
            state |= {key: module.state_dict() for key, module in modules.items()}
            torch.save(state, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
            rate = (step + 1 - first) / (time.time() - began)
            print(f"{name}: step {step + 1} of {steps}, loss {seen:.4f}, {rate:.2f} steps/s", flush=True)


def auc(scores: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """Area under the ROC curve of one finding: the share of (present, absent) pairs in the right order."""
    from scipy.stats import rankdata

    positives = truth.sum()
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def measure_sight(
    model: Any, head: nn.Linear, processor: Any, names: list[str], *, count: int, seed: int
) -> dict[str, Any]:
    """Image-level AUC of each finding on frontal phantoms of a world that the tower has not been trained on."""
    scores, truths = [], []
    with torch.no_grad():
        for start in range(0, count, 50):
            images = [phantom.draw(start + i, seed=seed, size=SIZE) for i in range(min(50, count - start))]
            pairs = [tensors(processor, image, names) for image in images]
            logits = head(tower_features(model, torch.stack([p for p, _ in pairs])))
            scores.append(image_logits(logits).float().numpy())
            truths.append(torch.stack([t for _, t in pairs]).amax(1).numpy() > 0)
    score, truth = np.concatenate(scores), np.concatenate(truths)
    return {
        name: {"auc": auc(score[:, i], truth[:, i]), "present": int(truth[:, i].sum()), "images": count}
        for i, name in enumerate(names)
    }


# ------------------------------------------------------------------------------------------------ words


class Talk(NamedTuple):
    """A batch of images with several questions and answers each, all of an image's in one row.

    Every question follows on the images alone: it has the positions that it would have by itself, and ``turns`` keeps
    it from what else is asked. So an image is read once for all its questions, and an answer has to be read from the
    image, not from the answer before it.
    """

    pixels: Tensor
    """(rows * images, 3, SIZE, SIZE) float32."""
    ids: Tensor
    """(rows, tokens) int64: images, then the turns one after the other."""
    labels: Tensor
    """(rows, tokens) int64: the answers' ids, -100 elsewhere."""
    positions: Tensor
    """(rows, tokens) int64."""
    turns: Tensor
    """(rows, tokens) int64: 0 for the images, 1 and on for the turns, -1 for padding."""


class Talks(torch.utils.data.IterableDataset[Talk]):
    """An endless stream of batches that follow from their number: of ten, seven frontal, two with both views, and one
    lateral. ``reports(step)`` is the share of rows that ask for the report first; in the others more than half of the
    patients who have nothing give way to the next, since there is little to be learnt from them."""

    def __init__(self, processor: Any, first: int, reports: Callable[[int], float]) -> None:
        self.processor, self.first, self.reports = processor, first, reports

    def __iter__(self) -> Iterator[Talk]:
        worker = torch.utils.data.get_worker_info()
        number, of = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.first + number
        while True:
            yield self.batch(step)
            step += of

    def batch(self, step: int) -> Talk:
        views = _VIEWS[step % len(_VIEWS)]
        rng, pictures, rows = Random(step), [], []
        for row in range(ROWS):
            index = WORDS_FROM + 2 * (step * ROWS + row)
            told = views[0] == "frontal" and rng.random() < self.reports(step)
            if not told and rng.random() < 0.6 and not phantom.sample(index, seed=WORLD).lesions:
                index += 1
            images = [phantom.draw(index, seed=WORLD, size=SIZE, view=view) for view in views]
            pictures += [Image.fromarray(image.image).convert("RGB") for image in images]
            asked = report(images[0]) if told else []
            rows.append(self.row([*asked, *lessons(images[0], rng)], len(views)))
        length = -(-max(len(row[0]) for row in rows) // STEP) * STEP

        def padded(part: int, value: int) -> Tensor:
            return torch.tensor([row[part] + [value] * (length - len(row[part])) for row in rows])

        pixels = self.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        return Talk(pixels, padded(0, 0), padded(1, -100), padded(2, 0), padded(3, -1))

    def row(self, turns: Sequence[Turn], images: int) -> tuple[list[int], list[int], list[int], list[int]]:
        """Ids, labels, positions and turns of a row; further turns are left out where it has ``TOKENS`` of text."""
        tokenizer = self.processor.tokenizer
        user, image, assistant, end = (
            tokenizer.convert_tokens_to_ids(name) for name in ("<|user|>", "<image>", "<|assistant|>", "<|end|>")
        )
        before = 1 + images * PATCHES
        ids, labels = [user, *[image] * (before - 1)], [-100] * before
        positions, numbers = list(range(before)), [0] * before
        for number, turn in enumerate(turns, start=1):
            prompt, answer = tokenizer(list(turn), add_special_tokens=False)["input_ids"]
            length = len(prompt) + len(answer) + 3
            if number > 1 and len(ids) + length > before + TOKENS:
                continue
            ids += [*prompt, end, assistant, *answer, end]
            labels += [*[-100] * (len(prompt) + 2), *answer, end]
            positions += range(before, before + length)
            numbers += [number] * length
        return ids, labels, positions, numbers


def answer_loss(model: Any, language: Any, talk: Talk) -> Tensor:
    """Mean cross-entropy of the answers' tokens; ``language`` is the model's own language model, compiled or not."""
    with torch.no_grad():
        features = tower_features(model, talk.pixels)
    seen = model.model.multi_modal_projector(features).flatten(0, 1)
    embedded = model.get_input_embeddings()(talk.ids)
    image = talk.ids == model.config.image_token_id
    embedded = embedded.masked_scatter(image[..., None], seen.to(embedded.dtype))
    turns, length = talk.turns, talk.ids.shape[1]
    open_ = (turns[:, None, :] == 0) | (turns[:, None, :] == turns[:, :, None])
    open_ &= torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(open_.shape).masked_fill(~open_, torch.finfo(torch.float32).min)[:, None]
    hidden = language(inputs_embeds=embedded, attention_mask=mask, position_ids=talk.positions, use_cache=False)[0]
    wanted = talk.labels[:, 1:] != -100
    return F.cross_entropy(model.lm_head(hidden[:, :-1][wanted]).float(), talk.labels[:, 1:][wanted])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "builtin", help="where the checkpoint goes")
    parser.add_argument("--work", type=Path, default=Path("runs/make-builtin"), help="where a killed run goes on")
    parser.add_argument("--sight-steps", type=int, default=2000, help="steps of 64 images with their masks")
    parser.add_argument("--word-steps", type=int, default=3500, help="steps of 12 images with what is said of them")
    parser.add_argument("--compile", action="store_true", help="compile the language model: a third less time")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    names = sorted(phantom.NAMES)

    vocabulary = options.work / "tokenizer"
    if not vocabulary.exists():
        make_tokenizer(corpus(4000)).save_pretrained(vocabulary)
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(WORLD)
    model, processor = build(PreTrainedTokenizerFast.from_pretrained(vocabulary))
    model.set_attn_implementation("eager")  # on a CPU the backward of sdpa in bfloat16 is slower than all the rest
    tower, head = model.model.vision_tower, nn.Linear(WIDTH, len(names))
    nn.init.constant_(head.bias, -3.0)
    more = nn.Linear(WIDTH, len(names) * len(ATTRIBUTES))  # of use while the tower learns, and not kept

    def sight_loss(batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        pixels, target, wanted = batch
        pixels = pixels * (0.85 + 0.3 * torch.rand(len(pixels), 1, 1, 1)) + 0.2 * torch.randn(len(pixels), 1, 1, 1)
        features = tower_features(model, pixels)
        logits = head(features).float()
        told, known = attribute_logits(logits, more(features).float()), ~wanted.isnan()
        patches = F.binary_cross_entropy_with_logits(logits, target, pos_weight=torch.tensor(3.0))
        images = F.binary_cross_entropy_with_logits(image_logits(logits), target.amax(1))
        described = F.binary_cross_entropy_with_logits(told[known], wanted[known])
        return patches + 0.3 * images + 0.3 * described

    def loaded(data: Any, batch: int | None) -> Iterator[Any]:
        return iter(torch.utils.data.DataLoader(data, batch_size=batch, num_workers=options.workers))

    train(
        "sight",
        {"tower": tower, "head": head, "more": more},
        sight_loss,
        lambda first: loaded(Images(processor, 64 * first, names), 64),
        steps=options.sight_steps,
        lr=1e-3,
        work=options.work,
    )
    tower.eval()
    tower.requires_grad_(False)
    sight = measure_sight(model, head, processor, names, count=1000, seed=WORLD + 1)
    print(json.dumps(sight, indent=1))

    steps, language = options.word_steps, model.model.language_model
    if options.compile:
        language = torch.compile(language)
    train(
        "words",
        {"projector": model.model.multi_modal_projector, "language": model.model.language_model},
        lambda talk: answer_loss(model, language, talk),
        lambda first: loaded(Talks(processor, first, lambda step: 0.15 if step < 0.75 * steps else 0.75), None),
        steps=steps,
        lr=1.5e-3,
        work=options.work,
    )
    model.half().save_pretrained(options.out)
    processor.save_pretrained(options.out)
    save_file(
        {"weight": head.weight.detach().half(), "bias": head.bias.detach().half()},
        options.out / "tower_head.safetensors",
        metadata={"findings": json.dumps(names)},
    )
    print(f"written to {options.out}")


def corpus(count: int) -> Iterator[str]:
    """What the tokenizer learns its pieces from: reports with habits and without, and lessons with their prompts."""
    for number in range(count):
        patient = phantom.sample(10_000_000 + number, seed=WORLD)
        for habits in (phantom.CLEAN, phantom.CLINICAL):
            written = phantom.describe(patient, seed=WORLD, habits=habits)
            yield from (written.findings, written.impression, written.indication)
        image = phantom.draw(10_000_000 + number, seed=WORLD, size=32)
        for turn in (*report(image), *lessons(image, Random(number))):
            yield from turn


def load_head(folder: Path) -> tuple[nn.Linear, list[str]]:
    """The tower's linear head and the names of its findings, from a checkpoint folder."""
    from safetensors import safe_open

    path = folder / "tower_head.safetensors"
    weights = load_file(path)
    with safe_open(path, "pt") as file:
        names: list[str] = json.loads(file.metadata()["findings"])
    head = nn.Linear(WIDTH, len(names))
    head.load_state_dict({key: value.float() for key, value in weights.items()})
    return head, names


if __name__ == "__main__":
    main()
