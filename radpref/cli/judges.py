"""``radpref judges``: score pairs of reports, see where a judge can be fooled, and how it agrees with people."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radpref import config
from radpref.cli.terminal import TAKES_OVERRIDES, friendly, out, overrides, tell

if TYPE_CHECKING:
    from radpref.judges import Judge
    from radpref.judges.auditing import Target

judges_app = typer.Typer(
    name="judges", help="Judge report pairs; audit the judges; hold them against radiologists.", no_args_is_help=True
)

AUDITED = ("green", "lc-green", "text", "bleu")
"""What the audit looks at where no judge is named; BLEU is a score and no judge."""


@judges_app.command(context_settings=TAKES_OVERRIDES)
def score(
    context: typer.Context,
    pairs: Annotated[Path, typer.Argument(help="JSONL, CSV or Parquet with id, reference and candidate.")],
    to: Annotated[Path, typer.Option("--out", help="The JSONL to write; the same command goes on with it.")],
    judge: Annotated[
        str, typer.Option(help="green, green-1, text, chat, green-model, radeval-NAME, or lc- before one.")
    ] = ("green"),
    id_column: Annotated[str, typer.Option("--id", help="Column of the pair's id.")] = "id",
    reference: Annotated[str, typer.Option(help="Column of the radiologist's report.")] = "reference",
    candidate: Annotated[str, typer.Option(help="Column of the report to be judged.")] = "candidate",
) -> None:
    """Score every pair: the score, the errors with their spans, or the reason why there is no score.

    A judge's settings are given as in a recipe: --judge.server URL --judge.model NAME.
    """
    with friendly():
        from radpref.bulk import score_file

        # beside the output: what a server has answered is not asked again, wherever a chunk of pairs was cut
        answers = to.with_name(f".{to.name}.answers")
        asked, version = _judge(judge, context.args, answers)
        done = score_file(pairs, to, asked, version, id_column=id_column, reference=reference, candidate=candidate)
        shutil.rmtree(answers, ignore_errors=True)
        n = len(done.scores)
        mean = f", mean {sum(done.scores) / n:.3f}" if n else ""
        tell(f"{done.rows:,} pairs, {n:,} scored by {judge}{mean}", done.quarantined, done.refused)
        for reason, count in done.unscored.most_common():
            out.print(f"  unscored: {count:,} {reason}", highlight=False, markup=False)
        out.print(f"written to {to}", highlight=False, markup=False, soft_wrap=True)


@judges_app.command(context_settings=TAKES_OVERRIDES)
def audit(
    context: typer.Context,
    judge: Annotated[
        list[str] | None, typer.Option("--judge", help=f"A judge, or bleu; may come again. {', '.join(AUDITED)}")
    ] = None,
    reports: Annotated[
        Path | None, typer.Option(help="JSONL, CSV or Parquet of reports to corrupt; phantoms' where absent.")
    ] = None,
    field: Annotated[str, typer.Option(help="Column of the text.")] = "findings",
    labels: Annotated[
        str | None, typer.Option(help="Column of gold labels (name to 0 or 1) for the attacker's second reading.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most reports.")] = 400,
    attacks: Annotated[int, typer.Option(min=0, help="Most reports that the searching attacker takes on.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the corruptions, the phantoms and the intervals.")] = 0,
    to: Annotated[Path | None, typer.Option("--out", help="Write the tables as Markdown too.")] = None,
) -> None:
    """A judge's certificate: corruptions it should see, exploits that should gain nothing, a search for more."""
    with friendly():
        from itertools import islice

        from rich.table import Table

        from radpref.files import write_atomically
        from radpref.judges import auditing
        from radpref.runs.progress import progress

        asked = {name: _judge(name, context.args)[0] for name in judge or AUDITED}
        targets = list(islice(_targets(reports, field, labels) if reports else _phantoms(seed), limit))
        references = [target.reference for target in targets]
        trials = auditing.battery(references, seed)
        bar = progress(total=len(trials) * len(asked), unit="trials", what="audit")
        rows = auditing.audit(asked, trials, seed=seed, progress=bar.update)
        bar.close()
        for name in asked:
            table = Table(*auditing.HEADER, title=f"{name} on {len(references):,} reports", title_justify="left")
            for row in rows:
                if row.judge == name:
                    table.add_row(*auditing.cells(row))
            out.print(table)
        pool = auditing.templates(references)
        found = []
        for name, one in asked.items() if attacks else ():
            bar = progress(total=None, unit="edits", what=f"attack on {name}")
            found.append(
                auditing.summary(
                    name, auditing.attack(one, targets, pool, most=attacks, seed=seed, progress=bar.update)
                )
            )
            bar.close()
        if found:
            table = Table(*auditing.ATTACK_HEADER, title="a searching attacker", title_justify="left")
            for attack in found:
                table.add_row(*auditing.attack_cells(attack))
            out.print(table)
        if to is not None:
            write_atomically(to, auditing.markdown(rows) + ("\n" + auditing.attack_markdown(found) if found else ""))
            out.print(f"written to {to}", highlight=False, markup=False, soft_wrap=True)


