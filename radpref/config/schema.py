"""What a run does: one section a stage, every key typed, with a default, a range and a line of help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from radpref.errors import RadprefError
from radpref.outside import holds_key
from radpref.records import Cell

PATH: dict[str, Any] = {"path": True}
"""Mark of a key that may name a file or folder; a relative one is meant from where the command is given."""
SPEED: dict[str, Any] = {"speed": True}
"""Mark of a key that changes how fast or where something is computed, and never what: no result depends on it."""
OBJECTIVE: dict[str, Any] = {"objective": True}
"""Mark of a key of ``align`` that an objective consists of: naming one sets all of them."""


def _names(group: str) -> dict[str, Any]:
    """Mark of a key that takes a name of a ``radpref.plugins`` group."""
    return {"names": group}


class UndeclaredKeyError(RadprefError):
    """A stage reads a key of the recipe that it does not declare; its results would not follow a change of it."""


Schedule = Literal["cosine", "linear", "constant"]
Optimizer = Literal["adamw", "adamw-8bit", "adafactor"]
Tracker = Literal["tensorboard", "trackio", "wandb"]
Precision = Literal["auto", "float32", "bfloat16"]
Positive = Annotated[float, Field(gt=0)]


def _without_key(addresses: str) -> str:
    if any(holds_key(address.strip()) for address in addresses.split(",")):
        raise ValueError(
            "an address that holds a user, a key or a query would be kept in the run folder; give it without, and "
            "name the environment variable that holds the key: api_key_env"
        )
    return addresses


Address = Annotated[str, AfterValidator(_without_key)]
"""One address of a server, or several with commas; no key stands in it."""
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors; no silent conversion of words to numbers.

    Defaults are validated like what is given: a stage's key must not tell a default of 3 from a 3.0 read back.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, validate_default=True
    )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A key that is not there: this section was narrowed to what a stage declares (``config.narrowed``)."""
            if name in type(self).model_fields:
                raise UndeclaredKeyError(
                    f"`{name}` of {type(self).__name__} is read by a stage that does not declare it; add it to the "
                    "stage's config, so that a change of it is noticed."
                )
            return super().__getattr__(name)


