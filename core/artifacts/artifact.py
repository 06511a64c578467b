"""The artifact of a stage on disk, and loading it again, in this process or in a fresh one.

A folder: `manifest.json` (written last), `model.safetensors` (packed, for deployment), `working.safetensors`
if later steps need more than the packed form (dense weights and their masks), `probe.safetensors`
(inputs and the outputs that they must reproduce), `examples.safetensors` (per-example test results), and
the tokenizer's files. Nothing is pickled, and a manifest cannot refer to a class outside `core.nn.catalogue`.
The manifest has the SHA-256 and the size of every file that is written with it (`core/integrity.py`).
"""

import copy
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from core import disk
from core.artifacts.manifest import Manifest, Module, WeightForm, manifest_digest
from core.integrity import EXAMPLES, PACKED, PROBE, REPORT, WORKING, seal_examples
from core.models import Described, Loaded, build
from core.models.meta import assign_weights, empty_weights, shared_tensors, tied_parameters
from core.models.resize import changed_shapes, resize_
from core.models.tokenizer import ByteTokenizer, load_tokenizer
from core.nn.catalogue import REPLACEMENTS
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import SparseExpertLinear
from core.nn.replacement import Replacement, executed
from core.nn.sparse_conv2d import SparseConv2d
from core.nn.sparse_linear import SparseLinear
from core.subject import Constraint, Subject
from core.tasks.base import InputFormat, Task, inputs, logits_of

TOKENIZER = "tokenizer"
PROBE_EXAMPLES = 4
_FORMAT_FIELDS = ("length", "image_size", "channels", "mean", "std")
_MASK = "mask:"


def save(subject: Subject, folder: Path, source: Described) -> str:
    """Write a subject's packed form and, if it differs, its working form; returns the manifest's SHA-256.

    `source` is the model that the subject started from; its tokenizer and input format are saved too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deployed = deploy(subject)
    packed = _write_form(deployed, subject.configs, folder / PACKED, {})
    masks = {f"{_MASK}{fqn}": c.tensor for fqn, c in subject.constraints.items() if c.kind == "mask"}
    working = _write_form(subject.models, subject.configs, folder / WORKING, masks) if masks else None
    prepare(deployed["main"])
    _write_probe(deployed["main"], subject.task, folder)
    for name, content in source.tokenizer_files.items():
        (folder / TOKENIZER).mkdir(exist_ok=True)
        (folder / TOKENIZER / name).write_bytes(content)
    return Manifest(
        configs=subject.configs,
        packed=packed,
        working=working,
        trained=subject.trained,
        compressed=subject.compressed,
        input_format=_describe_format(source.input_format),
        class_names=list(subject.task.class_names),
    ).write(folder)


def _describe_format(input_format: InputFormat) -> dict[str, Any]:
    tokenizer = input_format.tokenizer
    kind = None if tokenizer is None else "bytes" if isinstance(tokenizer, ByteTokenizer) else "files"
    return {**{name: getattr(input_format, name) for name in _FORMAT_FIELDS}, "tokenizer": kind}


def load_source(folder: Path) -> Loaded:
    """An artifact as a source model: its packed weights, tokenizer and input format."""
    manifest = Manifest.read(folder)
    is_saved = manifest.input_format["tokenizer"] == "files"
    files = {file.name: file.read_bytes() for file in (folder / TOKENIZER).glob("*")} if is_saved else {}
    return Loaded(
        config=manifest.configs["main"],
        input_format=load_format(folder),
        trained=manifest.trained,
        tokenizer_files=files,
        module=load_models(folder)["main"],
        content_hash=manifest_digest(folder),
    )


def load_format(folder: Path) -> InputFormat:
    """The input format of an artifact's models, with the tokenizer."""
    described = dict(Manifest.read(folder).input_format)
    kind = described.pop("tokenizer")
    tokenizer = None if kind is None else ByteTokenizer() if kind == "bytes" else load_tokenizer(folder / TOKENIZER)
    return InputFormat(tokenizer=tokenizer, **described)


def deploy(subject: Subject) -> dict[str, nn.Module]:
    """Copies of the models in which masked layers are packed if packing makes them smaller."""
    models = {name: copy.deepcopy(model).eval().requires_grad_(False) for name, model in subject.models.items()}
    for fqn, constraint in subject.constraints.items():
        model, _, parameter = fqn.partition(".")
        owner, _, attribute = parameter.rpartition(".")
        module = models[model].get_submodule(owner)
        if attribute == "weight" and type(module) in _PACKERS and not _is_tied(models[model], parameter):
            packed = _PACKERS[type(module)](module, constraint.tensor)
            if _payload(packed) < _payload(module):
                models[model].set_submodule(owner, packed)
    return models


_PACKERS: dict[type[nn.Module], Callable[..., Replacement]] = {
    ExpertLinear: SparseExpertLinear.pack,
    nn.Linear: SparseLinear.pack,
    nn.Conv2d: SparseConv2d.pack,
}


def _is_tied(model: nn.Module, parameter: str) -> bool:
    return any(parameter in group for group in tied_parameters(model))


