"""`hf:<repo or folder>`: trained models of Hugging Face's transformers, loaded from safetensors.

Causal language models, sequence classifiers and image classifiers. The config of a loaded model holds
the whole of transformers' config, so that it is built again without the repository.
"""

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
from core.models.loaded import Described, Loaded
from core.models.resize import select_
from core.models.stored import DTYPES, DtypeSetting, resolve_dtype, stored_weights
from core.models.tokenizer import PretrainedTokenizer, read_tokenizer
from core.nn.precision import float_dtype
from core.tasks.base import InputFormat, Kind, Task

AUTO_CLASSES = {
    Kind.LANGUAGE_MODELLING: "AutoModelForCausalLM",
    Kind.TEXT_CLASSIFICATION: "AutoModelForSequenceClassification",
    Kind.IMAGE_CLASSIFICATION: "AutoModelForImageClassification",
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
    tokenizer = None
    if task.kind is Kind.IMAGE_CLASSIFICATION:
        input_format = _image_format(folder, hf_config)
    else:
        length = _length(hf_config, settings, task)
        tokenizer = _read_tokenizer(source, folder, length if task.kind is Kind.TEXT_CLASSIFICATION else None)
        _require_embedded(source, hf_config, tokenizer)
        input_format = InputFormat(tokenizer=tokenizer, length=length)
        if task.kind is Kind.TEXT_CLASSIFICATION and hf_config.pad_token_id is None:
            hf_config.pad_token_id = tokenizer.pad_id  # decoders look for the last token before the padding
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
    files = tokenizer.files() if tokenizer is not None else {}
    return Described(
        config=config,
        input_format=input_format,
        trained=not settings.new_head,
        tokenizer_files=files,
        class_order=match.order if match.is_permuted else (),
        notes=(match.note,) if match.note else (),
    )


def build(config: dict[str, Any]) -> nn.Module:
    """The bare model of a config that `describe` gave."""
    auto_class, hf_config, options = _unpack(config)
    model = auto_class.from_config(hf_config, **options)
    convert_conv1d_(model)
    if config.get("experts_as_linears"):  # artifacts of earlier releases hold them fused
        unfuse_experts_(model)
    return model


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
    model.eval()
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
    return getattr(transformers, config["auto_class"]), hf_config, made


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
    if is_language and new_head:
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
    return _longest(_unpack(config)[1])


def _longest(hf_config: Any) -> int | None:
    n_positions: int | None = getattr(hf_config, "max_position_embeddings", None)
    if n_positions is not None and hf_config.model_type in ("roberta", "xlm-roberta", "camembert"):
        return n_positions - hf_config.pad_token_id - 1  # their positions begin after the padding's
    return n_positions


def _length(hf_config: Any, settings: HuggingFaceSettings, task: Task) -> int:
    longest = _longest(hf_config)
    if settings.length is None:
        return min(task.length or 256, longest or 256)
    if longest is not None and settings.length > longest:
        message = f"exceeds the model's maximum of {longest} tokens"
        raise SpecError.of("model.length", settings.length, message, f"Choose at most {longest}.")
    return settings.length


def _read_tokenizer(source: str, folder: Path, length: int | None) -> PretrainedTokenizer:
    try:
        return read_tokenizer(folder, length)
    except (OSError, ValueError, ImportError) as error:
        message = "has no tokenizer that transformers can load"
        raise SpecError.of("model.source", source, message, "Save its tokenizer.json in the model's folder.") from error


def _image_format(folder: Path, hf_config: Any) -> InputFormat:
    file = folder / "preprocessor_config.json"
    options = json.loads(file.read_text()) if file.is_file() else {}
    size = getattr(hf_config, "image_size", None) or options.get("size")
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge"))
    channels = getattr(hf_config, "num_channels", 3)
    normalized = options.get("do_normalize", True)
    mean, std = options.get("image_mean", 0.5), options.get("image_std", 0.5)
    return InputFormat(
        image_size=size[0] if isinstance(size, list) else size,
        channels=channels,
        mean=_per_channel(mean if normalized else 0.0, channels),
        std=_per_channel(std if normalized else 1.0, channels),
    )


def _per_channel(value: Any, channels: int) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value] * channels
    return tuple(map(float, values))
