"""The page: complete, self-contained, escaped, honest in every combination of results, whole with nothing in it."""

from __future__ import annotations

import base64
import hashlib
import html as html_library
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from PIL import Image

from radpref.records import Comparison, ImageFile, Judgement, Metric, Pair, Quarantined, Question, ReportError, Span
from radpref.report import Choice, PairView, ReportData, Setting, StudyView, TrainingLog, charts, render, verdict
from radpref.report.marking import LONGEST, Mark, differing, marked
from tests.report_filling import filled

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onmouseover='alert(3)\0\x1b[2J\u202e\u2066\x9b"
_VOID = {"meta", "img", "input", "br", "wbr", "link", "hr"}


class _Reader(HTMLParser):
    """Checks that tags nest, and collects tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag, tag


def parse(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    assert reader.stack == []
    return reader


def assert_self_contained(page: str) -> None:
    """One script, the page's own by its hash; no address of any other place; no handler in an attribute."""
    reader = parse(page)
    assert "http:" not in page
    assert "https:" not in page
    assert "//cdn" not in page
    assert [tag for tag, _ in reader.tags].count("script") == 1
    for tag, attributes in reader.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes), attributes
        assert "style" not in attributes
        assert (attributes.get("src") or "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(
        a["content"] for t, a in reader.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return filled(tmp_path_factory.mktemp("images"), count=80)


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render(data)


# ------------------------------------------------------------------------------------------ the page


def test_a_full_page_is_self_contained_and_small(page: str) -> None:
    assert_self_contained(page)
    assert len(page) < 5_000_000


def test_a_full_page_shows_every_section(page: str, data: ReportData) -> None:
    for part in ("verdict", "results", "errors", "training", "pairs", "studies", "pair-browser", "ran"):
        assert f'id="{part}"' in page
    text = html_library.unescape(re.sub(r"<[^>]+>", " ", page))
    for metric in data.metrics:
        if metric.name == data.main and metric.value is not None:
            assert f"{metric.value:.3f}" in text
    for baseline in data.baselines:
        assert baseline in text
    assert page.count("<article") == len(data.studies) + len(data.pairs)
    assert page.count("<img ") == len(data.studies) + len(data.pairs)
    assert page.count("<svg ") > 20
    assert "chexalign.yaml" in text
    assert "the command line" in text
    assert "the report is empty" in text
    assert "limited to 200 test studies" in text


def test_a_phantom_run_says_that_it_is_drawn_and_another_does_not(page: str, data: ReportData) -> None:
    assert "no claim about patients rests on them" in page
    assert "no claim about patients" not in render(replace(data, source="openi"))


def test_the_same_data_give_the_same_page(page: str, data: ReportData) -> None:
    assert render(data) == page


@pytest.mark.parametrize("source", ["phantom", "table"])
def test_nothing_at_all_still_gives_a_page(source: str) -> None:
    page = render(ReportData(title="Nothing", source=source))
    assert_self_contained(page)
    assert "Not enough was measured" in page
    assert "No paired test" not in page  # the section of results is left out as a whole
    assert 'id="studies"' not in page


def test_a_half_finished_run_gives_a_page(data: ReportData) -> None:
    one = [metric for metric in data.metrics if metric.system == "sft"]
    page = render(replace(data, metrics=one, comparisons=[], labels={}, errors={}, training=[TrainingLog("sft", [])]))
    assert_self_contained(page)
    assert "No paired test" in page
    assert "Nothing was logged" in page


def test_text_is_text_wherever_it_comes_from(tmp_path: Path) -> None:
    image = ImageFile(path=str(tmp_path / "absent<b>.png"))
    question = Question(
        id=EVIL, study=EVIL, patient=EVIL, split="test", images=(image,), prompt=EVIL, reference=EVIL, truth=()
    )
    error = ReportError(
        kind="false_finding",
        finding=EVIL,
        candidate_span=Span(start=0, end=9),
        reference_span=Span(start=3, end=99),
        note=EVIL,
    )
    judged = Judgement(id="a", question=EVIL, judge=EVIL, score=0.5, errors=(error,))
    failed = Judgement(id="b", question=EVIL, judge=EVIL, score=None, unscored=EVIL)
    pair = Pair(id=EVIL, question=EVIL, patient=EVIL, images=(), prompt=EVIL, chosen=EVIL, rejected=EVIL + "!")
    page = render(
        ReportData(
            title=EVIL,
            source="table",
            run=EVIL,
            created=EVIL,
            command=EVIL,
            before=EVIL,
            metrics=[Metric(id="m", system=EVIL, name="green_mean", value=0.5)],
            comparisons=[
                Comparison(
                    id="c", name="green_mean", before=EVIL, after="aligned", difference=0, low=0, high=0, p=1, n=1
                )
            ],
            unscored={EVIL: {EVIL: 1}},
            errors={EVIL: {}},
            recipe=[Setting(EVIL, EVIL, EVIL, EVIL)],
            facts={EVIL: {EVIL: EVIL}},
            quarantined=[Quarantined(id=EVIL, stage=EVIL, reason=EVIL)],
            training=[TrainingLog(EVIL, [{"step": 1, "loss": 1.0}])],
            selection=[Choice(EVIL, 0.1, {EVIL: 1.0})],
            selected_by=EVIL,
            studies=[StudyView(question, EVIL, EVIL, judged, failed)],
            pairs=[PairView(pair, EVIL)],
            notes=[EVIL],
        )
    )
    assert_self_contained(page)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page), "what nobody would see"
    assert "\ufffd" in page
    assert "image missing" in page  # the image that is not there is a reason, not a failure
    assert "absent" not in page  # and its path, which may name a patient, is not shown


