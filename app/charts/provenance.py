"""The provenance tree of stages and runs. A click on a stage or on a run's row selects the run."""

from typing import Any

import altair as alt
import pandas as pd

from app.charts.provenance_tree import Leaf, Node, Tree
from app.charts.theme import BAD, FAMILY_COLOURS, FAMILY_SHAPES, GOOD, NEUTRAL
from app.charts.unchecked import Unchecked
from app.text import formats

STAGE, RUN = "stage", "run"  # the selections; both hold run_id
ROW, LEGEND = 30, 80  # pixels
INK = {"light": "#31333F", "dark": "#E6E9EF"}  # of names, by the page's ground
TURN = 0.12  # of a column: how far before the next stage a line bends
TEACHING = FAMILY_COLOURS["distillation"]
STATUS_COLOURS = {"done": GOOD, "failed": BAD, "running": "#0072B2", "queued": NEUTRAL, "cancelled": "#E69F00"}
NARROWEST = 110  # pixels per column, if there are too many for the width of the page


def draw_provenance(tree: Tree, asked: tuple[int, ...] = (), ground: str = "light") -> alt.LayerChart:
    """The chart, for a "light" or "dark" background; the runs in `asked` are bold."""
    canvas = _Canvas(tree, INK[ground])
    rooms = tree.rooms()
    nodes = pd.DataFrame([_stage(node, rooms[number]) for number, node in tree.nodes.items()])
    leaves = pd.DataFrame([_run(leaf, tree, leaf.run["run_id"] in asked) for leaf in tree.leaves.values()])
    layers = [
        _lines(_edges(tree, canvas.end), canvas),
        *_taught(tree, canvas),
        *([] if nodes.empty else _stages(nodes, canvas)),
        *_runs(leaves, canvas),
    ]
    return Unchecked(
        layer=layers,
        height=ROW * len(leaves) + LEGEND,
        width="container" if canvas.fits else int(canvas.width * NARROWEST),
        usermeta={"embedOptions": {"renderer": "canvas"}},
    ).configure_view(strokeWidth=0)


class _Canvas:
    """Positions: columns of stages, then the runs' names, scores and sizes."""

    def __init__(self, tree: Tree, ink: str):
        self.ink = ink
        self.end = tree.n_columns  # column of the runs
        self.words = max(1.3, 0.45 * self.end)
        self.width = self.end + self.words
        self.fits = self.width <= 14
        self.n_rows = len(tree.leaves)

    def x(self, name: str = "x") -> alt.X:
        return alt.X(f"{name}:Q", scale=alt.Scale(domain=[-0.1, self.width], nice=False, zero=False), axis=None)

    def y(self, name: str = "y") -> alt.Y:
        scale = alt.Scale(domain=[-0.6, self.n_rows - 0.4], nice=False, zero=False, reverse=True)
        return alt.Y(f"{name}:Q", scale=scale, axis=None)

    def limit(self, columns: float | str) -> alt.ExprRef:
        """The width of so many columns (or of an expression) in pixels, at any screen width."""
        return alt.ExprRef(f"{columns} / {self.width + 0.1:.4f} * width")


def _stage(node: Node, room: int) -> dict[str, Any]:
    stage = node.stage
    return {
        "x": node.column,
        "y": node.row,
        "run_id": node.runs[0],
        "family": stage["family"],
        "label": stage["label"],
        "room": room - 2 * TURN,
        "shared": f"{len(node.runs)} runs" if len(node.runs) > 1 else "",
        "Stage": stage["label"],
        "Runs": _listed(node.runs),
        **_measured(stage),
    }


def _run(leaf: Leaf, tree: Tree, asked: bool) -> dict[str, Any]:
    run = leaf.run
    node = None if leaf.ends_at is None else tree.nodes[leaf.ends_at]
    status = str(run["run_status"])
    title = run["run_name"] or run["run_recipe"]
    clone = f" (clone of {int(run['run_cloned_from_id'])})" if pd.notna(run["run_cloned_from_id"]) else ""
    results = _measured(run) if pd.notna(run["stage_id"]) else _measured(None)
    return {
        "x": tree.n_columns,
        "y": leaf.row,
        "row_top": leaf.row - 0.46,
        "row_end": leaf.row + 0.46,
        "run_id": run["run_id"],
        "colour": STATUS_COLOURS[status],
        "asked": asked,
        "label": f"{run['run_id']} · {title}{clone}" + ("" if status == "done" else f", {status}"),
        "Run": f"{run['run_id']} · {title}",
        "Status": status,
        "Recipe": run["run_recipe"],
        "Made from": _origin(leaf),
        "Last stage": formats.NOTHING if node is None else node.stage["label"],
        **results,
    }


