"""Records made without checking are those that checking makes."""

from radpref.records import Finding, Span


def test_of_checked_is_what_checking_makes() -> None:
    span = Span(start=2, end=9)
    made = Finding.of_checked({**Finding(name="edema").__dict__, "span": span})
    checked = Finding(name="edema", span=span)
    assert made == checked
    assert hash(made) == hash(checked)
    assert made.model_dump_json() == checked.model_dump_json()
    assert made.model_copy(update={"name": "mass"}) == Finding(name="mass", span=span)
    assert Finding.model_validate_json(made.model_dump_json()) == made
