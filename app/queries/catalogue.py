"""Queries of the catalogue: techniques, models, tasks and the survey of architectures."""

from app.queries.cache import SLOW, cached
from core.complexity import report as complexity
from core.spec.catalogue import Catalogue, built_in
from core.store import techniques
from core.store.engine import read_session


@cached(ttl=SLOW)
def load_catalogue() -> Catalogue:
    """Techniques, models and tasks: built-in ones and those published by workers."""
    with read_session() as s:
        published = techniques.list_published(s)
        return built_in().merged((kind, name, entry) for kind, name, _, entry in published)


@cached(ttl=SLOW)
def load_survey() -> complexity.SurveyReport | None:
    """This installation's survey of architectures; None if there is none. Raises ValueError if unreadable."""
    return complexity.load()


@cached(ttl=10)
def load_offers() -> dict[str, dict[str, list[str]]]:
    """What active workers offer: "technique:rtn" -> schema hash -> names of the workers."""
    with read_session() as s:
        return techniques.list_offers(s)
