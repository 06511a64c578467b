"""`hf:<repo or folder>`: trained models of Hugging Face's transformers, loaded from safetensors.

Causal language models, sequence classifiers, image classifiers and sentence encoders. The config of a loaded model
holds the whole of transformers' config, so that it is built again without the repository.
"""

import inspect
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from core.errors import SpecError
from core.models.base import ModelSettings
from core.models.checkpoint import check_weights, content_hash, locate, weight_files
from core.models.classes import reorder_outputs_, require_reordered
from core.models.classification_head import fit_classes, initialize_head_, is_head
from core.models.conv1d import convert_conv1d_
from core.models.experts import unfuse_experts_
from core.models.image_format import image_format
from core.models.loaded import Described, Loaded
from core.models.resize import select_
from core.models.sentence_folder import SentenceFolder, read_length, read_sentence_folder
from core.models.stored import DTYPES, DtypeSetting, resolve_dtype, stored_weights
from core.models.text_length import longest_of, text_length
from core.models.tokenizer import PretrainedTokenizer, read_tokenizer
from core.nn.precision import float_dtype
from core.nn.sentence_encoder import SentenceEncoder
from core.tasks.base import InputFormat, Kind, Task

AUTO_CLASSES = {
    Kind.LANGUAGE_MODELLING: "AutoModelForCausalLM",
    Kind.TEXT_CLASSIFICATION: "AutoModelForSequenceClassification",
    Kind.IMAGE_CLASSIFICATION: "AutoModelForImageClassification",
    Kind.EMBEDDINGS: "AutoModel",
}


class HuggingFaceSettings(ModelSettings):
    """A pretrained model from a Hugging Face repository or folder."""

    revision: str | None = Field(
        None,
        max_length=100,
        description="branch, tag or commit of the repository",
        json_schema_extra={"when_empty": "the newest"},
    )
    dtype: DtypeSetting = Field("auto", description="dtype of the loaded weights; auto: the checkpoint's own")
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="attention implementation of transformers")
    length: int | None = Field(
        None,
        ge=8,
        le=131072,
        description="tokens of a window; the task's if empty",
        json_schema_extra={"when_empty": "the task's"},
    )
    new_head: bool = Field(False, description="replace the classification head with a new, untrained one")
    pooling: Literal["auto", "mean", "cls", "max"] = Field(
        "auto", description="for embeddings: what becomes of a text's token vectors; auto: the folder's own, else mean"
    )
    match_classes: Literal["name", "number"] = Field(
        "name",
        description="match outputs with the data's classes by the checkpoint's class names, or by number",
    )


def describe(source: str, settings: HuggingFaceSettings, task: Task) -> Described:
    """The model's config and input format, from its small files; raises SpecError if it does not fit the task."""
    folder = locate(source, settings.revision, weights=False)
    check_weights(source)
    hf_config = _read_config(source, folder)
    model_class = _model_class(source, hf_config, task, settings.new_head)
    match = fit_classes(source, hf_config, task, new_head=settings.new_head, by=settings.match_classes)
    sentence = _sentence(source, folder, hf_config, settings) if task.kind is Kind.EMBEDDINGS else None
    if task.kind is Kind.IMAGE_CLASSIFICATION:
        input_format = image_format(folder, hf_config)
    else:
        own = sentence.length if sentence is not None else None
        length = text_length(hf_config, settings.length, task.length, own)
        input_format = _text_format(source, folder, hf_config, length, task)
    tokenizer = input_format.tokenizer
    hf_config.architectures = [model_class.__name__]
    hf_config.use_cache = False  # decoding asks for it; training and scoring do without
    plain = json.loads(hf_config.to_json_string(use_diff=False))
    config = {
        "source": "hf",
        "auto_class": AUTO_CLASSES[Kind(task.kind)],
        "config": {key: value for key, value in plain.items() if key not in ("_name_or_path", "auto_map")},
        "attention": settings.attention,
        "dtype": resolve_dtype(source, folder, settings.dtype),
        "conv1d_as_linear": True,
        "experts_as_linears": True,
    }
    if sentence is not None:
        config["sentence"] = {"pooling": sentence.pooling, "normalize": sentence.normalize}
    return Described(
        config=config,
        input_format=input_format,
        trained=not settings.new_head,
        tokenizer_files=tokenizer.files() if tokenizer is not None else {},
        class_order=match.order if match.is_permuted else (),
        notes=(*([match.note] if match.note else []), *(sentence.notes if sentence is not None else ())),
    )


