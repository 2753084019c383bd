"""Tasks: what a model is asked about a study, and what the right answer is. So far: the report task."""

from radpref.tasks.report import MAX_INDICATION, clean_indication, report_question

__all__ = ["MAX_INDICATION", "clean_indication", "report_question"]