def _measured(stage: Any) -> dict[str, str]:
    """A stage's score and size as text."""
    if stage is None:
        return {"Score": formats.NOTHING, "Size": formats.NOTHING, "short_score": "", "short_size": ""}
    unit, size = stage["score_unit"], formats.size(stage["size_bytes"])
    if not stage["trained"]:
        return {"Score": "untrained", "Size": size, "short_score": "", "short_size": size}
    low, high = (formats.score(stage[end], unit) for end in ("score_low", "score_high"))
    score = formats.score(stage["score"], unit)
    return {
        "Score": f"{stage['score_name']} {score}  (95 %: {low} to {high})",
        "Size": size,
        "short_score": score,
        "short_size": size,
    }


def _origin(leaf: Leaf) -> str:
    """What a run was made from, and whether it was cloned or imported."""
    run = leaf.run
    origins = [f"{role}: run {number}" for role, number in sorted(leaf.made_from)]
    if not any(role == "model" for role, _ in leaf.made_from):
        origins.insert(0, str(run["run_model"]))
    if pd.notna(run["run_cloned_from_id"]):
        origins.append(f"clone of run {int(run['run_cloned_from_id'])}")
    if "worker" in (run["run_environment"] or {}):
        origins.append("imported")
    return ", ".join(origins)


def _listed(runs: list[int]) -> str:
    return ", ".join(map(str, runs[:12])) + (" …" if len(runs) > 12 else "")


def _edges(tree: Tree, end: int) -> pd.DataFrame:
    """The points of each line: from a stage to the next one, and from the last one to its run."""
    lines = [(tree.nodes[node.parent], node, len(node.runs)) for node in tree.nodes.values() if node.parent is not None]
    lines += [(tree.nodes[first], tree.nodes[second], 1) for first, second in tree.crossing]
    drawn = [
        _turned((start.column, start.row), (stop.column, stop.row), stop.column, n_runs)
        for start, stop, n_runs in lines
    ]
    for leaf in tree.leaves.values():
        if leaf.ends_at is not None:
            node = tree.nodes[leaf.ends_at]
            drawn.append(_turned((node.column, node.row), (end, leaf.row), node.column + 1, 0))
    rows = [
        {"line": number, "order": order, "x": x, "y": y, "n_runs": n_runs}
        for number, (places, n_runs) in enumerate(drawn)
        for order, (x, y) in enumerate(places)
    ]
    return pd.DataFrame(rows, columns=["line", "order", "x", "y", "n_runs"])


def _turned(
    start: tuple[float, float], stop: tuple[float, float], next_column: float, n_runs: int
) -> tuple[list[tuple[float, float]], int]:
    """A line along the row, down just before the next column, and on along the new row."""
    if start[1] == stop[1]:
        return [start, stop], n_runs
    turn = next_column - TURN
    return [start, (turn, start[1]), (turn, stop[1]), stop], n_runs


def _lines(edges: pd.DataFrame, canvas: _Canvas) -> alt.Chart:
    width = alt.Size("n_runs:Q", scale=alt.Scale(type="sqrt", domain=[0, 20], range=[1, 7], clamp=True), legend=None)
    return (
        alt.Chart(edges)
        .mark_line(color=NEUTRAL, opacity=0.55, strokeJoin="round")
        .encode(x=canvas.x(), y=canvas.y(), detail="line:N", order="order:Q", strokeWidth=width)
    )


def _taught(tree: Tree, canvas: _Canvas) -> list[alt.Chart]:
    """Dashed lines from a teacher's last stage to the stage trained with it."""
    rows = []
    for number, (teacher, pupil, position) in enumerate(tree.taught):
        start, stop = _last(tree, teacher), _place_of(tree, pupil, position)
        if start is None or stop is None:
            continue
        middle = (max(start[0], stop[0]) - TURN / 2, (start[1] + stop[1]) / 2)
        places = enumerate((start, middle, stop))
        rows += [{"line": number, "order": order, "x": x, "y": y} for order, (x, y) in places]
    if not rows:
        return []
    mark = alt.Chart(pd.DataFrame(rows)).mark_line(
        color=TEACHING, strokeDash=[5, 4], strokeWidth=2, interpolate="monotone", opacity=0.9
    )
    return [mark.encode(x=canvas.x(), y=canvas.y(), detail="line:N", order="order:Q")]