def _sentence(source: str, folder: Path, hf_config: Any, settings: HuggingFaceSettings) -> SentenceFolder:
    """What makes embeddings of the model's token vectors; a pooling in the settings replaces the folder's own."""
    if hf_config.is_encoder_decoder:
        message = f"is a {hf_config.model_type}, which has a decoder and no embeddings of texts alone"
        raise SpecError.of("model.source", source, message, "Choose a model like BERT.")
    if settings.pooling == "auto":
        return read_sentence_folder(source, folder)
    return SentenceFolder(pooling=settings.pooling, length=read_length(source, folder))


def _text_format(source: str, folder: Path, hf_config: Any, length: int, task: Task) -> InputFormat:
    """Tokens of running text for language models, of single texts for others."""
    is_language = task.kind is Kind.LANGUAGE_MODELLING
    tokenizer = _read_tokenizer(source, folder, None if is_language else length)
    _require_embedded(source, hf_config, tokenizer)
    if task.kind is Kind.TEXT_CLASSIFICATION and hf_config.pad_token_id is None:
        hf_config.pad_token_id = tokenizer.pad_id  # decoders look for the last token before the padding
    return InputFormat(tokenizer=tokenizer, length=length)


def build(config: dict[str, Any]) -> nn.Module:
    """The bare model of a config that `describe` gave."""
    auto_class, hf_config, options = _unpack(config)
    model = auto_class.from_config(hf_config, **options)
    convert_conv1d_(model)
    if config.get("experts_as_linears"):  # artifacts of earlier releases hold them fused
        unfuse_experts_(model)
    return _with_pooling(model, config)


def _with_pooling(model: nn.Module, config: dict[str, Any]) -> nn.Module:
    return SentenceEncoder(model, **config["sentence"]) if "sentence" in config else model


def load(source: str, settings: HuggingFaceSettings, task: Task, generator: torch.Generator) -> Loaded:
    """The model with its weights, on the CPU; a new head's depend on `generator` alone."""
    described = describe(source, settings, task)
    folder = locate(source, settings.revision, weights=True)
    config = {**described.config, "dtype": resolve_dtype(source, folder, settings.dtype)}
    model, missing, unused = _from_pretrained(source, folder, config, settings.new_head)
    if settings.new_head:
        initialize_head_(model, missing, generator)
    elif missing:
        message = f"has no trained weights for {', '.join(missing[:4])}"
        remedy = "Set new_head: true to train a new head." if is_head(model, missing) else "Save the model again."
        raise SpecError.of("model.source", source, message, remedy)
    convert_conv1d_(model)
    unfuse_experts_(model)
    model = _with_pooling(model, config).eval()
    if described.class_order:
        batch = _sample_batch(described, model)
        is_reordered = reorder_outputs_(model, described.class_order, batch, partial(select_, model))
        require_reordered(is_reordered, source)
    return Loaded(
        **vars(replace(described, config=config)),
        module=model,
        content_hash=content_hash(_determining(config, described.class_order), weight_files(source, folder)),
        stored=stored_weights(source, folder, unused),
    )


def _determining(config: dict[str, Any], class_order: tuple[int, ...]) -> dict[str, Any]:
    """What of a config makes other weights, as in every release: randomness is drawn from its hash."""
    content = {key: value for key, value in config.items() if key != "experts_as_linears"}
    return {**content, "class_order": class_order} if class_order else content


def _sample_batch(described: Described, model: nn.Module) -> dict[str, torch.Tensor]:
    """One input of any content that the model takes."""
    wanted = described.input_format
    if wanted.tokenizer is not None:
        tokens = torch.arange(1, 1 + min(8, wanted.length or 8)).remainder(wanted.tokenizer.vocab_size)[None]
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    size, channels = wanted.image_size or 64, wanted.channels or 3
    pixels = torch.linspace(-1, 1, channels * size * size, dtype=float_dtype(model))
    return {"pixel_values": pixels.view(1, channels, size, size)}


