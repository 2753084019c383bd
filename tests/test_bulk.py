"""Labels and scores for anyone's files: every row comes out or is accounted for, and a kill loses nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from radpref.bulk import label_file, score_file
from radpref.cli import app
from radpref.data import DataError
from radpref.data.rows import columns, stream
from radpref.files import StoreError
from radpref.findings import CLASSES_14, labels
from radpref.judges import JUDGES, Case, Judge
from radpref.records import Judgement

green = JUDGES["green"]()

run = CliRunner().invoke

REPORTS = ["No effusion.", "Mild cardiomegaly.", "Possible pneumonia.", 'Effusion, "large", left;\nno edema.']


def jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def same_reports(folder: Path, suffix: str, encoding: str = "utf-8") -> Path:
    rows = [{"id": f"r{i}", "findings": text, "age": i} for i, text in enumerate(REPORTS)]
    path = folder / f"reports{suffix}"
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding)
    else:
        with path.open("w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_kind_of_table_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = same_reports(tmp_path, suffix)
    assert columns(path) == ["id", "findings", "age"]
    entries = list(stream(path))
    assert [entry.cells["findings"] for entry in entries if entry.cells] == REPORTS
    first = {".jsonl": "line 1", ".parquet": "row 1"}.get(suffix, "line 2")
    assert entries[0].place == first
    if suffix in (".csv", ".tsv"):
        assert entries[3].place == "lines 5 to 6", "a quoted text goes over two lines"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id;findings\r\ne\u00e9;No effusion.\r\n".encode(encoding))
    (entry,) = stream(path)
    assert entry.cells == {"id": "e\u00e9", "findings": "No effusion."}


def test_bad_rows_of_a_csv_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,findings\na,one,two\n\nb,"Edema" x\nc,No edema.\nd,"open\nand open', "utf-8")
    entries = list(stream(path))
    assert [entry.place for entry in entries] == ["line 2", "line 4", "line 5", "lines 6 to 7"]
    assert [entry.cells is not None for entry in entries] == [False, False, True, False]
    assert "3 cells under 2 columns" in entries[0].reason
    assert "quotes" in entries[1].reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("reports.jsonl", None, "did you mean 'report.jsonl'"),
        ("a.xlsx", "x", "'.xlsx'"),
        ("a.csv", "", "empty"),
        ("a.csv", "id,id\n1,2\n", "same name"),
        ("a.jsonl", "[]\n", "no row"),
        ("a.parquet", "PAR", "no Parquet file"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    (tmp_path / "report.jsonl").write_text("{}\n")
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        columns(tmp_path / name)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_labels_of_a_file_are_the_labels_of_its_reports(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "labels.csv"
    done = label_file(same_reports(tmp_path, suffix), out)
    assert (done.rows, done.quarantined, done.refused) == (4, {}, None)
    found = table(out)
    assert list(found[0]) == ["id", *CLASSES_14]
    assert [row["id"] for row in found] == ["r0", "r1", "r2", "r3"]
    for row, text in zip(found, REPORTS, strict=True):
        assert {name: int(row[name]) if row[name] else None for name in CLASSES_14} == labels(text)
    assert found[0]["Pleural Effusion"] == "0"
    assert found[2]["Pneumonia"] == "-1"


def test_bad_reports_are_quarantined_and_counted(tmp_path: Path) -> None:
    rows = [
        {"uid": 7, "findings": "Edema."},
        "{broken\n",
        {"uid": 8, "findings": "XXXX. ___"},
        {"uid": 9, "findings": {"text": "Edema."}},
        {"findings": "No edema."},
        {"uid": 10},
    ]
    out = tmp_path / "labels.csv"
    done = label_file(jsonl(tmp_path / "a.jsonl", rows), out, id_column="uid")
    assert [row["uid"] for row in table(out)] == ["7", "line 5"]
    assert done.quarantined == {"row broken": 1, "no words": 2, "cell is no text": 1}
    assert done.refused is not None
    assert [(row["id"], row["stage"]) for row in lines(done.refused)] == [
        ("line 2", "label"),
        ("8", "label"),
        ("9", "label"),
        ("10", "label"),
    ]
    assert "(line 3)" in lines(done.refused)[1]["reason"]
    assert "Edema" not in done.refused.read_text(), "no report text in the list"
    label_file(jsonl(tmp_path / "a.jsonl", rows[:1]), out, id_column="uid")
    assert not done.refused.exists(), "the list of an earlier time is gone"


def test_several_fields_are_one_report_and_places_stand_in_for_ids(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", [{"f": "No edema.", "i": "Nodule."}, {"f": "Nodule.", "i": None}])
    label_file(source, tmp_path / "l.csv", fields=["f", "i"])
    found = table(tmp_path / "l.csv")
    assert [(row["row"], row["Edema"], row["Lung Lesion"]) for row in found] == [
        ("line 1", "0", "1"),
        ("line 2", "", "1"),
    ]


def test_the_old_labels_stay_until_the_new_ones_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "labels.csv"
    out.write_text("old")

    def broken(path: Path) -> Iterator[Any]:
        yield from stream(path)
        raise KeyboardInterrupt

    monkeypatch.setattr("radpref.bulk.label.stream", broken)
    with pytest.raises(KeyboardInterrupt):
        label_file(same_reports(tmp_path, ".jsonl"), out)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv", "reports.jsonl"]


# ---------------------------------------------------------------- scores


def pairs(count: int) -> list[dict[str, str]]:
    return [{"id": f"p{i}", "reference": "Left effusion.", "candidate": REPORTS[i % 4]} for i in range(count)]


def counting(asked: list[str], fail_after: int | None = None) -> Judge:
    def judge(cases: Sequence[Case]) -> list[Judgement]:
        if fail_after is not None and len(asked) >= fail_after:
            raise KeyboardInterrupt
        asked.extend(case.id for case in cases)
        return green(cases)

    return judge


def test_scores_with_errors_and_spans(tmp_path: Path) -> None:
    source = jsonl(
        tmp_path / "p.jsonl",
        [
            {"id": "a", "reference": "Small left effusion. Scoliosis.", "candidate": "Small right effusion."},
            {"id": "b", "reference": "Edema.", "candidate": " "},
        ],
    )
    done = score_file(source, tmp_path / "s.jsonl", green, "1")
    assert (done.rows, done.scores, dict(done.unscored)) == (2, (0.0,), {"the candidate has no words": 1})
    scored, unscored = lines(tmp_path / "s.jsonl")
    assert (scored["id"], scored["judge"], scored["score"], scored["unscored"]) == ("a", "green", 0.0, None)
    assert (scored["significant"], scored["insignificant"]) == ({"wrong_place": 1}, {"missing_finding": 1})
    assert scored["errors"][0]["reference_span"] == [11, 19]
    assert scored["errors"][0]["candidate_span"] == [12, 20]
    assert scored["errors"][1]["candidate_span"] is None
    assert (unscored["score"], unscored["unscored"]) == (None, "the candidate has no words")
    assert "errors" not in unscored


@pytest.mark.parametrize("name", ["green", "text", "lc-green", "lc-text"])
def test_any_judge_scores_a_file(tmp_path: Path, name: str) -> None:
    source = jsonl(tmp_path / "p.jsonl", pairs(9))
    score_file(source, tmp_path / "s.jsonl", JUDGES[name](), name, chunk=4)
    cases = [Case(row["id"], row["id"], row["reference"], row["candidate"]) for row in pairs(9)]
    expected = [judgement.score for judgement in JUDGES[name]()(cases)]
    assert [(row["judge"], row["score"]) for row in lines(tmp_path / "s.jsonl")] == [(name, s) for s in expected]


def test_a_killed_run_goes_on_and_ends_in_the_same_file(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "p.jsonl", pairs(20))
    score_file(source, tmp_path / "whole.jsonl", green, "1", chunk=3)
    asked: list[str] = []
    out = tmp_path / "s.jsonl"
    with pytest.raises(KeyboardInterrupt):
        score_file(source, out, counting(asked, fail_after=9), "1", chunk=3)
    assert not out.exists(), "what is unfinished does not look finished"
    part = tmp_path / "s.part0"
    part.write_bytes(part.read_bytes()[:-40])  # the last line was torn
    done = score_file(source, out, counting(asked), "1", chunk=3)
    assert sorted(asked) == sorted([f"p{i}" for i in range(20)] + ["p8"]), "only the torn one is judged twice"
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(done.scores) == 20
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("s.")) == ["s.jsonl", "s.keys"]


def test_only_what_is_new_or_changed_is_judged_again(tmp_path: Path) -> None:
    rows, out = pairs(6), tmp_path / "s.jsonl"
    source = jsonl(tmp_path / "p.jsonl", rows)
    score_file(source, out, green, "1")
    rows[2]["candidate"] = "No edema."
    asked: list[str] = []
    jsonl(source, [*reversed(rows), {**rows[0], "id": "new"}])
    score_file(source, out, counting(asked), "1")
    assert sorted(asked) == ["new", "p2"]
    assert [row["id"] for row in lines(out)] == ["p5", "p4", "p3", "p2", "p1", "p0", "new"]
    score_file(source, out, counting(asked), "2")
    assert len(asked) == 2 + 7, "another version judges all again"


def test_what_a_server_could_not_answer_is_asked_again(tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "p.jsonl", pairs(2)), tmp_path / "s.jsonl"

    def away(cases: Sequence[Case]) -> list[Judgement]:
        reasons = ["timeout: 120 s", "unparsable: no JSON"]
        return [
            Judgement(id=c.id, question=c.id, judge="chat", score=None, unscored=reason)
            for c, reason in zip(cases, reasons, strict=True)
        ]

    done = score_file(source, out, away, "1")
    assert dict(done.unscored) == {"timeout": 1, "unparsable": 1}
    asked: list[str] = []
    score_file(source, out, counting(asked), "1")
    assert asked == ["p0"]


def test_bad_pairs_are_quarantined_with_their_lines(tmp_path: Path) -> None:
    rows = [*pairs(2), "no json\n", {"id": "p1", "reference": "Edema.", "candidate": "Edema."}]
    rows += [{"id": "x", "reference": "Edema."}, {"id": "", "reference": "Edema.", "candidate": "Edema."}]
    done = score_file(jsonl(tmp_path / "p.jsonl", rows), tmp_path / "s.jsonl", green, "1")
    assert [row["id"] for row in lines(tmp_path / "s.jsonl")] == ["p0", "p1"]
    assert done.quarantined == {"row broken": 1, "id twice": 1, "cell missing": 1, "no id": 1}
    assert done.refused is not None
    assert [(row["id"], row["reason"].split(":")[0]) for row in lines(done.refused)] == [
        ("line 3", "row broken"),
        ("p1", "id twice"),
        ("line 5", "cell missing"),
        ("line 6", "no id"),
    ]


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "p.jsonl", pairs(2))
    other = jsonl(tmp_path / "precious.jsonl", [{"anything": 1}])
    with pytest.raises(StoreError, match="did not write"):
        score_file(source, other, green, "1")
    with pytest.raises(DataError, match="the input itself"):
        score_file(source, source, green, "1")
    assert lines(other) == [{"anything": 1}]


def test_scores_that_were_changed_are_not_overwritten(tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "p.jsonl", pairs(2)), tmp_path / "s.jsonl"
    score_file(source, out, green, "1")
    changed = out.read_text("utf-8").replace('"green"', '"grey"')
    out.write_text(changed, "utf-8")
    with pytest.raises(StoreError, match="changed since"):
        score_file(source, out, green, "1")
    assert out.read_text("utf-8") == changed


def test_rows_are_plain_and_keys_stand_beside_them(tmp_path: Path) -> None:
    score_file(jsonl(tmp_path / "p.jsonl", pairs(3)), tmp_path / "s.jsonl", green, "1")
    assert not any({"key", "row", "item"} & row.keys() for row in lines(tmp_path / "s.jsonl"))
    assert (tmp_path / "s.keys").is_file()


# ---------------------------------------------------------------- the commands


def test_the_commands(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "p.jsonl", [*pairs(5), "{\n"])
    done = run(app, ["findings", "label", str(source), "--field", "candidate", "--out", str(tmp_path / "l.csv")])
    assert done.exit_code == 0, done.output
    assert "5 reports labelled" in done.output
    assert "quarantined: 1 row broken" in done.output
    done = run(app, ["judges", "score", str(source), "--judge", "lc-green", "--out", str(tmp_path / "s.jsonl")])
    assert done.exit_code == 0, done.output
    assert "5 pairs, 5 scored by lc-green, mean" in done.output
    assert {row["judge"] for row in lines(tmp_path / "s.jsonl")} == {"lc-green"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["findings", "label", "p.jsonl", "--field", "referense", "--out", "l.csv"], "did you mean 'reference'"),
        (["findings", "label", "p.jsonl", "--id", "uid", "--field", "reference", "--out", "l.csv"], "--id"),
        (["findings", "label", "p.jsonl", "--field", "reference", "--out", "l.txt"], ".csv"),
        (["findings", "label", "q.jsonl", "--field", "reference", "--out", "l.csv"], "p.jsonl"),
        (["judges", "score", "p.jsonl", "--judge", "grean", "--out", "s.jsonl"], "green"),
        (["judges", "score", "p.jsonl", "--judge.sever", "x", "--out", "s.jsonl"], "server"),
        (["judges", "score", "p.jsonl", "--candidate", "answer", "--out", "s.jsonl"], "--candidate"),
        (["judges", "score", "p.jsonl", "--out", "s.csv"], ".jsonl"),
        (["judges", "audit", "--judge", "blue"], "did you mean `bleu`"),
    ],
)
def test_mistakes_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    jsonl(tmp_path / "p.jsonl", pairs(2))
    monkeypatch.chdir(tmp_path)
    done = run(app, words)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["p.jsonl"], "nothing was begun"
