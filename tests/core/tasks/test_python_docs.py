from core.tasks.sources.python_docs import PythonDocs, split_topics, without_repetition


def test_paragraph_stays_only_in_the_longest_topic_that_has_it():
    topics = {"short": "shared  words\n\nown", "long": "shared\nwords\n\nmuch longer text", "copy": "shared words"}
    assert without_repetition(topics) == {"long": "shared\nwords\n\nmuch longer text", "short": "own"}


def test_no_topic_overfills_a_held_out_share():
    topics = {f"topic {i}": "x" * (10 if i else 900) for i in range(91)}
    split_of = split_topics(topics)
    assert split_of["topic 0"] == "train"  # half of the text fits nowhere else
    n_test = sum(len(topics[topic]) for topic, split in split_of.items() if split == "test")
    assert 0.15 * 1800 - 10 < n_test <= 0.15 * 1800


def test_no_paragraph_is_in_two_splits():
    texts = PythonDocs().read("python-docs").texts
    paragraphs = {
        split: {" ".join(paragraph.split()) for paragraph in text.split("\n\n")} - {""} for split, text in texts.items()
    }
    assert not paragraphs["train"] & (paragraphs["test"] | paragraphs["validation"])
    assert not paragraphs["validation"] & paragraphs["test"]
    shares = {split: len(text) / sum(map(len, texts.values())) for split, text in texts.items()}
    assert 0.1 < shares["test"] < 0.16 and 0.05 < shares["validation"] < 0.11