class RunSection(Section):
    seed: int = Field(
        17, ge=0, lt=2**32, description="seed of everything that draws: splits, sampling, training, bootstrap"
    )
    threads: int = Field(
        0, ge=0, description="CPU threads for torch; 0 leaves torch's own choice", json_schema_extra=SPEED
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Precision = Field(
        "auto",
        description="auto: bfloat16 where this machine is faster with it (measured at start), else float32",
    )
    shared: bool = Field(
        False,
        description="a new run folder may be read by whom umask lets; false: by its owner alone, for it holds reports",
        json_schema_extra=SPEED,
    )
    trackers: tuple[Tracker, ...] = Field(
        (),
        description="tensorboard, trackio, wandb: where trainings are shown besides the report; none by default",
        json_schema_extra=SPEED,
    )


class EngineSection(Section):
    """Where the work is done; no result depends on it."""

    name: Literal["local", "ray"] = Field(
        "local",
        description="local: this process, or every process that torchrun or accelerate launch starts; ray: a cluster",
        json_schema_extra=SPEED,
    )
    address: str | None = Field(
        None, description="ray: the cluster's address; absent: one is found, or started here", json_schema_extra=SPEED
    )
    workers: int = Field(
        2, ge=1, description="ray: actors that each hold a model, and workers of a training", json_schema_extra=SPEED
    )
    cpus: float = Field(1.0, gt=0, description="ray: CPU cores a worker", json_schema_extra=SPEED)
    gpus: float = Field(0.0, ge=0, description="ray: GPUs a worker", json_schema_extra=SPEED)


class ModelSection(Section):
    path: str = Field("builtin", description="builtin, a folder, or a model's name on the hub", json_schema_extra=PATH)
    adapter: str | None = Field(
        None, description="a PEFT adapter to load on top before anything else", json_schema_extra=PATH
    )
    revision: str | None = Field(None, description="revision on the hub")
    quantize: Literal["none", "nf4"] = Field(
        "none",
        description="nf4: the language model's frozen weights in 4 bits (QLoRA, bitsandbytes), below an adapter",
    )


class HabitSection(Section):
    """Habits of a world's reports, each at its rate; absent: that of ``data.phantom.reports``. See docs/phantom.md."""

    template: Share | None = Field(None, description="chance that a report with nothing to tell is one fixed text")
    variety: Share | None = Field(None, description="chance that a word of a finding gives way to a rarer one")
    omission: float | None = Field(
        None, ge=0, description="findings that go unreported, in units of the published shares by severity"
    )
    hedging: float | None = Field(
        None, ge=0, description="findings that are doubted, in units of the published shares by finding"
    )
    readers: float | None = Field(
        None, ge=0, le=2, description="how far readers lie apart: sd of the log of their omission and hedging"
    )
    uncompared: Share | None = Field(None, description="chance that an unchanged finding is not said to be so")
    comparison: Share | None = Field(None, description="chance that a study without a prior is compared with one")
    copied: Share | None = Field(None, description="chance that a finding that has gone is carried forward")
    boilerplate: Share | None = Field(None, description="chance of a phrase that says nothing of the image")
    tail: Share | None = Field(None, description="chance of a remark on a small finding that no image shows")
    side_slip: Share | None = Field(None, description="chance that a finding is put on the other side")
    severity_slip: Share | None = Field(None, description="chance that a finding is graded one step off")


class PhantomSection(Section):
    size: int = Field(128, ge=32, le=2048, description="height and width of an image in pixels")
    seed: int = Field(0, ge=0, description="seed of the world; the same seed draws the same patients")
    train: int = Field(2000, ge=1, description="training studies that are drawn; data.train, if set, instead")
    validation: int = Field(
        200, ge=1, description="validation studies that are drawn; data.validation, if set, instead"
    )
    test: int = Field(400, ge=1, description="test studies that are drawn; data.test, if set, instead")
    unreported: int = Field(
        0, ge=0, description="further training studies whose report is withheld: labels alone, as boxes would give them"
    )
    lateral_share: float = Field(0.2, ge=0, le=1, description="share of studies with a lateral image as well")
    prior_share: float = Field(0.25, ge=0, le=1, description="share of studies that have a prior")
    masks: bool = Field(False, description="write the lesion masks beside the images")
    reports: Literal["clean", "clinical"] = Field(
        "clean", description="clean: reports say what is there; clinical: with the habits of real ones, at their rates"
    )
    habits: HabitSection = HabitSection()


class TableSection(Section):
    """Columns by name. ``auto``: found by the usual names; empty: not used."""

    id: str = Field("auto", description="column of the study id; empty numbers the rows")
    patient: str = Field(
        "auto", description="column of the patient; the word `study` makes each study a patient of its own"
    )
    images: str = Field("auto", description="column of one image or several: paths, or Hugging Face images")
    view: str = Field("auto", description="column of the view, where a row is an image")
    findings: str = Field("auto", description="column of the findings, the reference report")
    impression: str = Field("auto", description="column of the impression")
    indication: str = Field("auto", description="column of the indication")
    report: str = Field("auto", description="column of the whole report, whose sections are found")
    date: str = Field("auto", description="column of date and time: the study before is the prior")
    prior: str = Field("auto", description="column of the id of the study before")
    question: str = Field("auto", description="column of a question about the study")
    answer: str = Field("auto", description="column of its answer")
    split: str = Field("auto", description="column of the split; without one, patients are split by hash")


UnreportedUse = Literal["quarantine", "labels", "template"]


class UnreportedSection(Section):
    """Studies that have labels and no report. They stand in train alone."""

    use: UnreportedUse = Field(
        "quarantine",
        description="quarantine: left out; labels: used for all but fine-tuning, judged by their labels; template: a "
        "plain report is written from the labels",
    )
    most: int | None = Field(None, ge=1, description="most training studies without a report to use; all if absent")
    source: str | None = Field(
        None,
        description="a second source, of studies whose labels alone are used: nih, vindr, table ...",
        json_schema_extra=_names("sources"),
    )
    root: str | None = Field(None, description="folder of that source", json_schema_extra=PATH)
    file: str | None = Field(None, description="file of that source", json_schema_extra=PATH)
    options: dict[str, Any] = Field(default_factory=dict, description="what that source itself can be asked")


class DataSection(Section):
    source: str = Field(
        "phantom",
        description="where studies come from: phantom, table, openi, mimic-cxr, chexpert-plus ..., see docs/data/; "
        "none for pairs alone",
        json_schema_extra=_names("sources"),
    )
    root: str | None = Field(
        None, description="folder of the source; images are never read from outside it", json_schema_extra=PATH
    )
    file: str | None = Field(
        None,
        description="table: JSONL, CSV or Parquet in root, or a data set's name; openi: reports file or folder",
        json_schema_extra=PATH,
    )
    train: int | None = Field(None, ge=1, description="most training studies to use; all if absent")
    validation: int | None = Field(None, ge=1, description="most validation studies to use; all if absent")
    test: int | None = Field(None, ge=1, description="most test studies to use; all if absent")
    validation_share: float = Field(0.1, gt=0, lt=0.5, description="share of patients held out to select on")
    test_share: float = Field(0.2, gt=0, lt=0.5, description="share of patients held out to test on")
    max_images: int = Field(2, ge=1, le=8, description="most images of a study that the model is shown")
    near_duplicates: Literal["quarantine", "note", "ignore"] = Field(
        "quarantine",
        description="pictures nearly the same as one of another split: their study, the less held out one, is left "
        "out; counted only; or not looked for",
    )
    burned_in: Literal["note", "refuse"] = Field(
        "note", description="DICOM images whose header says that there is text in the pixels: counted, or refused"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="what the source itself can be asked; docs/data/ has a page for each"
    )
    unreported: UnreportedSection = UnreportedSection()
    phantom: PhantomSection = PhantomSection()
    table: TableSection = TableSection()


class TaskSection(Section):
    kind: Literal["report", "questions"] = Field(
        "report", description="report: findings are written; questions: the source's own, or made from findings"
    )
    prompt: str = Field("Write the findings of this chest X-ray.", description="the instruction of the report task")
    indication: bool = Field(True, description="put the indication into the prompt where there is one")
    asks: tuple[Literal["basic", "region", "comparison"], ...] = Field(
        ("basic", "region", "comparison"),
        min_length=1,
        description="questions made from findings: about an image, a marked part of it, an image and the one before",
    )
    marks: tuple[Literal["arrow", "star", "box", "contour"], ...] = Field(
        ("arrow", "star", "box", "contour"), min_length=1, description="marks that region questions point with"
    )
    per_study: int = Field(6, ge=1, description="most questions made a study; a source's own are all asked")
    balance: Literal["none", "kind", "finding", "answer"] = Field(
        "none", description="none: as the findings are; else as many of each kind, finding or answer as there are"
    )


class LoraSection(Section):
    rank: int = Field(16, ge=0, description="0 trains the language model in full")
    alpha: float = Field(32, gt=0, description="scale of the adapter: alpha / rank, or alpha / sqrt(rank) with rslora")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    rslora: bool = Field(False, description="rank-stabilised scale")
    dora: bool = Field(False, description="DoRA: learn each weight's magnitude apart from its direction")
    head: bool = Field(
        False, description="an adapter on the output head as well; a head tied to the embeddings is untied"
    )


class SftSection(Section):
    enabled: bool = Field(True, description="false starts from the model as it is")
    lora: LoraSection = LoraSection(rank=0)
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps that warm up")
    epochs: float = Field(3, gt=0, description="passes over the training questions")
    batch: int = Field(16, ge=1, description="questions a batch, over all processes")
    accumulate: int = Field(1, ge=1, description="steps whose gradients are summed")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    schedule: Schedule = Field(
        "cosine", description="the rate after the warm-up: down to 0 on a cosine, a line, or kept"
    )
    optimizer: Optimizer = Field("adamw", description="adamw; adamw-8bit (bitsandbytes) and adafactor take less memory")
    train_tower: bool = Field(False, description="train the vision tower too; off keeps it frozen")
    train_projector: bool = Field(True, description="train the projector between tower and language model")
    interpolate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="how much of the way from the given model's weights to the fine-tuned ones is gone; below 1 keeps "
        "more of what the given model knows (Wortsman et al., 2022)",
    )
    gradient_checkpointing: bool = Field(False, description="less memory for more time", json_schema_extra=SPEED)
    save_steps: int = Field(50, ge=1, description="steps between checkpoints")