def test_many_large_images_stay_below_five_megabytes(tmp_path: Path, data: ReportData) -> None:
    generator = np.random.default_rng(0)
    views = []
    for index, view in enumerate(data.studies[:40]):
        images = []
        for side in range(2):
            path = tmp_path / f"{index}-{side}.png"
            Image.fromarray(generator.integers(0, 255, (320, 320), dtype=np.uint8)).save(
                path
            )  # noise: the worst for JPEG
            images.append(ImageFile(path=str(path)))
        views.append(replace(view, question=view.question.model_copy(update={"images": tuple(images)})))
    page = render(replace(data, studies=views))
    assert len(page) < 5_000_000
    assert "left out to keep this page small" in page


def test_studies_are_sorted_into_improved_worse_unchanged_and_unscored(data: ReportData) -> None:
    view = data.studies[0]

    def judged(score: float | None) -> Judgement:
        return Judgement(
            id="x", question="q", judge="green", score=score, unscored=None if score is not None else "why not"
        )

    scores = ((0.2, 0.4), (0.4, 0.2), (0.3, 0.3), (None, 0.3))
    views = [replace(view, before_judgement=judged(a), after_judgement=judged(b)) for a, b in scores]
    page = render(replace(data, studies=[*views, replace(view, before_judgement=None)], pairs=[]))
    kinds = re.findall(r'<article class="study" data-kind="([^"]+)"', page)
    assert kinds == ["improved", "worse", "unchanged", "unscored", "unscored"]
    assert "Not scored: why not" in page


def test_a_missing_metric_is_a_dash_and_not_a_zero(data: ReportData) -> None:
    metrics = [
        metric.model_copy(update={"value": None, "low": None, "high": None}) if metric.system == "sft" else metric
        for metric in data.metrics
    ]
    page = render(replace(data, metrics=metrics, comparisons=[]))
    assert page.count('<span class="none">–</span>') > 13
    assert "nan" not in re.sub(r"<(script|style)>.*?</\1>|data:[^\"]+", "", page, flags=re.DOTALL).lower().split()


# ------------------------------------------------------------------------------------------ the verdict


def result(
    *,
    main: float = 0.1,
    main_p: float = 0.001,
    lc: float | None = 0.1,
    control: float | None = 0.05,
    trivial: float | None = 0.1,
    words: tuple[float, float] = (50, 50.5),
    ratio: float = 1.0,
    lost: float = 0.0,
    **more: object,
) -> ReportData:
    """A result with these differences of ``aligned`` to ``sft`` (.4) and to the control, and a template's value."""

    def metric(system: str, name: str, value: float) -> Metric:
        low, high = value - 0.01, value + 0.01
        return Metric(id=f"{system}/{name}", system=system, name=name, value=value, low=low, high=high, n=400)

    def test(name: str, before: str, difference: float, p: float | None = None) -> Comparison:
        p = p if p is not None else 0.001 if difference else 0.9
        half = abs(difference) / 2 if p < 0.05 else abs(difference) + 0.05
        return Comparison(
            id=f"{name}:{before}", name=name, before=before, after="aligned", difference=difference,
            low=difference - half, high=difference + half, p=p, p_holm=p, n=400,
        )  # fmt: skip

    metrics = [
        metric("sft", "green_mean", 0.4),
        metric("aligned", "green_mean", 0.4 + main),
        metric("sft", "words_mean", words[0]),
        metric("aligned", "words_mean", words[1]),
        metric("sft", "verbosity_ratio_total", ratio),
    ]
    tests = [test("green_mean", "sft", main, main_p), test("rouge_l_coco", "sft", -lost)]
    if lc is not None:
        tests.append(test("lc-green_mean", "sft", lc))
    if control is not None:
        tests.append(test("green_mean", "sft on chosen", control))
    if trivial is not None:
        metrics.append(metric("constant normal report", "green_mean", trivial))
    return replace(ReportData(title="t", source="openi", metrics=metrics, comparisons=tests), **more)  # type: ignore[arg-type]


