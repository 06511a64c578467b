"""A small sentence encoder saved as sentence-transformers does, and texts and scored pairs for it."""

import json
import random
from pathlib import Path

import torch
import transformers

LETTERS = "abcdefgh"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SPREAD = 0.2  # of the weights: with BERT's 0.02 the layers hardly change what the embedding says


def save_encoder(
    folder: Path, *, pooling: str = "mean", normalize: bool = True, seed: int = 0, waves: bool = False, **config: object
) -> Path:
    """A BERT of random weights with `modules.json`, as sentence-transformers 2 to 5 write it."""
    torch.manual_seed(seed)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    settings = {
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 40,
        "initializer_range": SPREAD,
        **SIZES,
        **config,
    }
    model = transformers.BertModel(transformers.BertConfig(**settings))
    if waves:
        wave_(model)
    model.save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalize else [])]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "last": "lasttoken"}
    flags = {f"pooling_mode_{flag}": name == pooling for name, flag in names.items()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **flags}))
    return folder


def wave_(model: torch.nn.Module) -> None:
    """Set every matrix to sines of its squared places: the same in every release of torch."""
    with torch.no_grad():
        for number, parameter in enumerate(p for p in model.parameters() if p.ndim > 1):
            places = torch.arange(parameter.numel(), dtype=torch.float64).view(parameter.shape)
            parameter.copy_(torch.sin(0.37 * (places + number) ** 2) / 2)


def sentences(count: int, seed: int = 0) -> list[str]:
    """Distinct sentences of one to six words."""
    generator = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        words = ["".join(generator.choices(LETTERS, k=generator.randint(1, 5))) for _ in range(generator.randint(1, 6))]
        found[" ".join(words)] = None
    return list(found)


def save_texts(folder: Path, count: int = 120) -> Path:
    """A text file, one text a line."""
    file = folder / "texts.txt"
    file.write_text("\n".join(sentences(count)))
    return file


def save_pairs(folder: Path, count: int = 80) -> Path:
    """A table of pairs whose score is the share of letters that both have, from 0 to 5."""
    texts = sentences(2 * count)
    rows = ["sentence1,sentence2,score"]
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        own, other = set(first) - {" "}, set(second) - {" "}
        rows.append(f"{first},{second},{5 * len(own & other) / len(own | other):.2f}")
    file = folder / "pairs.csv"
    file.write_text("\n".join(rows))
    return file