class SampleSection(Section):
    n: int = Field(4, ge=1, description="candidates a study")
    temperature: float = Field(1.0, gt=0, description="1 samples the model's own distribution")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus; 1 keeps everything")
    max_new_tokens: int = Field(192, ge=1, description="a longer answer is cut and marked unfinished")
    batch: int = Field(16, ge=1, description="studies a batch; each is prefilled once for all its candidates")
    studies: Literal["all", "reported", "unreported"] = Field(
        "all", description="training studies that are answered and aligned on; unreported: those with labels alone"
    )
    most: int | None = Field(None, ge=1, description="most studies that are; the first ones; all if absent")
    server: Address | None = Field(
        None,
        description="an OpenAI-compatible server that takes images and serves the fine-tuned model, up to /v1, or "
        "several with commas: it answers in place of this process; see `radpref serve-command`",
    )


class ServeSection(Section):
    """Servers that answer in place of this process (``sample.server``, ``evaluate.server``)."""

    model: str | None = Field(
        None,
        description="the model's name there; absent: the one that `radpref serve-command` gives it, or its folder",
        json_schema_extra=SPEED,
    )
    concurrency: int = Field(
        32, ge=1, le=4096, description="questions asked at the same time; no more wait", json_schema_extra=SPEED
    )
    timeout: float = Field(600.0, gt=0, description="seconds for one whole answer", json_schema_extra=SPEED)
    retries: int = Field(
        4, ge=0, description="more tries at each address after 429, 5xx, a lost connection or a timeout",
        json_schema_extra=SPEED,
    )  # fmt: skip
    api_key_env: str | None = Field(
        None,
        description="environment variable that holds the server's key; a key never stands in a recipe",
        json_schema_extra=SPEED,
    )
    tolerance: float = Field(
        0.1,
        gt=0,
        description="how far the log-probs of a probe's tokens may lie from those of the run's own weights, on average",
        json_schema_extra=SPEED,
    )


