"""The control API's verb `compare`: what of a job file is otherwise in the job of that name that goes on."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.control_leases import LeaseView


@dataclass(frozen=True)
class CompareArgs:
    """`base_dir` is the absolute folder from which the job file's paths start."""

    job_yaml: str
    base_dir: str


@dataclass(frozen=True)
class FieldChange:
    """`before` is how it runs, `after` what the job file says; of input files a digest of all of them."""

    field: str
    """Of the job file, such as `resources.gpu` or `run`."""
    before: str
    after: str


@dataclass(frozen=True)
class CompareView:
    leases: list[LeaseView]
    """Those of this node that rent a machine for a job of that name, the newest first; not those that end."""
    changes: list[FieldChange]
    """Of the newest of them. Values of secrets are not compared: they are sealed for the provider alone.
    Neither is whom to hire (`filter`, `max_price`, ...), which says nothing of a job that has a machine."""
