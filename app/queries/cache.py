"""Caching of queries: each query declares how long its result is valid, and the front end chooses the cache.

Without a cache (the command line, tests of queries) every call reads the store. A front end calls `use` once.
"""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

LIVE = 2  # seconds: data that changes while a run executes
SLOW = 30  # seconds: data that changes when someone acts or a worker starts
P = ParamSpec("P")
R = TypeVar("R")


class Cache(Protocol):
    """A wrapper of queries, such as `streamlit.cache_data`; the wrapped query has `clear()`."""

    def __call__(
        self, query: Callable[P, R], *, ttl: float, max_entries: int | None, show_spinner: str | bool
    ) -> Callable[P, R]:
        """The query with results cached for `ttl` seconds."""


class Query(Generic[P, R]):
    """A function that reads the store, and how long its results are valid."""

    _cache: Cache | None = None

    def __init__(self, read: Callable[P, R], options: dict[str, Any]):
        self._read = read
        self._options = options
        self._wrapped: tuple[Cache, Callable[P, R]] | None = None
        self.__name__, self.__doc__ = read.__name__, read.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._reader()(*args, **kwargs)

    def clear(self) -> None:
        """Forget all results."""
        if Query._cache is not None:
            self._reader().clear()  # type: ignore[attr-defined]

    def _reader(self) -> Callable[P, R]:
        if Query._cache is None:
            return self._read
        if self._wrapped is None or self._wrapped[0] is not Query._cache:
            self._wrapped = Query._cache, Query._cache(self._read, **self._options)
        return self._wrapped[1]


def cached(*, ttl: float, max_entries: int | None = None, waiting: str = "") -> Callable[[Callable[P, R]], Query[P, R]]:
    """Declare that a query's results are valid for `ttl` seconds; `waiting` is shown while a slow one runs."""
    options = {"ttl": ttl, "max_entries": max_entries, "show_spinner": waiting or False}
    return lambda read: Query(read, options)


def use(cache: Cache | None) -> None:
    """Use this cache for all queries from now on; None reads the store at every call."""
    Query._cache = cache