@judges_app.command(context_settings=TAKES_OVERRIDES)
def agree(
    context: typer.Context,
    counts: Annotated[
        Path, typer.Argument(help="Radiologists' error counts: ReXVal's folder, RadEvalX's, or a CSV of one's own.")
    ],
    judge: Annotated[
        list[str] | None, typer.Option("--judge", help=f"A judge, or bleu; may come again. {', '.join(AUDITED)}")
    ] = None,
    reports: Annotated[
        Path | None, typer.Option(help="The reports, where the counts do not hold them: id, reference, candidate.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    to: Annotated[Path | None, typer.Option("--out", help="Write the table as Markdown too.")] = None,
) -> None:
    """Kendall's tau-b between a judge's scores and the errors that radiologists counted."""
    with friendly():
        from rich.table import Table

        from radpref.files import write_atomically
        from radpref.judges.radiologists import HEADER, agreements, cells, markdown, read_counts

        asked = {name: _judge(name, context.args)[0] for name in judge or AUDITED}
        rated = read_counts(counts, reports)
        rows = [row for one in asked.values() for row in agreements(one, rated, seed=seed)]
        table = Table(*HEADER, title=f"{len(rated):,} reports of {counts.name}", title_justify="left")
        for row in rows:
            table.add_row(*cells(row))
        out.print(table)
        if to is not None:
            write_atomically(to, markdown(rows))
            out.print(f"written to {to}", highlight=False, markup=False, soft_wrap=True)


def _judge(name: str, words: list[str], answers: Path | None = None) -> tuple[Judge, str]:
    """A judge that is ready to begin, and what its answers depend on.

    Args:
        answers: the folder that a server's answers are kept in, where the recipe's words name none.

    Raises:
        RecipeError: no such judge or setting; names the nearest one.
        JudgeError: its server or package is not there.
    """
    from radpref import judges

    section = config.load("chexalign", overrides=[f"judge.name={name}", *overrides(words)]).recipe.judge
    if section.cache is None and answers is not None:
        section = section.model_copy(update={"cache": str(answers)})
    known = [*judges.JUDGES, "bleu"]
    if name not in known:
        raise config.RecipeError(
            f"{name!r} is no judge{config.nearest(name, known) or '.'} There are: {', '.join(known)}."
        )
    if name == "bleu":
        from radpref.judges.bleu import bleu

        return bleu, bleu.version
    asked = judges.JUDGES[name](section)
    asked.check(section)
    return asked, asked.version


def _targets(path: Path, field: str, labels: str | None) -> Iterator[Target]:
    """The reports of a file that have words, with the gold labels that are known."""
    from radpref.data.rows import require, stream
    from radpref.data.source import RowError, text_of
    from radpref.judges.auditing import Target, of_labels
    from radpref.judges.case import words

    require(path, [("--field", field), *([("--labels", labels)] if labels else [])])
    for entry in stream(path):
        cells = entry.cells or {}
        try:
            text = text_of(cells.get(field))
        except RowError:
            continue
        if words(text):
            known = cells.get(labels) if labels else None
            yield Target(text, of_labels(known) if isinstance(known, dict) else {})


def _phantoms(seed: int) -> Iterator[Target]:
    """Reports of the built-in world with its truth, one patient after the other."""
    from itertools import count

    from radpref.data.phantom.patients import generator, sample
    from radpref.data.phantom.reports import write
    from radpref.judges.auditing import Target, of_names

    for index in count():
        patient = sample(index, seed=seed, prior_share=0.25)
        truth = [lesion.finding() for lesion in patient.at("current")]
        report = write(truth, (), patient.before is not None, generator(seed, index, 4)).findings
        yield Target(report, of_names(finding.name for finding in truth))
