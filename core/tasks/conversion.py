"""Data of one kind of task as inputs for another's model, which calibration needs no labels for. Loads no torch."""

from collections.abc import Sequence

from core.tasks.data import DATA_SPLITS, CorpusData, Data, EmbeddingData, ImageData
from core.tasks.kinds import Kind


def as_inputs(data: Data, kind: Kind) -> Data | None:
    """The data as a task of this kind would have it; None if it has images where text is needed, or the reverse."""
    if data.kind is kind:
        return data
    if isinstance(data, ImageData) or kind is Kind.IMAGE_CLASSIFICATION:
        return None
    texts = {split: _texts(data, split) for split in DATA_SPLITS}
    if kind is Kind.LANGUAGE_MODELLING:
        joined = {split: "\n".join(part) for split, part in texts.items()}
        return CorpusData(joined, data.length, data.content_hash)
    return EmbeddingData(texts, data.length, data.content_hash)


def _texts(data: Data, split: str) -> Sequence[str]:
    """The texts of a split; of running text its lines, of pairs both texts."""
    assert not isinstance(data, ImageData)
    if isinstance(data, CorpusData):
        return [line for line in data.texts[split].splitlines() if line.strip()]
    partners = data.partners.get(split, ()) if isinstance(data, EmbeddingData) else ()
    return [*data.texts[split], *partners]