def _payload(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def _write_form(
    models: dict[str, nn.Module], configs: dict[str, dict[str, Any]], file: Path, extra: dict[str, Tensor]
) -> WeightForm:
    tensors, form = dict(extra), WeightForm()
    for name, model in models.items():
        form.replacements[name] = list_replacements(model)
        form.shapes[name] = changed_shapes(model, _bare(configs[name], form.replacements[name]))
        again = {fqn for group in shared_tensors(model) for fqn in group[1:]}
        tensors |= {f"{name}.{fqn}": t for fqn, t in model.state_dict().items() if fqn not in again}
    save_file({fqn: tensor.detach().cpu().contiguous() for fqn, tensor in tensors.items()}, file)
    return form


def list_replacements(model: nn.Module) -> list[Module]:
    """Every replacement module, outer ones before those inside them."""
    names = {cls: name for name, cls in REPLACEMENTS.items()}
    places: dict[Replacement, list[str]] = {}
    for fqn, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Replacement):
            places.setdefault(module, []).append(fqn)
    return [
        Module(first, names[type(module)], module.arguments(), shared) for module, (first, *shared) in places.items()
    ]


def probe_batch(task: Task) -> dict[str, Tensor]:
    """A few validation inputs."""
    split = task.split("validation")
    return inputs(split.batch(torch.arange(min(PROBE_EXAMPLES, len(split)))))


@torch.inference_mode()
def _write_probe(model: nn.Module, task: Task, folder: Path) -> None:
    device = next(iter(model.state_dict().values())).device
    batch = {key: value.to(device) for key, value in probe_batch(task).items()}
    outputs = logits_of(model, batch).float()
    probe = {**{f"input.{key}": value for key, value in batch.items()}, "output": outputs}
    save_file({key: value.cpu().contiguous() for key, value in probe.items()}, folder / PROBE)


def load_probe(folder: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The stored probe inputs, as a model's keyword arguments."""
    tensors = load_file(folder / PROBE, device=str(device))
    return {name.removeprefix("input."): tensor for name, tensor in tensors.items() if name != "output"}


def probe_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes of the stored probe inputs by their names ("input.pixel_values"), and of the "output"."""
    with safe_open(folder / PROBE, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  not a dict


def load_models(folder: Path, device: torch.device | str = "cpu", *, working: bool = False) -> dict[str, nn.Module]:
    """The models of an artifact: packed and ready to execute, or in the working form for later steps."""
    manifest = Manifest.read(folder)
    use_working = working and manifest.working is not None
    form = manifest.working if use_working else manifest.packed
    assert form is not None
    tensors = load_file(folder / (WORKING if use_working else PACKED), device=str(device))
    models = {}
    for name, config in manifest.configs.items():
        prefix = f"{name}."
        state = {fqn.removeprefix(prefix): t for fqn, t in tensors.items() if fqn.startswith(prefix)}
        model = _bare(config, form.replacements[name])
        resize_(model, form.shapes.get(name, {}))
        assign_weights(model, state)
        models[name] = model.to(device).eval()
        if not working:
            prepare(models[name])
    return models


def _bare(config: dict[str, Any], modules: Collection[Module]) -> nn.Module:
    """The model without its weights, with its replacement modules."""
    with empty_weights():
        model = build(config)
        for module in modules:
            replacement = REPLACEMENTS[module.cls](**module.arguments)
            replacement.adopt(model.get_submodule(module.name))
            model.set_submodule(module.name, replacement)
        for module in modules:
            for place in module.shared:
                model.set_submodule(place, model.get_submodule(module.name))
    return model


def prepare(model: nn.Module) -> None:
    """Lay out every packed module's weights for its kernel."""
    for module in executed(model):
        module.prepare()


def load_subject(folder: Path, task: Task, device: torch.device) -> Subject:
    """The subject for the next step: weights that it can change, and their constraints."""
    manifest = Manifest.read(folder)
    models = load_models(folder, device, working=True)
    subject = Subject(models, task, manifest.configs, manifest.trained, manifest.compressed)
    if (folder / REPORT).exists():
        subject.sensitivity = json.loads((folder / REPORT).read_text())["details"].get("sensitivity")
    if manifest.working is not None:
        with safe_open(folder / WORKING, framework="pt", device=str(device)) as file:
            masks = [name for name in file.keys() if name.startswith(_MASK)]  # noqa: SIM118  not a dict
            subject.constraints = {
                name.removeprefix(_MASK): Constraint("mask", file.get_tensor(name)) for name in masks
            }
    return subject


def save_examples(folder: Path, examples: dict[str, Tensor]) -> None:
    """Save per-example test results, so that any two stages can be compared by paired tests later."""
    tensors = {name: values.cpu().contiguous() for name, values in examples.items()}
    with disk.replacing(folder / EXAMPLES) as partial:
        partial.write_bytes(seal_examples(lambda metadata: to_bytes(tensors, metadata)))


def load_examples(folder: Path) -> dict[str, Tensor]:
    """Per-example test results as saved by `save_examples`."""
    return load_file(folder / EXAMPLES)