def test_a_gain_that_passes_everything_is_called_one() -> None:
    said = verdict(result())
    assert said.level == "good"
    assert said.headline.startswith("A gain: GREEN went from 0.400 to 0.500")
    assert [check.answer for check in said.checks] == ["yes"] * 5
    assert "+0.100" in said.checks[0].sentence
    assert "p = .001" in said.checks[0].sentence


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"lc": 0.0, "words": (50, 60)}, "mixed", "does not stand once length is controlled"),
        ({"lc": 0.0}, "mixed", "length is not ruled out"),
        ({"lc": -0.1}, "mixed", "does not stand once length is controlled"),
        ({"words": (30, 50), "ratio": 0.6}, "mixed", "length is not ruled out"),
        ({"control": 0.0}, "mixed", "more than SFT on the chosen side of the same pairs is not shown"),
        ({"control": -0.05}, "mixed", "SFT on the chosen side of the same pairs is better"),
        ({"trivial": 0.495}, "mixed", "a trivial answer does at least as well"),
        ({"trivial": 0.7}, "mixed", "a trivial answer does at least as well"),
        ({"lost": 0.05}, "mixed", "other metrics got worse"),
        ({"control": 0.0, "lost": 0.05}, "mixed", "is not shown and other metrics got worse"),
        ({"control": None}, "mixed", "not compared with SFT on the same pairs"),
        ({"trivial": None, "lc": None}, "mixed", "not compared with length and trivial answers"),
        ({"main": 0.02, "main_p": 0.4}, "none", "No gain shown"),
        ({"main": 0.0, "main_p": 1.0}, "none", "No gain shown"),
        ({"main": -0.02, "main_p": 0.4}, "none", "No gain shown"),
        ({"main": -0.1}, "bad", "made it worse"),
        ({"comparisons": []}, "unknown", "Not enough was measured"),
    ],
)
def test_the_headline_follows_from_the_numbers(change: dict[str, object], level: str, words: str) -> None:
    said = verdict(result(**change))  # type: ignore[arg-type]
    assert said.level == level
    assert words in said.headline
    assert all(check.sentence for check in said.checks)


def with_truth(data: ReportData, difference: float, p: float = 0.001) -> ReportData:
    """The same with F1 against the truth, by which the run was not selected."""
    name = "finding_f1_micro_truth_uncertain-positive"
    half = abs(difference) / 2 if p < 0.05 else abs(difference) + 0.05
    row = data.comparisons[0].model_copy(
        update={"name": name, "difference": difference, "low": difference - half, "high": difference + half, "p": p}
    )
    values = [
        data.metrics[0].model_copy(update={"system": system, "name": name, "value": value, "id": system})
        for system, value in (("sft", 0.7), ("aligned", 0.7 + difference))
    ]
    return replace(data, untouched=name, metrics=[*data.metrics, *values], comparisons=[*data.comparisons, row])


@pytest.mark.parametrize(
    ("main", "truth", "p", "level", "words"),
    [
        (0.1, 0.1, 0.001, "good", "and Finding F1, truth went from 0.700 to 0.800"),
        (0.1, -0.1, 0.001, "mixed", "Finding F1, truth, which it was not selected by, fell"),
        (0.1, 0.01, 0.5, "mixed", "Finding F1, truth, which it was not selected by, does not show it"),
        (0.0, 0.1, 0.001, "none", "Yet Finding F1, truth rose by more than chance"),
        (-0.1, 0.1, 0.001, "bad", "Yet Finding F1, truth rose by more than chance"),
    ],
)
def test_a_verdict_stands_on_what_it_was_selected_by_and_on_what_it_was_not(
    main: float, truth: float, p: float, level: str, words: str
) -> None:
    said = verdict(with_truth(result(main=main, main_p=0.001 if main else 1.0), truth, p))
    assert said.level == level
    assert words in said.headline
    assert "50.0 and 50.5 words" in said.headline