class ServerSection(Section):
    """A chat model behind a server."""

    server: Address | None = Field(
        None, description="chat: address of an OpenAI-compatible server up to /v1; nothing is sent anywhere else"
    )
    model: str | None = Field(None, description="chat: the model's name on the server")
    template: str | None = Field(
        None, description="chat: a Jinja2 file of your own for the question; default shipped", json_schema_extra=PATH
    )
    json_schema: Literal["auto", "always", "never"] = Field(
        "auto", description="chat: hold the answer to a JSON schema; auto stops asking where the server cannot"
    )
    max_tokens: int = Field(1024, ge=16, description="chat: longest answer; a longer one is incomplete")
    concurrency: int = Field(
        8, ge=1, le=256, description="chat: questions asked at the same time", json_schema_extra=SPEED
    )
    timeout: float = Field(120.0, gt=0, description="chat: seconds for one whole answer", json_schema_extra=SPEED)
    retries: int = Field(
        4, ge=0, description="chat: more tries after 429, 5xx, a lost connection or a timeout", json_schema_extra=SPEED
    )
    repairs: int = Field(1, ge=0, description="chat: more tries after an answer that cannot be read")
    api_key_env: str | None = Field(
        None, description="chat: environment variable that holds the server's key; a key never stands in a recipe"
    )
    cache: str | None = Field(
        None, description="chat: folder of answers already given; default in the run folder", json_schema_extra=PATH
    )


NormalsRule = Literal["weigh", "count", "none"]
"""What agreed normal statements count in the judge `green`."""


class JudgeSection(ServerSection):
    name: str = Field(
        "green",
        description="green (findings), green-1 (its first version), text (words), labels (a study's labels; also "
        "labels-uncertain-negative, -ignored), chat, green-model, radeval-NAME, each with lc- before it for length "
        "control; answer (right or not) for questions",
        json_schema_extra=_names("judges"),
    )
    normals: NormalsRule = Field(
        "weigh",
        description="green: what agreed normal statements count; weigh: a little, by region, in the share of the "
        "findings that was found; count: as much as a finding, as published judges do; none: nothing beside findings",
    )
    python: str | None = Field(
        None,
        description="radeval: Python interpreter that has RadEval installed; default this one",
        json_schema_extra=PATH,
    )


