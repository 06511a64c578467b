"""How long the answer of a query may be reused, said where the query is; what reuses it is the front end's choice.

Without a cache (the command line, tests of queries) every call reads the store. A front end calls `use` once.
"""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

LIVE = 2  # seconds: what changes while a run executes
SLOW = 30  # seconds: what changes when someone acts or a worker starts
P = ParamSpec("P")
R = TypeVar("R")


class Cache(Protocol):
    """What wraps a query, such as `streamlit.cache_data`; the wrapped query has `clear()`."""

    def __call__(
        self, query: Callable[P, R], *, ttl: float, max_entries: int | None, show_spinner: str | bool
    ) -> Callable[P, R]:
        """The query, answered from the cache for `ttl` seconds."""


class Query(Generic[P, R]):
    """A function that reads the store, and how long its answers hold."""

    _cache: Cache | None = None

    def __init__(self, read: Callable[P, R], options: dict[str, Any]):
        self._read = read
        self._options = options
        self._wrapped: tuple[Cache, Callable[P, R]] | None = None
        self.__name__, self.__doc__ = read.__name__, read.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._reader()(*args, **kwargs)

    def clear(self) -> None:
        """Forget all answers."""
        if Query._cache is not None:
            self._reader().clear()  # type: ignore[attr-defined]

    def _reader(self) -> Callable[P, R]:
        if Query._cache is None:
            return self._read
        if self._wrapped is None or self._wrapped[0] is not Query._cache:
            self._wrapped = Query._cache, Query._cache(self._read, **self._options)
        return self._wrapped[1]


def cached(*, ttl: float, max_entries: int | None = None, waiting: str = "") -> Callable[[Callable[P, R]], Query[P, R]]:
    """Declare that a query's answers hold for `ttl` seconds; `waiting` is what to show while a slow one runs."""
    options = {"ttl": ttl, "max_entries": max_entries, "show_spinner": waiting or False}
    return lambda read: Query(read, options)


def use(cache: Cache | None) -> None:
    """Answer queries from this cache from now on; None: read the store at every call."""
    Query._cache = cache