def _from_pretrained(
    source: str, folder: Path, config: dict[str, Any], new_head: bool
) -> tuple[nn.Module, list[str], set[str]]:
    """The model, the parameters that the files lack or hold in another shape, and the files' tensors it leaves out."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would fill the run's log
    auto_class, hf_config, options = _unpack(config)
    try:
        with torch.random.fork_rng(devices=[]):
            model, info = auto_class.from_pretrained(
                folder,
                config=hf_config,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=new_head,
                output_loading_info=True,
                **options,
            )
    except RuntimeError as error:  # shapes; the message says which
        message = f"holds weights that do not fit its config: {str(error).strip().splitlines()[-1]}"
        raise SpecError.of("model.source", source, message, "Save the model again with its config.") from error
    mismatched = [entry[0] for entry in info["mismatched_keys"]]
    return model, sorted({*info["missing_keys"], *mismatched}), set(info["unexpected_keys"])


def _unpack(config: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Auto class, its config and its options. They may come from a manifest: nothing but these is constructed."""
    import transformers

    if config["auto_class"] not in AUTO_CLASSES.values() or config["attention"] not in ("sdpa", "eager"):
        raise ValueError(f"{config['auto_class']} with {config['attention']} attention cannot be built from its config")
    options = dict(config["config"])
    hf_config = transformers.CONFIG_MAPPING[options.pop("model_type")].from_dict(options)
    made = {"attn_implementation": config["attention"], "dtype": DTYPES[config["dtype"]], "trust_remote_code": False}
    auto_class = getattr(transformers, config["auto_class"])
    if config["auto_class"] == AUTO_CLASSES[Kind.EMBEDDINGS] and _has_pooler(auto_class, hf_config):
        made["add_pooling_layer"] = False  # the sentence encoder pools the tokens itself
    return auto_class, hf_config, made


def _has_pooler(auto_class: Any, hf_config: Any) -> bool:
    known = auto_class._model_mapping.get(type(hf_config), None)
    return known is not None and "add_pooling_layer" in inspect.signature(known).parameters


def _read_config(source: str, folder: Path) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    options = json.loads((folder / "config.json").read_text())
    model_type = options.get("model_type")
    if model_type not in CONFIG_MAPPING:
        code = " and comes with its own code, which is never run" if "auto_map" in options else ""
        message = f"has the model type {model_type!r}, which the installed transformers does not know{code}"
        raise SpecError.of("model.source", source, message, "Choose a model that transformers implements.")
    if "quantization_config" in options:
        remedy = "Choose the original model; Slimboard quantizes it itself."
        raise SpecError.of("model.source", source, "is already quantized, in another tool's format", remedy)
    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _model_class(source: str, hf_config: Any, task: Task, new_head: bool) -> type[nn.Module]:
    """The class that serves the task; raises SpecError for a model that was made for something else."""
    import transformers

    mapping = getattr(transformers, AUTO_CLASSES[Kind(task.kind)])._model_mapping
    saved = list(hf_config.architectures or [])
    known = mapping.get(type(hf_config), ())
    classes: tuple[type[nn.Module], ...] = known if isinstance(known, tuple) else (known,)
    for model_class in classes:
        if model_class.__name__ in saved:
            return model_class
    is_language = task.kind is Kind.LANGUAGE_MODELLING
    if not classes or (is_language and (saved or getattr(hf_config, "is_decoder", None) is False)):
        message = f"is a {saved[0] if saved else hf_config.model_type}, but {task.name} is {Kind(task.kind)}"
        raise SpecError.of("model.source", source, message, "Choose a model and a task of the same kind.")
    if task.kind in (Kind.LANGUAGE_MODELLING, Kind.EMBEDDINGS) and new_head:
        raise SpecError.of("model.new_head", True, "is only for classification", "Remove it.")
    return classes[0]


def _require_embedded(source: str, hf_config: Any, tokenizer: PretrainedTokenizer) -> None:
    """Raise SpecError if the tokenizer has tokens that the embedding has no row for."""
    n_rows = getattr(hf_config.get_text_config(), "vocab_size", None)
    beyond = [] if n_rows is None else tokenizer.list_beyond(n_rows)
    if beyond:
        token, number = beyond[0]
        message = (
            f"has a tokenizer of {tokenizer.vocab_size:,} tokens but an embedding of only {n_rows:,} rows: "
            f"no row for the token {token!r} (index {number:,})"
        )
        remedy = "Resize the model's embedding (resize_token_embeddings) and save it again, or remove these tokens."
        raise SpecError.of("model.source", source, message, remedy)


def longest(config: dict[str, Any]) -> int | None:
    """Tokens that the model of a config takes at most; None if it does not say."""
    return longest_of(_unpack(config)[1])


def _read_tokenizer(source: str, folder: Path, length: int | None) -> PretrainedTokenizer:
    try:
        return read_tokenizer(folder, length)
    except (OSError, ValueError, ImportError) as error:
        message = "has no tokenizer that transformers can load"
        raise SpecError.of("model.source", source, message, "Save its tokenizer.json in the model's folder.") from error