@pytest.mark.parametrize(
    "change", [{}, {"main": 0.0, "main_p": 1.0}, {"main": -0.1}, {"control": None}, {"lost": 0.05}]
)
def test_a_verdict_says_that_it_is_of_one_training(change: dict[str, object]) -> None:
    said = verdict(result(**change))  # type: ignore[arg-type]
    assert said.headline.endswith("One training.")
    assert any("says nothing of another training" in one or "say nothing of another training" in one
               for one in said.caveats)  # fmt: skip


def test_at_few_studies_not_shown_is_not_none() -> None:
    def few(data: ReportData) -> ReportData:
        return replace(data, metrics=[row.model_copy(update={"n": 30}) for row in data.metrics])

    gain, none = verdict(few(result())), verdict(few(result(main=0.02, main_p=0.4)))
    assert gain.level == "mixed"
    assert "on so few studies a cost elsewhere may not show" in gain.headline
    assert "allows ROUGE-L, coco to be worse by 0.050" in gain.checks[-1].sentence
    assert "On 30 studies, that is not to say that there is none" in none.headline


def test_without_a_gain_there_is_none_that_length_could_explain() -> None:
    assert "More than length?" not in [check.question for check in verdict(result(main=0.0, main_p=1.0)).checks]


def test_test_and_interval_must_agree() -> None:
    data = result()
    torn = [row.model_copy(update={"low": -0.001}) if row.name == "green_mean" else row for row in data.comparisons]
    said = verdict(replace(data, comparisons=torn))
    assert said.level == "none"
    assert "Test and interval disagree" in said.checks[0].sentence


def test_for_errors_and_hallucinations_less_is_better() -> None:
    row = Comparison(
        id="h", name="hallucination_rate_micro_reference", before="sft", after="aligned", difference=-0.1, low=-0.15,
        high=-0.05, p=0.001, p_holm=0.001, n=400,
    )  # fmt: skip
    data = result()
    assert verdict(replace(data, comparisons=[*data.comparisons, row])).checks[-1].answer == "yes"
    worse = row.model_copy(update={"difference": 0.1, "low": 0.05, "high": 0.15})
    assert verdict(replace(data, comparisons=[*data.comparisons, worse])).checks[-1].answer == "no"


def test_caveats_speak_of_small_tests_unscored_and_empty_answers() -> None:
    data = result()
    small = [metric.model_copy(update={"n": 30}) for metric in data.metrics]
    small.append(Metric(id="u", system="aligned", name="unscored_share_green", value=0.1, n=30))
    small.append(Metric(id="e", system="aligned", name="empty_share", value=0.1, n=30))
    said = " ".join(verdict(replace(data, metrics=small, notes=["A note."])).caveats)
    for words in ("30 studies", "could not score unknown before and 10.0% after", "10.0% of the answers", "A note."):
        assert words in said


# ------------------------------------------------------------------------------------------ marks


def spans_of(text: str, spans: list[Span]) -> list[str]:
    return [text[span.start : span.end] for span in spans]


def test_equal_sentences_in_another_order_do_not_differ() -> None:
    first = "Heart size is normal. No effusion. There is a nodule."
    second = "No effusion. There is a mass. heart size is normal."
    left, right = differing(first, second)
    assert spans_of(first, left) == ["nodule"]
    assert spans_of(second, right) == ["mass"]


def test_a_sentence_without_a_counterpart_differs_as_a_whole() -> None:
    first, second = "Clear lungs.", "Clear lungs. A small left effusion."
    assert differing(first, second)[0] == []
    assert spans_of(second, differing(first, second)[1]) == ["A small left effusion"]


def test_punctuation_case_and_decimals() -> None:
    assert differing("Clear lungs", "clear lungs.") == ([], [])
    first, second = "A 1.5 cm nodule.", "A 2.5 cm nodule."
    assert spans_of(first, differing(first, second)[0]) == ["1.5"]


TEXT = st.text(st.sampled_from("ab .<&\"'\n"), max_size=60)


