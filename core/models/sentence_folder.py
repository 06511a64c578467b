"""Folders as sentence-transformers writes them: how token vectors become a text's embedding.

`modules.json` lists a Transformer, a pooling and often a normalization. Folders without it are taken as the Transformer
alone, and a mean over its tokens.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import SpecError
from core.nn.sentence_encoder import POOLINGS, Pooling

MODULES = "modules.json"
SENTENCE_CONFIG = "sentence_bert_config.json"
FOLDER_CONFIG = "config_sentence_transformers.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
UNLIMITED = 10**9  # tokenizers without a limit write 10^30
_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_REMEDY = "Choose a model with mean, cls or max pooling, and at most a normalization after it."


@dataclass(frozen=True)
class SentenceFolder:
    """What a folder says besides its Transformer."""

    pooling: Pooling = "mean"
    normalize: bool = False
    length: int | None = None  # tokens that texts are truncated to; None: not said
    notes: tuple[str, ...] = ()


def read_sentence_folder(source: str, folder: Path) -> SentenceFolder:
    """Pooling, normalization and length; raises SpecError for modules that cannot be computed here."""
    if not (folder / MODULES).is_file():
        note = f"{source}: no pooling is saved with the model; its tokens' mean is used."
        return SentenceFolder(length=read_length(source, folder), notes=(note,))
    modules = [(entry["type"].rpartition(".")[2], entry.get("path", "")) for entry in _read(source, folder / MODULES)]
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0][1]:
        message = f"is made of {', '.join(path or kind for kind, path in modules)}, which Slimboard cannot compute"
        raise SpecError.of("model.source", source, message, _REMEDY)
    return SentenceFolder(
        pooling=_pooling(source, _read(source, folder / modules[1][1] / "config.json")),
        normalize=kinds[-1] == "Normalize",
        length=read_length(source, folder),
        notes=tuple(_notes(source, folder)),
    )


def read_length(source: str, folder: Path) -> int | None:
    """Tokens that texts are truncated to: `max_seq_length`, which newer folders leave to the tokenizer."""
    said = _read_if_there(source, folder / SENTENCE_CONFIG).get("max_seq_length")
    length = said or _read_if_there(source, folder / TOKENIZER_CONFIG).get("model_max_length")
    return int(length) if length is not None and length < UNLIMITED else None


def _pooling(source: str, config: dict[str, Any]) -> Pooling:
    """The pooling of `1_Pooling/config.json`: one flag of several, or since sentence-transformers 5.4 a name."""
    named = config.get("pooling_mode")
    if named is not None:
        modes = [named] if isinstance(named, str) else list(named)
    else:
        modes = [_MODES.get(key, key) for key, value in config.items() if key.startswith("pooling_mode_") and value]
    known = [mode for mode in POOLINGS if modes == [mode]]
    if not known:
        message = f"pools its tokens by {', '.join(modes) or 'nothing'}, which Slimboard cannot compute"
        raise SpecError.of("model.source", source, message, _REMEDY)
    return known[0]


def _notes(source: str, folder: Path) -> list[str]:
    notes = []
    if _read_if_there(source, folder / SENTENCE_CONFIG).get("do_lower_case"):
        notes.append(f"{source}: do_lower_case is ignored; only its tokenizer decides about upper case.")
    if _read_if_there(source, folder / FOLDER_CONFIG).get("default_prompt_name"):
        notes.append(f"{source}: its default prompt is not put before the texts.")
    return notes


def _read_if_there(source: str, file: Path) -> dict[str, Any]:
    return dict(_read(source, file)) if file.is_file() else {}


def _read(source: str, file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        message = f"has no readable {file.parent.name}/{file.name}"
        raise SpecError.of(
            "model.source", source, message, "Save the model again with sentence-transformers."
        ) from error
