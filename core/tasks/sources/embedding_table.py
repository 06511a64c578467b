"""Texts, or pairs of texts with scores, from the columns of a table. Loads no torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from core.errors import SpecError
from core.tasks.columns import (
    FIRST_COLUMNS,
    SCORE_COLUMNS,
    SECOND_COLUMNS,
    TEXT_COLUMNS,
    Place,
    find_column,
    get_column,
    scores_of,
)
from core.tasks.sources.own_data import EmbeddingRows, OwnData

Get = Callable[[str], Sequence[Any]]  # a column's name -> its values in all rows


def embedding_rows(
    source: OwnData, columns: Sequence[str], get: Get, given: Mapping[str, np.ndarray], place: Place
) -> EmbeddingRows:
    """The texts of a table's N rows, whose splits are `given`; of pairs without scores, the texts of both columns.

    Raises SpecError, naming the `place`, for a missing column and for values that are not text or not a number.
    """
    second = _find(columns, source.second_column, SECOND_COLUMNS, "second", "the second texts")
    score = _find(columns, source.score_column, SCORE_COLUMNS, "score", "the scores")
    if second is None:
        if source.score_column is not None:
            message = "is given, but the data has no column with the second texts of pairs"
            raise SpecError.of("task.score_column", source.score_column, message, "Set second_column.")
        first = get_column(columns, source.text_column, (*TEXT_COLUMNS, *FIRST_COLUMNS), "text")
        return EmbeddingRows(_texts(get(first), first, "text", place), given)
    first = get_column(columns, source.text_column, (*FIRST_COLUMNS, *TEXT_COLUMNS), "text", "the first texts")
    texts, partners = _texts(get(first), first, "text", place), _texts(get(second), second, "second", place)
    if score is not None:
        return EmbeddingRows(texts, given, partners, scores_of(get(score), score, place))
    both = {split: np.concatenate([rows, rows + len(texts)]) for split, rows in given.items()}
    return EmbeddingRows([*texts, *partners], both)


def _find(columns: Sequence[str], given: str | None, usual: Sequence[str], what: str, holds: str) -> str | None:
    return find_column(columns, None, usual) if given is None else get_column(columns, given, usual, what, holds)


def _texts(values: Sequence[Any], column: str, what: str, place: Place) -> list[str]:
    for index, value in enumerate(values):
        if not isinstance(value, str):
            message = f"contains {value!r} in {place(index)}, which is not text"
            raise SpecError.of(f"task.{what}_column", column, message, "Provide text in every row.")
    return list(values)