class MineSection(Section):
    select: Literal["hard", "random"] = Field(
        "hard", description="hard: hard questions and their neighbours; random: as many at random, to compare with"
    )
    confidence: Literal["mean", "minimum", "geometric", "margin"] = Field(
        "geometric",
        description="an answer's confidence by its tokens' probabilities: mean, minimum, geometric mean, or the mean "
        "of the likeliest less the second",
    )
    tokens: Literal["answer", "all"] = Field(
        "answer", description="the tokens that count: those of the short answer within the text, or all"
    )
    quantile: float = Field(
        0.5, gt=0, lt=1, description="share of the answers that count as unsure; a quantile, never an absolute cut"
    )
    within: Literal["all", "task", "kind"] = Field(
        "all", description="answers whose confidence is compared: all, or those of one task or kind of question"
    )
    report_wrong: Literal["errors", "score"] = Field(
        "errors", description="reports that are wrong: with an error of findings, or below a quantile of the score"
    )
    report_quantile: float = Field(0.5, gt=0, lt=1, description="report_wrong score: share of reports that are wrong")
    cells: tuple[Cell, ...] = Field(
        ("wrong-confident", "wrong-unsure"),
        min_length=1,
        description="the hard set, in the order of preference: wrong-confident, wrong-unsure, right-unsure, "
        "right-confident",
    )
    k: int = Field(10, ge=0, description="neighbours of each hard question; 0 for none")
    queries: int | None = Field(None, ge=1, description="most hard questions that get neighbours; all if absent")
    question: float = Field(1.0, description="weight of the distance of questions; a negative one: unlike ones")
    rationale: float = Field(1.0, description="weight of the distance of reference answers")
    image: float = Field(0.0, description="weight of the distance of images")
    finding: float = Field(0.0, description="weight of the share of findings that differ")
    exclude: tuple[Literal["study", "patient", "prompt"], ...] = Field(
        ("patient",), description="neighbours may not share these with their question"
    )
    text_model: str | None = Field(
        None,
        description="a sentence-transformers model, by folder or name; hashed TF-IDF if absent",
        json_schema_extra=PATH,
    )
    image_model: str | None = Field(
        None,
        description="a CLIP-like model, by folder or name, or open_clip:FOLDER; the model's own tower if absent",
        json_schema_extra=PATH,
    )
    index: Literal["exact", "faiss"] = Field(
        "exact", description="exact search in blocks, or faiss's inverted lists for galleries of many millions"
    )
    text_dims: int = Field(512, ge=16, description="buckets of the hashed TF-IDF")
    image_batch: int = Field(16, ge=1, description="images a batch of the image encoder")
    quota: Literal["none", "uniform", "proportional", "tempered", "pool"] = Field(
        "tempered",
        description="how the budget is shared among strata: by their hard questions to the power 1 (proportional), "
        "temper (tempered) or 0 (uniform); pool: by all their questions, hard or not",
    )
    temper: float = Field(0.5, ge=0, le=1, description="tempered: the power")
    strata: tuple[Literal["task", "kind", "finding", "answer"], ...] = Field(
        ("task", "kind", "finding"), description="what makes a stratum; answer: that of a closed question"
    )
    budget: float = Field(
        0.05, gt=0, description="questions to take: up to 1 a share of all training questions, above that a number"
    )
    neighbours: float = Field(
        0.5, ge=0, le=1, description="share of the budget for neighbours; what one side cannot fill goes to the other"
    )
    tail: float = Field(0.2, gt=0, lt=1, description="the rarest findings with this share of questions are the tail")


class PairSection(Section):
    by: Literal["judge", "consensus", "both"] = Field(
        "judge",
        description="what candidates are ranked by: the judge's score; consensus: how well each agrees with the "
        "others, which needs no reference; both: the mean of the two",
    )
    chosen: Literal["candidate", "reference"] = Field(
        "candidate", description="the chosen side: the best candidate, or the reference itself"
    )
    tie: float = Field(1e-8, ge=0, description="no pair where best minus worst is at most this")
    margin: float = Field(0.0, ge=0, description="least difference of scores that makes a pair")
    limit: int | None = Field(None, ge=1, description="most pairs; the first in the order of the questions")
    drop_unfinished: bool = Field(True, description="candidates cut at max_new_tokens are never chosen")
    rejected: Literal["counterfactual", "sampled"] = Field(
        "counterfactual", description="chexpo: the reference with one attribute flipped, or the model's wrong answer"
    )
    file: str | None = Field(
        None,
        description="method pairs: pairs made elsewhere; a table or data set in TRL's layout, hub:OWNER/NAME, or the "
        "pairs.jsonl of a run",
        json_schema_extra=PATH,
    )
    root: str | None = Field(
        None, description="method pairs: folder of their images; the file's own if absent", json_schema_extra=PATH
    )


