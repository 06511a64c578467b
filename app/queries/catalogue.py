"""Queries of what this installation offers: techniques, models, tasks and the survey of architectures."""

from app.queries.cache import SLOW, cached
from core.complexity import report as complexity
from core.spec.catalogue import Catalogue, built_in
from core.store import techniques
from core.store.engine import read_session


@cached(ttl=SLOW)
def load_catalogue() -> Catalogue:
    """Techniques, models and tasks: the built-in ones and what workers published."""
    with read_session() as s:
        published = techniques.list_published(s)
        return built_in().merged((kind, name, entry) for kind, name, _, entry in published)


@cached(ttl=SLOW)
def load_survey() -> complexity.SurveyReport | None:
    """What architectures cost on this installation; None where nobody measured it. Raises ValueError if unreadable."""
    return complexity.load()


@cached(ttl=10)
def load_offers() -> dict[str, dict[str, list[str]]]:
    """Which living workers offer what: "technique:rtn" -> schema hash -> names of the workers."""
    with read_session() as s:
        return techniques.list_offers(s)
