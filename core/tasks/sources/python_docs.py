"""The Python language reference, as contained in CPython's `pydoc_data.topics`: about 465,000 characters of English.

Its topics quote one another (a fifth of the text is repetition), so splitting them as they are would
leak parts of the test split. Each paragraph is therefore kept once, in the longest topic that has it;
about 370,000 characters remain, split by whole topics. The text differs between Python versions, and the
task's identity with it.
"""

import hashlib
from collections.abc import Mapping
from pydoc_data.topics import topics as shipped_topics

from pydantic import Field

from core.tasks.data import CorpusData, TaskSource

HELD_OUT = {"test": 0.15, "validation": 0.1}  # shares of the characters


class PythonDocs(TaskSource):
    """The Python language reference: language modelling on about 370,000 characters, in bits per character."""

    length: int = Field(256, ge=8, le=4096, description="tokens per window")

    def read(self, name: str) -> CorpusData:
        """The topics, each in one split."""
        topics = without_repetition(shipped_topics)
        split_of = split_topics(topics)
        texts = {
            split: "\n\n\n".join(topics[topic] for topic in sorted(topics) if split_of[topic] == split)
            for split in ("train", "validation", "test")
        }
        return CorpusData(texts=texts, length=self.length, content_hash=self.identity(*texts.values()))


def without_repetition(topics: Mapping[str, str]) -> dict[str, str]:
    """The topics with every paragraph kept only in the longest topic that has it."""
    seen: set[str] = set()
    kept = {}
    for topic, text in sorted(topics.items(), key=lambda item: (-len(item[1]), item[0])):
        paragraphs = []
        for paragraph in text.split("\n\n"):
            words = " ".join(paragraph.split())
            if words and words not in seen:
                seen.add(words)
                paragraphs.append(paragraph.strip("\n"))
        if paragraphs:
            kept[topic] = "\n\n".join(paragraphs)
    return kept


def split_topics(topics: Mapping[str, str]) -> dict[str, str]:
    """Topic -> split: in the order of their names' hashes, each goes to a split whose share it does not exceed."""
    total = sum(map(len, topics.values()))
    room = {split: share * total for split, share in HELD_OUT.items()}
    split_of = {}
    for topic in sorted(topics, key=lambda topic: hashlib.sha256(topic.encode()).hexdigest()):
        split = next((split for split, left in room.items() if len(topics[topic]) <= left), "train")
        split_of[topic] = split
        if split != "train":
            room[split] -= len(topics[topic])
    return split_of