class CorruptSection(Section):
    operator: str = Field(
        "noise",
        description="noise, blur, inpaint, mean change the lesion; whole-noise, crop, black the whole image",
        json_schema_extra=_names("corruptions"),
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="noise: sd as a share of the image's range (45/255); blur: sd as a share of its shorter side "
        "(.05); crop: share of its area that is kept (.2); others: share of the values that is replaced (1)",
    )
    grain: float = Field(
        0.0,
        ge=0,
        le=0.1,
        description="noise, whole-noise: side of a grain as a share of the image's shorter side; 0 is one pixel, "
        "which a processor that makes a large image smaller averages away",
    )
    masks: tuple[Literal["own", "segmenter", "evidence"], ...] = Field(
        ("own",),
        min_length=1,
        description="who says where the lesion is, the first that finds it: own (the data's masks and boxes), "
        "segmenter, evidence (the model's attention from its wrong words)",
    )
    grow: float = Field(
        0.0,
        ge=0,
        le=0.25,
        description="the mask is widened by this share of the image's shorter side; .03 takes in a lesion's soft "
        "edge, which inpainting would otherwise go on from",
    )
    fallback: Literal["whole", "none"] = Field(
        "whole", description="no lesion found: whole adds noise to all images; none leaves the pair no visual term"
    )
    fallback_strength: float = Field(
        12 / 255, ge=0, le=1, description="sd of the fallback's noise as a share of the image's range"
    )
    most: float = Field(0.9, gt=0, le=1, description="a mask over more of the image than this is taken for no lesion")
    segmenter: str | None = Field(
        None,
        description="segmenter: folder of a SAM 3 checkpoint, or its name on the hub; safetensors only",
        json_schema_extra=PATH,
    )
    segmenter_score: float = Field(0.5, ge=0, le=1, description="segmenter: least score of an object that counts")
    quantile: float = Field(0.9, gt=0, lt=1, description="evidence: share of the images' area that is left alone")


class KlSection(Section):
    weight: float = Field(0.0, ge=0, description="weight of the divergence from the reference, summed over tokens")
    forward: float = Field(0.5, ge=0, le=1, description="share of KL(ref || policy); the rest is KL(policy || ref)")
    scope: Literal["span", "completion"] = Field(
        "span", description="tokens of the chosen answer that it is taken at: the rewarded spans, or all"
    )


class VisualSection(Section):
    weight: float = Field(
        0.0, ge=0, description="weight of the ranking on corrupted images; pairs without any have none"
    )
    form: Literal["swap", "chosen", "cross"] = Field(
        "swap",
        description="swap: rejected over chosen on the corrupted image; chosen, cross: the chosen answer on the clean "
        "image over the chosen, or the rejected, one on the corrupted image",
    )
    hinged: bool = Field(False, description="stop pushing once the order holds")


class EditSection(ServerSection):
    editor: Literal["rule", "chat"] = Field("rule", description="rule (offline, from findings) or chat (a server)")
    flips: int = Field(1, ge=1, le=5, description="attributes made wrong in the counterpart of a right answer")
    attributes: tuple[Literal["presence", "side", "place", "severity", "type", "change"], ...] = Field(
        ("presence", "side", "place", "severity", "type", "change"),
        min_length=1,
        description="what may be made wrong in a counterpart or counterfactual",
    )
    comparisons: bool = Field(
        True, description="correct comparisons with earlier images too; false leaves them as the model wrote them"
    )
    max_distance: float = Field(
        0.5,
        gt=0,
        le=1,
        description="largest edit distance in words, as a share of the longer side; beyond it is dropped",
    )
    max_length_ratio: float = Field(
        1.5,
        gt=1,
        description="largest ratio of the words of both sides; a sentence of eight words more is always allowed",
    )


