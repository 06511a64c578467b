"""The training loop: a budget, an optimizer, and any number of training methods.

Data order and random numbers depend on the spec only: the seed, the contents of model and data, and the steps so
far, but not on the software or the device type. Checkpoints contain the state of the generators, so a training
that resumes from a checkpoint makes the same updates as one that was never interrupted.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.algorithms.master_weights import MasterWeights
from core.artifacts import checkpoint
from core.context import Context
from core.errors import Interrupted, TechniqueFailure
from core.measure.score import evaluate, principal
from core.subject import Constraint, Subject
from core.tasks.base import logits_of
from core.technique import Losses, TrainingMethod, Update

CHECKPOINT_SECONDS = 300
CURVE_POINTS = 2000  # a longer training draws every n-th update
VALIDATION_EXAMPLES = 2000


@dataclass(frozen=True)
class Plan:
    """The budget of a training and its optimizer."""

    steps: int
    batch_size: int
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float
    momentum: float
    warmup: float
    schedule: Literal["cosine", "linear", "constant"]
    clip_norm: float
    precision: Literal["float32", "bfloat16"]
    evaluations: int


def schedule_factor(plan: Plan, index: int) -> float:
    """Factor on every learning rate at update `index`: linear warmup, then the schedule down to zero."""
    warmup_steps = int(plan.warmup * plan.steps)
    if index < warmup_steps:
        return (index + 1) / warmup_steps
    share = (index - warmup_steps) / max(1, plan.steps - warmup_steps)
    return {"cosine": 0.5 * (1 + math.cos(math.pi * share)), "linear": 1 - share, "constant": 1.0}[plan.schedule]


def leaf_parameter(model: nn.Module, name: str) -> nn.Parameter:
    """The parameter that an optimizer updates for `name`: the original one if it is parametrized."""
    owner, _, attribute = name.rpartition(".")
    module = model.get_submodule(owner)
    if parametrize.is_parametrized(module, attribute):
        return module.get_parameter(f"parametrizations.{attribute}.original")
    return model.get_parameter(name)


class Training:
    """One training of a subject's main model; `run` executes it, `load` resumes from a checkpoint first.

    From here to the end of `run` all weights are float32 (`MasterWeights`).
    """

    def __init__(self, subject: Subject, context: Context, plan: Plan, methods: Sequence[TrainingMethod]):
        self.subject, self.context, self.plan, self.methods = subject, context, plan, methods
        self.model = subject.model
        self.index = 0
        self.split = subject.task.split("train")
        torch.manual_seed(context.generator("training").initial_seed())
        self.masters = MasterWeights(self.model)
        subject.trained_from = self.masters.dtype
        for method in methods:
            method.begin(subject, context)
        self.optimizer = self._build_optimizer()
        self.taps: dict[str, Tensor] = {}

    def run(self) -> None:
        """Make all remaining updates, then let the methods restore a plain subject."""
        hooks = [
            self.model.get_submodule(name).register_forward_hook(self._keep_output(name))
            for name in {name for method in self.methods for name in method.taps()}
        ]
        try:
            self._make_updates()
        finally:
            for hook in hooks:
                hook.remove()
        for method in self.methods:
            method.end(self.subject)
        self.masters.restore()
        self.subject.trained_from = None
        self.model.eval()

    def _make_updates(self) -> None:
        saved_at = time.monotonic()
        while self.index < self.plan.steps:
            try:
                self.context.record.progress(self.index / self.plan.steps, f"update {self.index} of {self.plan.steps}")
            except Interrupted:
                self.save()
                raise
            self._update()
            self.index += 1
            self._validate()
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                self.save()
                saved_at = time.monotonic()

    def _update(self) -> None:
        self.model.train()
        factor = schedule_factor(self.plan, self.index)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        batch = self._next_batch()
        for method in self.methods:
            batch = method.batch(batch)
        terms = self._losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        update = Update(self.index, self.plan.steps, self.optimizer, self.plan.learning_rate * factor)
        for method in self.methods:
            method.before_optimizer(update)
        self._mask_gradients()
        if self.plan.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_norm)
        self.optimizer.step()
        for method in self.methods:
            method.after_optimizer(update)
        self._mask_weights()
        self._draw(terms)

    def _losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weighted terms of this batch's loss; their sum is minimized."""
        self.taps.clear()
        autocast = torch.autocast(self.context.device.type, torch.bfloat16, enabled=self.plan.precision == "bfloat16")
        with autocast:
            logits = logits_of(self.model, batch)
            added: list[Losses] = [method.losses(batch, logits, self.taps) for method in self.methods]
            task_loss = self.subject.task.loss(logits, batch)
        terms = {"loss": task_loss * math.prod(losses.task_weight for losses in added)}
        publishers = (getattr(module, "aux_losses", None) for module in self.model.modules())
        for named in [*(losses.terms for losses in added), *(published() for published in publishers if published)]:
            for name, term in named.items():  # of two with one name the curve shows the sum
                terms[name] = terms[name] + term if name in terms else term
        return terms

    def _next_batch(self) -> dict[str, Tensor]:
        """The batch of this update: each epoch has its own order, with complete batches only."""
        size = min(self.plan.batch_size, len(self.split))
        per_epoch = len(self.split) // size
        epoch, place = divmod(self.index, per_epoch)
        order = torch.randperm(len(self.split), generator=self.context.generator(f"epoch {epoch}"))
        batch = self.split.batch(order[place * size : (place + 1) * size])
        return {key: value.to(self.context.device) for key, value in batch.items()}

    def _masks(self) -> list[tuple[nn.Parameter, Tensor]]:
        prefix = "main."
        return [
            (leaf_parameter(self.model, fqn.removeprefix(prefix)), constraint.tensor)
            for fqn, constraint in self.subject.constraints.items()
            if constraint.kind == "mask" and fqn.startswith(prefix)
        ]

    def _mask_gradients(self) -> None:
        for parameter, mask in self._masks():
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    @torch.no_grad()
    def _mask_weights(self) -> None:
        for parameter, mask in self._masks():  # momentum and decay would revive what was pruned
            parameter.mul_(mask)

    def _build_optimizer(self) -> torch.optim.Optimizer:
        own = {id(p) for method in self.methods for group in method.param_groups() for p in group["params"]}
        trained = [p for p in self.model.parameters() if p.requires_grad and id(p) not in own]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.plan.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups += [dict(group) for method in self.methods for group in method.param_groups()]
        for group in groups:
            group["base_lr"] = group.get("lr", self.plan.learning_rate)
        if self.plan.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.plan.learning_rate, momentum=self.plan.momentum)
        return torch.optim.AdamW(groups, lr=self.plan.learning_rate)

    def _keep_output(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.taps[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def _draw(self, terms: dict[str, Tensor]) -> None:
        every = max(1, self.plan.steps // CURVE_POINTS)
        if self.index % every and self.index != self.plan.steps - 1:
            return
        for name, term in terms.items():
            value = float(term.detach())
            if not math.isfinite(value):
                raise TechniqueFailure(
                    f"{name} became {value} at update {self.index} of {self.plan.steps}: "
                    f"lower learning_rate (now {self.plan.learning_rate}) or raise warmup"
                )
            self.context.record.curve(name, self.index, value)
        for name, values in self._observed().items():
            self.context.record.curve(name, self.index, sum(values) / len(values))
        self.context.record.curve("learning rate", self.index, self.optimizer.param_groups[0]["lr"])

    def _observed(self) -> dict[str, list[float]]:
        """What modules observed in the last batch (`observed`): values of all publishing modules by name."""
        found: dict[str, list[float]] = {}
        publishers = (getattr(module, "observed", None) for module in self.model.modules())
        for name, value in (item for published in publishers if published for item in published().items()):
            found.setdefault(name, []).append(value)
        return found

    def _validate(self) -> None:
        if not self.plan.evaluations or self.index % max(1, self.plan.steps // self.plan.evaluations):
            return
        task = self.subject.task
        examples = evaluate(
            self.model, task, "validation", device=self.context.device, batch_size=256, limit=VALIDATION_EXAMPLES
        )
        self.context.record.curve(f"validation {task.score.name}", self.index, principal(task, examples))

    def save(self) -> None:
        """Write a checkpoint, if the run has a folder for it."""
        if self.context.checkpoint is None:
            return
        state = {
            "index": self.index,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "methods": [method.state_dict() for method in self.methods],
            "masks": {fqn: c.tensor for fqn, c in self.subject.constraints.items() if c.kind == "mask"},
            "random": self._random_state(),
        }
        checkpoint.save_state(self.context.checkpoint, state)
        self.context.record.event("info", f"checkpoint at update {self.index} of {self.plan.steps}")

    def load(self) -> None:
        """Resume from the checkpoint of an earlier attempt at this stage, if there is one."""
        if self.context.checkpoint is None or not self.context.checkpoint.exists():
            return
        state = checkpoint.load_state(self.context.checkpoint)
        self.index = state["index"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for method, saved in zip(self.methods, state["methods"], strict=True):
            method.load_state_dict(saved)
        for fqn, mask in state["masks"].items():
            self.subject.constraints[fqn] = Constraint("mask", mask.to(self.context.device))
        torch.set_rng_state(state["random"][0])
        if self.context.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"][1], self.context.device)
        self.context.record.event("info", f"resumed at update {self.index} of {self.plan.steps}")

    def _random_state(self) -> list[Tensor]:
        """The state of the CPU's generator, and of the GPU's if it is used, where dropout draws."""
        if self.context.device.type == "cuda":
            return [torch.get_rng_state(), torch.cuda.get_rng_state(self.context.device)]
        return [torch.get_rng_state()]
