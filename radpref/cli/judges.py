"""``radpref judges``: score anyone's pairs of reports, and see where a judge can be fooled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radpref import config
from radpref.cli.terminal import TAKES_OVERRIDES, friendly, out, overrides, tell

if TYPE_CHECKING:
    from radpref.judges import Judge

judges_app = typer.Typer(name="judges", help="Judge report pairs; audit the judges.", no_args_is_help=True)

AUDITED = ("green", "lc-green", "text", "bleu")
"""What the audit looks at where no judge is named; BLEU is a score and no judge."""


@judges_app.command(context_settings=TAKES_OVERRIDES)
def score(
    context: typer.Context,
    pairs: Annotated[Path, typer.Argument(help="JSONL, CSV or Parquet with id, reference and candidate.")],
    to: Annotated[Path, typer.Option("--out", help="The JSONL to write; the same command goes on with it.")],
    judge: Annotated[str, typer.Option(help="green, text, chat, green-model, radeval-NAME, or lc- before one.")] = (
        "green"
    ),
    id_column: Annotated[str, typer.Option("--id", help="Column of the pair's id.")] = "id",
    reference: Annotated[str, typer.Option(help="Column of the radiologist's report.")] = "reference",
    candidate: Annotated[str, typer.Option(help="Column of the report to be judged.")] = "candidate",
) -> None:
    """Score every pair: the score, the errors with their spans, or the reason why there is no score.

    A judge's settings are given as in a recipe: --judge.server URL --judge.model NAME.
    """
    with friendly():
        from radpref.bulk import score_file

        asked, version = _judge(judge, context.args)
        done = score_file(pairs, to, asked, version, id_column=id_column, reference=reference, candidate=candidate)
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
    limit: Annotated[int, typer.Option(min=1, help="Most reports.")] = 400,
    seed: Annotated[int, typer.Option(help="Of the corruptions, the phantoms and the intervals.")] = 0,
    to: Annotated[Path | None, typer.Option("--out", help="Write the tables as Markdown too.")] = None,
) -> None:
    """Corrupt reports in known ways and show where a judge does not notice."""
    with friendly():
        from itertools import islice

        from rich.table import Table

        from radpref.files import write_atomically
        from radpref.judges.audit import HEADER, battery, cells, markdown
        from radpref.judges.audit import audit as run_audit
        from radpref.runs.progress import progress

        asked = {name: _judge(name, context.args)[0] for name in judge or AUDITED}
        references = list(islice(_texts(reports, field) if reports else _phantoms(seed), limit))
        trials = battery(references, seed)
        bar = progress(total=len(trials) * len(asked), unit="trials", what="audit")
        rows = run_audit(asked, trials, seed=seed, progress=bar.update)
        bar.close()
        for name in asked:
            table = Table(*HEADER, title=f"{name} on {len(references):,} reports", title_justify="left")
            for row in rows:
                if row.judge == name:
                    table.add_row(*cells(row))
            out.print(table)
        if to is not None:
            write_atomically(to, markdown(rows))
            out.print(f"written to {to}", highlight=False, markup=False, soft_wrap=True)


def _judge(name: str, words: list[str]) -> tuple[Judge, str]:
    """A judge that is ready to begin, and what its answers depend on.

    Raises:
        RecipeError: no such judge or setting; names the nearest one.
        JudgeError: its server or package is not there.
    """
    from radpref import judges

    section = config.load("chexalign", overrides=[f"judge.name={name}", *overrides(words)]).recipe.judge
    known = [*judges.JUDGES, "bleu"]
    if name not in known:
        raise config.RecipeError(
            f"{name!r} is no judge{config.nearest(name, known) or '.'} There are: {', '.join(known)}."
        )
    if name == "bleu":
        from radpref.judges.bleu import bleu

        return bleu, "bleu"
    judges.check(name, section)
    return judges.JUDGES[name](section), f"{name} {judges.version(name, section)}"


def _texts(path: Path, field: str) -> Iterator[str]:
    """The reports of a file that have words."""
    from radpref.data.rows import require, stream
    from radpref.data.source import RowError, text_of
    from radpref.judges.case import words

    require(path, [("--field", field)])
    for entry in stream(path):
        try:
            text = text_of((entry.cells or {}).get(field))
        except RowError:
            continue
        if words(text):
            yield text


def _phantoms(seed: int) -> Iterator[str]:
    """Reports of the built-in world, one patient after the other."""
    from itertools import count

    from radpref.data.phantom.patients import generator, sample
    from radpref.data.phantom.reports import write

    for index in count():
        patient = sample(index, seed=seed, prior_share=0.25)
        truth = [lesion.finding() for lesion in patient.at("current")]
        yield write(truth, (), patient.before is not None, generator(seed, index, 4)).findings