class AlignSection(Section):
    objective: str | None = Field(
        None,
        description="a published objective by name: sets all keys from loss to visual; see docs/objectives.md",
        json_schema_extra=_names("objectives"),
    )
    loss: str = Field(
        "dpo",
        description="a ranking loss, or a weighted sum such as `0.8 dpo + 0.2 ipo`; see docs/objectives.md",
        json_schema_extra=OBJECTIVE,
    )
    beta: float = Field(
        0.1,
        gt=0,
        description="strength of the tie to the reference (orpo: weight of the odds ratio)",
        json_schema_extra=OBJECTIVE,
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="dpo, lc-dpo, cpo, robust, exo: how often a preference is taken to be wrong",
        json_schema_extra=OBJECTIVE,
    )
    length_alpha: float = Field(
        0.05, ge=0, description="lc-dpo: weight of the length difference in tokens", json_schema_extra=OBJECTIVE
    )
    ld_alpha: float = Field(
        0.5,
        ge=0,
        le=1,
        description="ld-dpo: what tokens beyond the shorter answer's length count",
        json_schema_extra=OBJECTIVE,
    )
    tdpo_alpha: float = Field(
        0.5, ge=0, description="tdpo: weight of the difference of the two sides' KL", json_schema_extra=OBJECTIVE
    )
    target_margin: float = Field(
        0.5, ge=0, description="simpo: margin that the mean log-probs are pushed to", json_schema_extra=OBJECTIVE
    )
    desirable: float = Field(1.0, gt=0, description="kto: weight of the chosen answers", json_schema_extra=OBJECTIVE)
    undesirable: float = Field(
        1.0, gt=0, description="kto: weight of the rejected answers", json_schema_extra=OBJECTIVE
    )
    spans: bool = Field(
        False,
        description="reward the marked spans of a pair alone; pairs without spans are refused",
        json_schema_extra=OBJECTIVE,
    )
    nll: float = Field(
        0.0,
        ge=0,
        description="weight of an anchor: mean negative log-likelihood of the chosen side",
        json_schema_extra=OBJECTIVE,
    )
    anchor: float = Field(
        0.0,
        ge=0,
        description="weight of mDPO's anchor: the chosen side's reward stays above 0",
        json_schema_extra=OBJECTIVE,
    )
    kl: KlSection = Field(KlSection(), json_schema_extra=OBJECTIVE)
    visual: VisualSection = Field(VisualSection(), json_schema_extra=OBJECTIVE)
    lora: LoraSection = LoraSection()
    train_tower: bool = Field(False, description="train the vision tower too; its features cannot be cached then")
    train_projector: bool = Field(False, description="train the projector; its output cannot be cached then")
    lr: float = Field(1e-5, gt=0, description="peak learning rate")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps that warm up")
    epochs: float = Field(1, gt=0, description="passes over the pairs")
    rounds: int = Field(
        1,
        ge=1,
        le=8,
        description="times to sample, judge, pair and align, each from the newest model and on another part of "
        "the training studies",
    )
    batch: int = Field(8, ge=1, description="pairs a batch, over all processes")
    accumulate: int = Field(1, ge=1, description="steps whose gradients are averaged")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    schedule: Schedule = Field(
        "cosine", description="the rate after the warm-up: down to 0 on a cosine, a line, or kept"
    )
    optimizer: Optimizer = Field("adamw", description="adamw; adamw-8bit (bitsandbytes) and adafactor take less memory")
    dropout: bool = Field(
        False, description="leave the model's own dropout on in what is trained; LoRA's is lora.dropout"
    )
    max_length: int | None = Field(
        None, ge=8, description="longest prompt plus answer in tokens; a longer pair is quarantined"
    )
    save_steps: int = Field(50, ge=1, description="steps between checkpoints")
    gradient_checkpointing: bool = Field(False, description="less memory for more time", json_schema_extra=SPEED)
    shared_prefix: Literal["auto", "never"] = Field(
        "auto",
        description="auto: both answers of a pair in one row after their prompt, where the model allows it",
        json_schema_extra=SPEED,
    )
    cache_features: Literal["auto", "always", "never"] = Field(
        "auto",
        description="keep encoded images on disk; auto does not where encoding costs under 5 % of a step",
        json_schema_extra=SPEED,
    )


