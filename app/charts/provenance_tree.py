"""Layout of the provenance tree: one column per generation, one row per run, so that nothing overlaps. Pure.

A stage shared by several runs is one node. A run's line ends at its last stage; the stages of a run that starts from
its model continue from there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass
class Node:
    """A stage: its first record, its position, and the runs that have it."""

    stage: Mapping[str, Any]
    parent: int | None = None
    column: int = 0
    row: int = 0
    runs: list[int] = field(default_factory=list)


@dataclass
class Leaf:
    """A run: its record (of its last stage, if it has one), its row and the stage where it ends."""

    run: Mapping[str, Any]
    ends_at: int | None
    row: int = 0
    made_from: list[tuple[str, int]] = field(default_factory=list)  # (role, run)


@dataclass
class Tree:
    """Nodes by stage, leaves by run, and what crosses the tree: (teacher run, student run, position), and pairs of a
    stage and one that follows it in a run although its parent is another."""

    nodes: dict[int, Node] = field(default_factory=dict)
    leaves: dict[int, Leaf] = field(default_factory=dict)
    taught: list[tuple[int, int, int]] = field(default_factory=list)
    crossing: list[tuple[int, int]] = field(default_factory=list)

    @property
    def n_columns(self) -> int:
        """Columns of stages."""
        return max((node.column for node in self.nodes.values()), default=-1) + 1

    def rooms(self) -> dict[int, int]:
        """How many columns each stage's name may span: up to the next stage in its row."""
        found: dict[int, int] = {}
        next_column: dict[int, int] = {}  # by row
        for number, node in sorted(self.nodes.items(), key=lambda item: -item[1].column):
            found[number] = next_column.get(node.row, self.n_columns) - node.column
            next_column[node.row] = node.column
        return found


def grow(stages: pd.DataFrame, sources: pd.DataFrame) -> Tree:
    """The tree of the runs in `stages` (one row per stage, or one for a run without stages) and `sources`."""
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for row in stages.sort_values(["run_id", "position"]).to_dict("records"):
        rows.setdefault(row["run_id"], []).append(row)
    # a run is older than the runs that refer to it, which rules out cycles
    named = [s for s in sources.to_dict("records") if s["source_id"] in rows and s["source_id"] < s["run_id"]]
    model_of = {s["run_id"]: s["source_id"] for s in named if s["role"] == "model"}
    tree = Tree()
    for run_id, records in rows.items():
        _add_run(tree, run_id, records, model_of.get(run_id))
    for source in named:
        tree.leaves[source["run_id"]].made_from.append((source["role"], source["source_id"]))
        if source["role"] not in ("model", "reference"):
            tree.taught.append((source["source_id"], source["run_id"], source["position"]))
    _place(tree)
    return tree


def _add_run(tree: Tree, run_id: int, records: list[Mapping[str, Any]], model: int | None) -> None:
    at = tree.leaves[model].ends_at if model is not None else None
    measured = [record for record in records if pd.notna(record["stage_id"])]
    if at is not None and len(measured) > 1 and measured[0]["position"] == 0:
        measured = measured[1:]  # the source of such a run is the last stage of the run that it starts from
    for record in measured:
        stage_id = int(record["stage_id"])
        node = tree.nodes.setdefault(stage_id, Node(record, at))
        node.runs.append(run_id)
        if at is not None and node.parent != at and (at, stage_id) not in tree.crossing:
            tree.crossing.append((at, stage_id))
        at = stage_id
    tree.leaves[run_id] = Leaf(records[-1], at)


def _place(tree: Tree) -> None:
    """Give every run a row, and every stage a column and the row of the first run below it."""
    below = _below(tree)
    waiting: list[Node] = []  # stages above the next run
    row = 0
    for item in _in_order(below):
        if isinstance(item, Node):
            item.column = 0 if item.parent is None else tree.nodes[item.parent].column + 1
            waiting.append(item)
            if item.stage["stage_id"] in below:
                continue
        else:
            item.row = row
        for node in waiting:
            node.row = row
        waiting.clear()
        row += 1


def _below(tree: Tree) -> dict[int | None, list[Node | Leaf]]:
    """The runs that end at a stage, then the stages that follow it, oldest first; under None the roots, that of the
    newest run first, and the runs without stages."""
    below: dict[int | None, list[Node | Leaf]] = {}
    for leaf in tree.leaves.values():
        below.setdefault(leaf.ends_at, []).append(leaf)
    for node in sorted(tree.nodes.values(), key=lambda node: node.runs[0]):
        below.setdefault(node.parent, []).append(node)
    alone = [item for item in below.get(None, []) if isinstance(item, Leaf)]
    roots = [item for item in below.get(None, []) if isinstance(item, Node)]
    below[None] = [*sorted(roots, key=lambda node: -node.runs[-1]), *alone[::-1]]
    return below


def _in_order(below: Mapping[int | None, list[Node | Leaf]]) -> Iterator[Node | Leaf]:
    """Every stage before what is below it."""
    stack = below.get(None, [])[::-1]
    while stack:
        item = stack.pop()
        yield item
        if isinstance(item, Node):
            stack += below.get(int(item.stage["stage_id"]), [])[::-1]
