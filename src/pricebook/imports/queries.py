"""Selects over imports, which are jobs."""

from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Select

from pricebook.core.principal import Principal
from pricebook.jobs import queries as jobs
from pricebook.jobs.models import Job

KIND = "import_items"


def errors_file(reader: Principal, job_id: UUID) -> Select[*tuple[Any, ...]]:
    """Select the name in `core.files` of the rows that an import has refused."""
    has_refused = Job.result["has_errors_csv"].astext.cast(Boolean)
    name = Job.params["errors_file"].astext.label("name")
    mine = jobs.visible_to(reader).with_only_columns(name)
    return mine.where(Job.id == job_id, Job.kind == KIND, has_refused)
