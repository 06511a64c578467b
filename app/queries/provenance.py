"""Queries of the Provenance page."""

from dataclasses import dataclass

import pandas as pd

from app.queries.cache import cached
from core.store import listing, provenance
from core.store.engine import read_session

LIVE = 5  # seconds: runs may still execute


@dataclass(frozen=True)
class RunFamily:
    """Related runs: one row per stage, one row per source, and the total number of runs."""

    stages: pd.DataFrame
    sources: pd.DataFrame
    n_runs: int


@cached(ttl=LIVE)
def load_family(project_id: int, run_ids: tuple[int, ...], limit: int, *, relatives: bool) -> RunFamily:
    """These runs, their ancestors and, with `relatives`, their descendants and runs that share their stages."""
    with read_session() as s:
        found, n_runs = provenance.find_family(s, project_id, run_ids, limit, relatives=relatives)
        stages = pd.DataFrame([row._asdict() for row in provenance.list_run_stages(s, found)])
        sources = [row._asdict() for row in provenance.list_sources(s, found)]
    return RunFamily(stages, pd.DataFrame(sources, columns=["run_id", "source_id", "role", "position"]), n_runs)


@cached(ttl=LIVE)
def load_newest(chosen: listing.RunFilter, limit: int) -> tuple[int, ...]:
    """Numbers of the newest runs that match a filter."""
    with read_session() as s:
        return tuple(listing.list_run_ids(s, chosen, limit))
