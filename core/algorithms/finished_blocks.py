"""Blocks that an earlier attempt at a step has finished, kept so that a killed run goes on at the next one.

A file for each block lies next to the step's checkpoint, whose name is the key of the stage: a hash of model, data,
settings and code. So nothing is taken up that another model, other data or other code has left.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.artifacts.artifact import list_replacements
from core.artifacts.checkpoint import load_state, save_state
from core.context import Context
from core.nn.catalogue import REPLACEMENTS
from core.subject import Constraint, Subject


class FinishedBlocks:
    """What a walk over blocks has done so far; pass it to `Context.blocks` and put the report's rows into `rows`."""

    def __init__(self, subject: Subject, context: Context):
        self.subject, self.device, self.record = subject, context.device, context.record
        self.checkpoint = context.checkpoint
        self.rows: dict[str, dict[str, Any]] = {}  # of the report, by the layer's full name
        self.updates = 0  # where curves go on
        self._n_parts = 0
        self._takes_up = self.checkpoint is not None

    def restore(self, modules: Iterable[str]) -> bool:
        """Put the next part of the walk, of these modules, into its finished state; False: it is not finished."""
        file = self._file()
        if not self._takes_up or file is None or not file.exists():
            self._takes_up = False  # what comes after an unfinished block depends on it
            return False
        state = load_state(file, str(self.device))
        for name in modules:
            self._put_back(name, state["modules"][name])
        self.rows |= state["rows"]
        self.updates = state["updates"]
        self._n_parts += 1
        self.record.event("info", f"{', '.join(modules)}: taken up from an earlier attempt")
        return True

    def save(self, modules: Iterable[str], layers: Iterable[str]) -> None:
        """Keep the part of the walk that was finished now, and the rows of its layers."""
        file = self._file()
        if file is not None:
            rows = {name: self.rows[name] for name in layers if name in self.rows}
            state = {"modules": {name: self._state_of(name) for name in modules}, "rows": rows, "updates": self.updates}
            save_state(file, state)
        self._n_parts += 1

    def _file(self) -> Path | None:
        path = self.checkpoint
        return None if path is None else path.with_name(f"{path.stem}.block{self._n_parts}{path.suffix}")

    def _state_of(self, name: str) -> dict[str, Any]:
        module, inside = self.subject.model.get_submodule(name), f"main.{name}."
        return {
            "tensors": module.state_dict(),
            "replacements": [[m.name, m.cls, m.arguments] for m in list_replacements(module)],
            "masks": {fqn: c.tensor for fqn, c in self.subject.constraints.items() if fqn.startswith(inside)},
            "covered": [fqn for fqn in self.subject.covered if f"{fqn}.".startswith(f"{name}.")],
        }

    def _put_back(self, name: str, state: dict[str, Any]) -> None:
        subject, inside = self.subject, f"main.{name}."
        for place, cls, arguments in state["replacements"]:
            made, full = REPLACEMENTS[cls](**arguments), f"{name}.{place}" if place else name
            made.adopt(subject.model.get_submodule(full))
            subject.model.set_submodule(full, made.train(subject.model.training))
        subject.model.get_submodule(name).load_state_dict(state["tensors"], assign=True)
        subject.covered |= set(state["covered"])
        kept = {fqn: c for fqn, c in subject.constraints.items() if not fqn.startswith(inside)}
        subject.constraints = kept | {fqn: Constraint("mask", mask) for fqn, mask in state["masks"].items()}
