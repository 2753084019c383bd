"""What results follow from besides the recipe's words: weights, a judge's rules, the words that the reader knows."""

from __future__ import annotations

from radpref import plugins
from radpref.config import JudgeSection, Recipe
from radpref.files import content_key
from radpref.records import Question
from radpref.rooms import findings, judges, losses, models
from radpref.runs.stage import Identity

COMPUTES = ("run.precision", "run.threads", "model.quantize")
"""Keys of every stage that runs a model."""
ASKED = ("sample.studies", "sample.most")
"""Keys of every stage that goes over the training questions that are answered (``streams.asked``)."""
DEVICE = Identity("the kind of device", ("run.device",), lambda recipe: models.pick_device(recipe.run.device).type)
BASE = Identity(
    "the model that was given",
    ("model",),
    lambda recipe: models.fingerprint(models.locate(recipe.model), recipe.model.adapter),
)
READER = Identity("the lexicon", (), lambda recipe: f"{findings.lexicon().digest} {findings.grammar_digest()}")
JUDGE = Identity(
    "the judge",
    ("judge",),
    lambda recipe: f"{recipe.judge.name} {judges.judging(recipe.judge).version}",
)
SELECTING_JUDGE = Identity(
    "the judge that selects",
    ("select.by", "judge"),
    lambda recipe: f"{recipe.select.by} {judges.version(recipe.select.by, recipe.judge)}",
)
FREE_JUDGES = Identity(
    "the judges' rules",
    ("judge.normals",),
    lambda recipe: content_key(
        [judges.version(name, JudgeSection(normals=recipe.judge.normals)) for name in judges.FREE]
    ),
)
ADDED_METRICS = Identity("the metrics of other packages", (), lambda recipe: plugins.versions("metrics"))
DRAWING = Identity(
    "how answers are drawn",
    ("evaluate.drawn", "evaluate.consensus", "task.kind", "run.seed"),
    lambda recipe: _drawing(recipe),
)
"""Of systems that are measured by drawn answers too; nothing where all are greedy."""
NEEDS = Identity(
    "what the objective reads of the reference", ("align",), lambda recipe: losses.objective(recipe.align).needs
)


def _who(address: str | None) -> str:
    return "a server" if address else "this process"


SAMPLED_BY = Identity("who answers", ("sample.server", "serve"), lambda recipe: _who(recipe.sample.server))
"""Draws and rounding differ between a server and this process; which server it is changes nothing, so that its address
is in no stage's own keys."""
MEASURED_BY = Identity("who answers", ("evaluate.server", "serve"), lambda recipe: _who(recipe.evaluate.server))


def _drawing(recipe: Recipe) -> str:
    ways = [f"seed {recipe.run.seed}"] if recipe.evaluate.drawn or recipe.evaluate.consensus else []
    if recipe.evaluate.drawn:
        ways.append("drawn")
    if recipe.evaluate.consensus:
        judge = judges.among(recipe.task.kind)
        ways.append(f"consensus of {recipe.evaluate.consensus} by {judge.name} {judge.version}")
    return ", ".join(ways)


def shown(question: Question) -> list[object]:
    """What a model is shown: the prompt and the images' bytes, wherever they lie."""
    return [question.prompt, [image.digest for image in question.images]]
