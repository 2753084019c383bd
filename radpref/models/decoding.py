"""Answers: one prefill a question for all of its candidates, and draws that depend on nothing but their own seed.

The decoding loop is our own because ``model.generate`` repeats a prompt's prefill for every candidate, keeps
rows that have ended in the batch, and draws one stream of random numbers for all rows. ``check_decoding``
compares it with a plain forward once for every loaded model, so that a family whose cache or positions work
otherwise is an error and not a set of strange answers.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from radpref.images import ImageError, read_image
from radpref.models.chat import collate, encode_answer, encode_prompt, pad
from radpref.models.control import THOUGHTS
from radpref.models.precision import rounded
from radpref.models.vlm import ModelError, Vlm, autocast, image_token_ids, unwrapped
from radpref.records import Completion, ImageFile, Quarantined, Question, TokenScores

Item = TypeVar("Item")
Result = TypeVar("Result")
Choose = Callable[[Tensor, Tensor, int], Tensor]
"""(logits (live, vocabulary) float32, numbers of the live rows (live,), step) -> ids (live,)."""


def generate(
    vlm: Vlm,
    questions: Sequence[Question],
    *,
    n: int = 1,
    temperature: float | None = None,
    top_p: float = 1.0,
    max_new_tokens: int,
    batch: int,
    seed: int,
    scores: bool = False,
    read: Callable[[ImageFile], Image.Image] = read_image,
) -> Iterator[tuple[Question, list[Completion] | Quarantined]]:
    """``n`` answers to every question, in the order of the questions, as soon as their batch is done.

    ``temperature`` None decodes greedily. Otherwise candidate ``i`` of a question is drawn with random numbers
    that follow from (``seed``, the question's id, ``i``, the step) alone: it is the same in any batch, in any
    order and after any resume, up to the rounding of the logits (exact ties of float32 are rare; under bfloat16
    the batch's composition can turn a close draw). ``top_p`` keeps the smallest set of most likely tokens that
    holds that much probability. ``batch`` counts questions; a batch decodes ``batch * n`` rows after prefilling
    each prompt, and encoding each image, once. ``scores`` fills ``Completion.scores``, at the cost of a softmax over
    the vocabulary a token.

    A question that cannot be put to the model (an image that cannot be read, a prompt that leaves no room in the
    context) comes back with a ``Quarantined`` row in place of answers; the caller decides what to do with it.
    """
    if temperature is not None and temperature <= 0:
        raise ValueError(f"temperature is {temperature}, but must be above 0; leave it out to decode greedily")
    vlm.model.eval()
    batches = [questions[start : start + batch] for start in range(0, len(questions), batch)]
    for group, encoded in _ahead(lambda group: [_encode(vlm, q, read, max_new_tokens) for q in group], batches):
        prompts = [(q, item) for q, item in zip(group, encoded, strict=True) if not isinstance(item, Quarantined)]
        keys = [f"{q.id}\0{index}" for q, _ in prompts for index in range(n)]
        choose = _greedy if temperature is None else sampler(keys, seed, temperature, top_p, max_new_tokens)
        sure = torch.zeros(2, len(keys), max_new_tokens) if scores else None
        choose = choose if sure is None else _watched(choose, sure)
        rows = decode(vlm, [item for _, item in prompts], n=n, choose=choose, max_new_tokens=max_new_tokens)
        answers = iter(_completions(vlm, [q for q, _ in prompts], rows, n, sure))
        for question, item in zip(group, encoded, strict=True):
            yield question, item if isinstance(item, Quarantined) else next(answers)


@torch.no_grad()  # not inference_mode: Qwen keeps a tensor of the forward on the model, which training meets again
def decode(
    vlm: Vlm, prompts: Sequence[Mapping[str, Tensor]], *, n: int, choose: Choose, max_new_tokens: int
) -> list[tuple[list[int], bool]]:
    """``n`` rows a prompt, each (generated ids with the end token, whether it ended), in the order of the prompts.

    Each prompt is prefilled once; its cache is then repeated for its candidates. Rows that have ended leave the
    batch as soon as that makes it a quarter smaller.
    """
    if not prompts:
        return []
    model = unwrapped(vlm.model)
    inputs = {name: value.to(vlm.device) for name, value in pad(vlm, prompts, "left").items()}
    positions = text_positions(model, inputs)
    keep = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    with _arithmetic(vlm):
        out = vlm.model(**inputs, position_ids=positions, use_cache=True, **keep)
    cache = getattr(out, "past_key_values", None)
    if cache is None:
        raise ValueError(
            "its forward pass hands out no cache of keys and values, so that no token could follow another"
        )
    if n > 1:
        repeat_cache(cache, n, len(prompts))
    crossed = {name: inputs[name][:, -1:].repeat_interleave(n, 0) for name in inputs if name == "cross_attention_mask"}
    logits = out.logits[:, -1].float().repeat_interleave(n, 0)
    attention = inputs["attention_mask"].repeat_interleave(n, 0)
    position = positions.amax(-1, keepdim=True).repeat_interleave(n, -2)  # (..., rows, 1), the last one used
    rows = torch.arange(len(prompts) * n, device=vlm.device)
    ends = torch.tensor(sorted(end_ids(vlm)), device=vlm.device)
    never = _unspeakable(vlm, logits.shape[-1])
    tokens = torch.zeros(len(rows), max_new_tokens, dtype=torch.int64, device=vlm.device)
    lengths = torch.zeros_like(rows)  # 0 while a row runs
    for step in range(max_new_tokens):
        token = choose(logits.masked_fill(never, -torch.inf), rows, step).to(vlm.device)
        tokens[rows, step] = token
        running = lengths[rows] == 0
        lengths[rows[running & torch.isin(token, ends)]] = step + 1
        alive = (lengths[rows] == 0).nonzero().squeeze(-1)
        if len(alive) == 0 or step + 1 == max_new_tokens:
            break
        if len(alive) <= 0.75 * len(rows):
            cache.reorder_cache(alive)
            crossed = {name: value[alive] for name, value in crossed.items()}
            rows, token, attention = rows[alive], token[alive], attention[alive]
            position = position.index_select(-2, alive)
        position = position + 1
        attention = torch.cat([attention, attention.new_ones(len(rows), 1)], dim=1)
        with _arithmetic(vlm):
            out = vlm.model(
                input_ids=token[:, None],
                attention_mask=attention,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                **crossed,
            )
        logits = out.logits[:, -1].float()
    return [
        (row[: length or max_new_tokens], length > 0)
        for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)
    ]


def repeat_cache(cache: Any, n: int, rows: int) -> None:
    """Each of ``rows`` rows of a cache ``n`` times, in place; ``reorder_cache`` is what every kind of layer has."""
    cache.reorder_cache(torch.arange(rows).repeat_interleave(n))


def end_ids(vlm: Vlm) -> frozenset[int]:
    """Ids that end an answer: the template's end of turn, the tokenizer's EOS and those of the generation config."""
    listed = vlm.model.generation_config.eos_token_id
    ids = [vlm.turn.end[-1], vlm.tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])]
    return frozenset(i for i in ids if i is not None)


def _arithmetic(vlm: Vlm) -> AbstractContextManager[Any]:
    """On a CPU decoding stays in float32: autocast would cast all weights again for every token."""
    return nullcontext() if vlm.device.type == "cpu" else autocast(vlm)


def text_positions(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Position ids of left-padded prompts: (rows, tokens), or (3, rows, tokens) for multimodal RoPE; 0 on padding."""
    if hasattr(model.base_model, "get_rope_index"):
        index = model.base_model.get_rope_index
        known = inspect.signature(index).parameters
        positions: Tensor = index(**{name: value for name, value in inputs.items() if name in known})[0]
        return positions
    return (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)


def _unspeakable(vlm: Vlm, vocabulary: int) -> Tensor:
    """Mask (vocabulary,) of ids that are no text: image placeholders, and rows of the embedding without a token."""
    never = torch.arange(vocabulary) >= len(vlm.tokenizer)
    never[[i for i in image_token_ids(vlm) if i < vocabulary]] = True
    return never.to(vlm.device)


def _greedy(logits: Tensor, rows: Tensor, step: int) -> Tensor:
    return logits.argmax(-1)


def _watched(choose: Choose, sure: Tensor) -> Choose:
    """``choose``, with log-prob and margin of every choice written into ``sure`` (2, rows, steps)."""

    def watch(logits: Tensor, rows: Tensor, step: int) -> Tensor:
        token = choose(logits, rows, step)
        logps = logits.log_softmax(-1)
        first, second = logps.topk(2, dim=-1).values.exp().unbind(-1)
        own = logps.gather(-1, token.to(logps.device)[:, None]).squeeze(-1)
        sure[:, rows.cpu(), step] = torch.stack([own, first - second]).cpu()
        return token

    return watch


def sampler(keys: Sequence[str], seed: int, temperature: float, top_p: float, steps: int) -> Choose:
    """For ``decode``: inverse-CDF sampling with one uniform number a row and step, which follow from seed and key."""
    uniform = torch.stack([_uniform(f"{seed}\0{key}", steps) for key in keys]) if keys else torch.empty(0, steps)

    def choose(logits: Tensor, rows: Tensor, step: int) -> Tensor:
        logits = logits.cpu() if logits.device.type == "mps" else logits  # which has no float64
        return draw((logits / temperature).softmax(-1), top_p, uniform[rows.cpu(), step].to(logits.device))

    return choose


def _uniform(key: str, steps: int) -> Tensor:
    digest = hashlib.sha256(key.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(steps, generator=generator, dtype=torch.float64)


def draw(probabilities: Tensor, top_p: float, uniform: Tensor) -> Tensor:
    """Ids (rows,) drawn from ``probabilities`` (rows, vocabulary) within the nucleus ``top_p``.

    ``uniform`` (rows,) lies in [0, 1). The token is the first one where the cumulated probability exceeds its
    share, so that a token of probability 0 is never drawn. The nucleus is the smallest set of most likely tokens
    with a probability of at least ``top_p`` (Holtzman et al. 2020, The Curious Case of Neural Text Degeneration).
    """
    order = None
    if top_p < 1:
        probabilities, order = probabilities.sort(stable=True, dim=-1, descending=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0)
    cumulated = probabilities.double().cumsum(-1)
    target = uniform.double()[:, None] * cumulated[:, -1:]
    place = torch.searchsorted(cumulated, target, right=True).clamp(max=cumulated.shape[-1] - 1)
    return (place if order is None else order.gather(-1, place)).squeeze(-1)


def _encode(
    vlm: Vlm, question: Question, read: Callable[[ImageFile], Image.Image], max_new_tokens: int
) -> dict[str, Tensor] | Quarantined:
    try:
        prompt = encode_prompt(vlm, question.prompt, [read(image) for image in question.images])
    except (ImageError, ValueError) as error:
        return Quarantined(id=question.id, stage="generate", reason=str(error))
    length, context = prompt["input_ids"].shape[1], context_length(vlm)
    if length + max_new_tokens > context:
        return Quarantined(
            id=question.id,
            stage="generate",
            reason=f"{length} prompt tokens and up to {max_new_tokens} new ones exceed the model's context of "
            f"{context}; show fewer images (data.max_images) or lower max_new_tokens",
        )
    return prompt


def context_length(vlm: Vlm) -> int:
    """Tokens that prompt and answer may take together."""
    text = unwrapped(vlm.model).config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or 1 << 31)


def _completions(
    vlm: Vlm, questions: Sequence[Question], rows: Sequence[tuple[list[int], bool]], n: int, sure: Tensor | None
) -> Iterator[list[Completion]]:
    texts = said(vlm, [ids for ids, _ in rows])
    for number, question in enumerate(questions):
        yield [
            Completion(
                id=f"{question.id}/{index}",
                question=question.id,
                index=index,
                text=texts[number * n + index],
                tokens=len(rows[number * n + index][0]),
                finished=rows[number * n + index][1],
                scores=None if sure is None else _scores(vlm, rows[number * n + index][0], sure[:, number * n + index]),
            )
            for index in range(n)
        ]


def said(vlm: Vlm, rows: Sequence[Sequence[int]]) -> list[str]:
    """What generated ids say, without special tokens, white space around it, and a thought before it."""
    spoken = [ids[thought(vlm, ids) :] for ids in rows]
    return [text.strip() for text in vlm.tokenizer.batch_decode(spoken, skip_special_tokens=True)]


def thought(vlm: Vlm, ids: Sequence[int]) -> int:
    """How many ids at the beginning are a hidden thought with its marks; all of them where it never ends."""
    text = vlm.tokenizer.decode(ids, skip_special_tokens=False)
    for opening, closing in THOUGHTS:
        if closing in text:
            return next(n for n in range(1, len(ids) + 1) if _has(vlm, ids[:n], closing, text.count(closing)))
        if text.lstrip().startswith(opening):
            return len(ids)
    return 0


def _has(vlm: Vlm, ids: Sequence[int], words: str, times: int) -> bool:
    return str(vlm.tokenizer.decode(ids, skip_special_tokens=False)).count(words) >= times


def _scores(vlm: Vlm, ids: Sequence[int], sure: Tensor) -> TokenScores:
    """The scores of one row, ``sure`` (2, steps), to four decimals.

    Where tokens end is read off the decoded beginnings of the answer: no tokenizer can be asked for offsets of ids.
    """
    start = thought(vlm, ids)
    beginnings = vlm.tokenizer.batch_decode([ids[start : t + 1] for t in range(len(ids))], skip_special_tokens=True)
    whole = beginnings[-1] if beginnings else ""
    blank, length = len(whole) - len(whole.lstrip()), len(whole.strip())
    logps, margins = ([round(value, 4) for value in row] for row in sure[:, : len(ids)].tolist())
    ends = [min(max(len(text) - blank, 0), length) for text in beginnings]
    return TokenScores(logps=tuple(logps), margins=tuple(margins), ends=tuple(ends))


def _ahead(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """``(item, work(item))`` in order, with the next item's work done in a thread while this one is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = [pool.submit(work, item) for item in items[:1]]
        for number, item in enumerate(items):
            done = coming.pop().result()
            coming = [pool.submit(work, following) for following in items[number + 1 : number + 2]]
            yield item, done


_FAILURES = (ValueError, RuntimeError, IndexError, TypeError, AttributeError, KeyError, AssertionError)


def check_decoding(vlm: Vlm) -> None:
    """Raises ModelError unless image, prompt and answer go through ``decode`` as through one plain forward.

    Two prompts of different length with a grey image, two candidates each, all answers scripted and of different
    length: this reaches the processor's image tokens, the tower, padding on the left, positions, the cache, its
    repetition and its thinning. Compared are the next-token distributions, by total variation (0 to 1).
    """
    greys = [Image.new("RGB", size, (110, 110, 110)) for size in ((160, 128), (96, 150))]
    texts = ("Write the findings.", "Write the findings of this chest X-ray. Indication: cough and fever.")
    kind = unwrapped(vlm.model).config.model_type
    words = (
        "No acute finding.",
        "Heart size is normal.",
        "Small left effusion.",
        "The lungs are clear without edema.",
    )
    try:
        prompts = [encode_prompt(vlm, text, [grey]) for text, grey in zip(texts, greys, strict=True)]
    except ValueError as error:
        raise ModelError(
            f"{vlm.name}: its processor cannot put an image into a prompt: {error}. Either the chat template leaves "
            "images out, or it belongs to another processor, or the processor itself is broken."
        ) from error
    _check_image_tokens(vlm, prompts[0]["input_ids"])
    answers = [encode_answer(vlm, text) for text in words]
    batch = collate(vlm, [prompts[0], prompts[0], prompts[1], prompts[1]], answers)
    spoken = batch.pop("completion_mask")
    try:
        with torch.no_grad(), _arithmetic(vlm):
            plain = vlm.model(**{k: v.to(vlm.device) for k, v in batch.items()}, use_cache=False).logits
    except _FAILURES as error:
        raise ModelError(
            f"{vlm.name}: its processor and its model of type {kind} do not fit together. Two prompts with a grey "
            f"image each fail in the model with: {error}. Either the processor's files (processor_config.json, "
            "preprocessor_config.json, tokenizer) come from another checkpoint than the weights, or radpref does not "
            "know how such a model takes images."
        ) from error
    expected = [row[mask.roll(-1)].float() for row, mask in zip(plain.cpu(), spoken, strict=True)]
    steps = max(map(len, answers))
    script = torch.tensor([ids + [ids[-1]] * (steps - len(ids)) for ids in answers], device=vlm.device)
    seen: list[list[Tensor]] = [[] for _ in answers]

    def follow(logits: Tensor, rows: Tensor, step: int) -> Tensor:
        for row, values in zip(rows.tolist(), logits.cpu(), strict=True):
            seen[row].append(values)
        return script[rows, step]

    try:
        decode(vlm, prompts, n=2, choose=follow, max_new_tokens=steps)
    except _FAILURES as error:
        raise ModelError(
            f"{vlm.name}: a model of type {kind} cannot be decoded with a cache that candidates share: {error}. Please "
            "use another family or report it."
        ) from error
    never = _unspeakable(vlm, plain.shape[-1]).cpu()
    away = max(
        float(
            (torch.stack(got[: len(want)]).softmax(-1) - want.masked_fill(never, -torch.inf).softmax(-1))
            .abs()
            .sum(-1)
            .max()
        )
        / 2
        for got, want in zip(seen, expected, strict=True)
    )
    allowed = 0.1 if rounded(vlm.dtype, vlm.device) else 1e-3
    if not away <= allowed:  # also when it is not a number
        raise ModelError(
            f"{vlm.name}: decoding step by step gives other probabilities than one forward over the whole answer "
            f"(total variation {away:.3g}, at most {allowed} is rounding). A model of type {kind} keeps its cache or "
            "positions in a way that radpref does not know; please use another family or report it."
        )


def image_limit(vlm: Vlm) -> int | None:
    """1 where a prompt with two images fails in the processor or in the model; else None, no limit known."""
    greys = [Image.new("RGB", size, (110, 110, 110)) for size in ((160, 128), (96, 150))]
    try:
        two = encode_prompt(vlm, "Write the findings.", greys)
        with torch.no_grad(), _arithmetic(vlm):
            vlm.model(**{k: v.to(vlm.device) for k, v in two.items()}, use_cache=False)
    except _FAILURES:
        return 1
    return None


def _check_image_tokens(vlm: Vlm, ids: Tensor) -> None:
    inner = unwrapped(vlm.model)
    size = inner.get_input_embeddings().num_embeddings
    known = image_token_ids(vlm)
    if not known:
        raise ModelError(
            f"{vlm.name}: a model of type {inner.config.model_type} has no token that stands for an image in a prompt, "
            "so that it cannot be asked about one in a conversation. Use a vision-language model that has (LLaVA, "
            "Idefics3, Gemma3, Qwen-VL, InternVL ...)."
        )
    if not known.intersection(ids.flatten().tolist()):
        raise ModelError(
            f"{vlm.name}: the processor writes no token for an image that the model would take for one (the model's "
            f"config says {sorted(known)}, the processor's image token is "
            f"{getattr(vlm.processor, 'image_token', None)!r} = {getattr(vlm.processor, 'image_token_id', None)}). "
            "Processor and model come from different checkpoints, or the chat template leaves images out."
        )
    if int(ids.max()) >= size and int(ids.max()) not in known:
        raise ModelError(
            f"{vlm.name}: the tokenizer writes token {int(ids.max())}, but the model has embeddings for {size} only. "
            "Processor and model come from different checkpoints."
        )