def _last(tree: Tree, run_id: int) -> tuple[float, float] | None:
    at = tree.leaves[run_id].ends_at
    return None if at is None else (tree.nodes[at].column, tree.nodes[at].row)


def _place_of(tree: Tree, run_id: int, position: int) -> tuple[float, float] | None:
    """The position of a run's stage; of the run itself if it has not reached that stage."""
    for node in tree.nodes.values():
        if run_id in node.runs and node.stage["position"] == position:
            return node.column, node.row
    return tree.n_columns, tree.leaves[run_id].row


def _stages(nodes: pd.DataFrame, canvas: _Canvas) -> list[alt.Chart]:
    families = [name for name in FAMILY_COLOURS if name in set(nodes["family"])]
    legend = alt.Legend(orient="top", columns=6, symbolSize=110)
    colours = alt.Scale(domain=families, range=[FAMILY_COLOURS[name] for name in families])
    shapes = alt.Scale(domain=families, range=[FAMILY_SHAPES[name] for name in families])
    place = {"x": canvas.x(), "y": canvas.y()}
    base = alt.Chart(nodes)
    marks = base.mark_point(filled=True, size=130, opacity=1, cursor="pointer").encode(
        **place,
        color=alt.Color("family:N", scale=colours, title="Stage", legend=legend),
        shape=alt.Shape("family:N", scale=shapes, title="Stage", legend=legend),
        tooltip=["Stage:N", "Score:N", "Size:N", "Runs:N"],
    )
    limit = canvas.limit("datum.room")
    words = base.mark_text(align="left", baseline="bottom", dx=8, dy=-2, limit=limit, color=canvas.ink)
    shared = base.mark_text(align="left", baseline="top", dx=8, dy=4, limit=limit, fontSize=10, color=NEUTRAL)
    return [
        marks.add_params(alt.selection_point(name=STAGE, fields=["run_id"], on="click")),
        words.encode(**place, text="label:N"),
        shared.encode(**place, text="shared:N"),
    ]


def _runs(leaves: pd.DataFrame, canvas: _Canvas) -> list[alt.Chart]:
    """Each run's name, score and size; the whole row is clickable."""
    base = alt.Chart(leaves)
    place = {"x": canvas.x(), "y": canvas.y()}
    marks = base.mark_point(filled=True, shape="circle", size=90, opacity=1).encode(
        **place, fill=alt.Fill("colour:N", scale=None)
    )
    layers = [marks]
    named: dict[str, Any] = {
        "align": "left",
        "baseline": "middle",
        "dx": 10,
        "limit": canvas.limit(0.55 * canvas.words),
    }
    plain = base.transform_filter(~alt.datum.asked).mark_text(**named, color=canvas.ink)
    bold = base.transform_filter(alt.datum.asked).mark_text(**named, color=canvas.ink, fontWeight="bold")
    layers += [words.encode(**place, text="label:N") for words in (plain, bold)]
    for name, at in (("short_score", 0.8), ("short_size", 1.0)):
        numbers = base.transform_calculate(end=str(canvas.end + at * canvas.words)).mark_text(
            align="right", baseline="middle", limit=canvas.limit(0.2 * canvas.words), color=canvas.ink
        )
        layers.append(numbers.encode(x=canvas.x("end"), y=canvas.y(), text=f"{name}:N"))
    bars = base.transform_calculate(start=str(canvas.end - 0.05), end=str(canvas.width))
    clicked = bars.mark_rect(opacity=0.001, cursor="pointer").encode(
        x=canvas.x("start"),
        x2="end:Q",
        y=canvas.y("row_top"),
        y2="row_end:Q",
        tooltip=["Run:N", "Status:N", "Made from:N", "Recipe:N", "Last stage:N", "Score:N", "Size:N"],
    )
    return [*layers, clicked.add_params(alt.selection_point(name=RUN, fields=["run_id"], on="click"))]