@given(TEXT, TEXT)
def test_what_is_not_marked_is_the_same_words_on_both_sides(first: str, second: str) -> None:
    assert differing(first, first) == ([], [])
    left = []
    for text, spans in zip((first, second), differing(first, second), strict=True):
        ends = [0, *(end for span in spans for end in (span.start, span.end)), len(text)]
        assert ends == sorted(ends)
        unmarked = " ".join(text[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True))
        left.append(sorted(re.findall(r"\w+", unmarked.casefold())))
    assert left[0] == left[1]


@given(TEXT, st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70), st.sampled_from(["a", "b"])), max_size=6))
def test_marking_keeps_the_text(text: str, marks: list[tuple[int, int, str]]) -> None:
    page = marked(text, [Mark(Span(start=start, end=end), css, "<t>") for start, end, css in marks])
    assert html_library.unescape(re.sub(r"<[^>]*>", "", page)) == text
    parse(f"<p>{page}</p>")


def test_overlapping_marks_share_a_piece() -> None:
    page = marked("abcdef", [Mark(Span(start=0, end=4), "one"), Mark(Span(start=2, end=6), "two", "why")])
    assert page == (
        '<span class="one">ab</span><span class="one two" title="why">cd</span><span class="two" title="why">ef</span>'
    )


def test_a_very_long_text_is_cut_and_says_so() -> None:
    page = marked("x" * (LONGEST + 5), [])
    assert f"cut, {LONGEST + 5} characters" in page
    assert page.count("x") == LONGEST


# ------------------------------------------------------------------------------------------ charts


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    high = low + width
    if not high > low or width < 1e-9 * abs(low):
        return
    found = charts.ticks(low, high)
    step = 10 ** math.floor(math.log10(width / 4))
    assert 1 <= len(found) <= 6
    assert all(low - width * 1e-6 <= tick <= high + width * 1e-6 for tick in found)
    assert all(math.isclose(tick / step, round(tick / step), abs_tol=1e-3) for tick in found)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.5, "0.5"), (-2, "−2"), (12000, "12,000"), (0.0005, "0.0005"), (2e-5, "2e−5")]
)
def test_tick_labels(value: float, text: str) -> None:
    assert charts.number(value) == text


def test_charts_leave_out_what_is_not_finite_and_are_empty_without_points() -> None:
    nothing = [charts.Series("a", "after", [(math.nan, 1), (1, math.inf)])]
    assert charts.lines([], x="x", label="l") == Markup("")
    assert charts.lines(nothing, x="x", label="l") == Markup("")
    assert charts.scatter(nothing, x="x", y="y", label="l") == Markup("")
    assert charts.histogram(nothing, x="x", label="l") == Markup("")
    assert charts.forest([charts.Estimate("a", "after", math.nan)], label="l") == Markup("")
    assert charts.bars([], {}, label="l", form=str) == Markup("")
    for points in ([(1.0, 1.0)], [(1.0, 1.0), (2.0, math.nan)], [(0.0, 0.0), (0.0, 0.0)], [(1e-9, 1e9)]):
        for chart in (
            charts.lines([charts.Series("a", "after", points)], x="x", label="l", rule=0.5),
            charts.scatter([charts.Series("a", "after", points)], x="x", y="y", label="l"),
            charts.histogram([charts.Series("a", "after", points)], x="x", label="l"),
        ):
            assert "nan" not in chart
            assert "inf" not in chart
            parse(chart)


def test_a_long_log_is_thinned_without_moving_its_mean() -> None:
    points = [(float(step), math.sin(step / 500)) for step in range(20_000)]
    chart = charts.lines([charts.Series("loss", "after", points)], x="step", label="Loss")
    assert len(chart) < 12_000


def test_a_forest_row_lies_where_its_value_is() -> None:
    chart = charts.forest(
        [charts.Estimate("low", "before", 0.0, -1.0, 1.0), charts.Estimate("high", "after", 10.0, 9.0, 11.0)],
        label="l",
    )
    first, second = (float(x) for x in re.findall(r'<circle class="dot \w+" cx="([\d.]+)"', chart))
    starts = [float(x) for x in re.findall(r'<line class="whisker \w+" x1="([\d.]+)"', chart)]
    assert starts[0] < first < starts[1] < second
    assert (second - first) / (first - starts[0]) == pytest.approx(10, rel=0.01)


def test_names_in_charts_are_escaped() -> None:
    chart = charts.forest([charts.Estimate("<b>&", "after", 1.0)], label='"<i>')
    assert "<b>" not in chart
    assert "<i>" not in chart
    assert "&lt;b&gt;&amp;" in chart
