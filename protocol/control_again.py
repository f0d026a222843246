"""The control API's verb `job_file`: what a job was asked for with, to rent the same again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobFileArgs:
    lease: str
    """A lease id or an unambiguous prefix of one."""


@dataclass(frozen=True)
class JobFileView:
    """The fields of RunArgs that a second request needs. Values of secrets are not among them: whoever asks
    gives them again. Kept for 30 days after the lease's end."""

    lease_id: str
    name: str
    job_yaml: str
    base_dir: str
    where: str = ""
    order_by: str = ""
    provider: str = ""
    max_price_qu_per_hour: int | None = None