class GrpoSection(Section):
    reward: Literal["judge", "chexpo"] = Field(
        "judge", description="judge: the judge's score; chexpo: overlap of the findings' graphs (CheXPO-v2)"
    )
    steps: int = Field(50, ge=1, description="optimiser steps")
    questions: int = Field(4, ge=1, description="questions a batch, over all processes")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are averaged into one step")
    n: int = Field(8, ge=2, description="answers to each question: the group whose mean an answer is held against")
    beta: float = Field(0.0, ge=0, description="weight of the KL to the fine-tuned model; 0 needs no reference")
    scale: Literal["none", "group", "batch"] = Field(
        "none",
        description="what an answer's lead over its group is divided by: nothing, or the rewards' standard deviation "
        "in the group or the batch",
    )
    unfinished: Literal["zero", "judged"] = Field(
        "zero", description="what an answer that was cut at max_new_tokens gets: no reward, or what the judge says"
    )
    lora: LoraSection = LoraSection()
    lr: float = Field(1e-5, gt=0, description="peak learning rate")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps that warm up")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    schedule: Schedule = Field(
        "cosine", description="the rate after the warm-up: down to 0 on a cosine, a line, or kept"
    )
    optimizer: Optimizer = Field("adamw", description="adamw; adamw-8bit (bitsandbytes) and adafactor take less memory")
    save_steps: int = Field(25, ge=1, description="steps between checkpoints, all of which are kept")


class SelectSection(Section):
    by: str = Field(
        "lc-green",
        description="the judge that chooses among checkpoints and betas on validation",
        json_schema_extra=_names("judges"),
    )
    betas: tuple[Positive, ...] = Field((), description="betas to try; empty takes align.beta alone")
    checkpoints: bool = Field(True, description="choose among all saved checkpoints; false takes the last of each beta")
    interpolate: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (),
        description="try besides, of each last checkpoint and control, models at these shares of the way from the "
        "given model's weights to theirs; each takes the disk space of a whole model",
    )


class EvaluateSection(Section):
    control: bool = Field(True, description="train the control: SFT on the chosen side of the same pairs")
    control_lrs: tuple[Positive, ...] = Field(
        (), description="learning rates of the control, chosen like the aligned model; empty takes align.lr alone"
    )
    controls: tuple[Literal["negated", "swapped", "blank"], ...] = Field(
        ("negated", "swapped", "blank"),
        description="questions are asked again: for the opposite, about another patient's image, about a grey one",
    )
    drawn: bool = Field(
        False, description="measure an answer drawn at temperature 1 too, of the model before and after alignment"
    )
    consensus: int = Field(
        0,
        ge=0,
        le=64,
        description="measure, of both, the one of so many drawn answers too that the others agree with most; 0: not",
    )
    style: bool = Field(
        False, description="measure how likely every answer is under the model before alignment: is its style kept"
    )
    resamples: int = Field(1000, ge=100, description="bootstrap resamples and permutations")
    batch: int = Field(32, ge=1, description="studies a batch of greedy decoding")
    server: Address | None = Field(
        None,
        description="as sample.server, for the greedy answers of the models that are compared",
    )


class GroundSection(Section):
    studies: int = Field(200, ge=1, description="most held-out studies with masks that grounding is measured on")
    placements: int = Field(4, ge=1, description="places elsewhere that an equal patch is removed at, averaged")
    attention: bool = Field(True, description="attention against the masks too; the causal test needs none")


class HeadroomSection(Section):
    enabled: bool = Field(
        False, description="measure before the alignment what it can gain, as `radpref headroom` does, for the report"
    )
    n: int = Field(16, ge=2, description="answers that `radpref headroom` draws to each validation question")
    probe: int = Field(
        2000,
        ge=0,
        description="most training reports that a probe on the model's image features learns from; 0: no probe",
    )


class ReportSection(Section):
    studies: int = Field(40, ge=0, description="studies in the browser")
    pairs: int = Field(20, ge=0, description="pairs in the browser")


class Recipe(Section):
    """The whole of a run."""

    method: Literal["chexalign", "chexpo", "firempo", "grpo", "pairs"] = Field(
        "chexalign", description="the system that this recipe runs"
    )
    run: RunSection = RunSection()
    engine: EngineSection = EngineSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    task: TaskSection = TaskSection()
    sft: SftSection = SftSection()
    sample: SampleSection = SampleSection()
    serve: ServeSection = ServeSection()
    judge: JudgeSection = JudgeSection()
    mine: MineSection = MineSection()
    pair: PairSection = PairSection()
    edit: EditSection = EditSection()
    corrupt: CorruptSection = CorruptSection()
    align: AlignSection = AlignSection()
    grpo: GrpoSection = GrpoSection()
    select: SelectSection = SelectSection()
    evaluate: EvaluateSection = EvaluateSection()
    ground: GroundSection = GroundSection()
    headroom: HeadroomSection = HeadroomSection()
    report: ReportSection = ReportSection()
