"""The structure of the code, read from its imports: packages, the arrows between them, circles, and sizes.

`python -m tests.layout` prints it as tables, of another checkout with its folder as an argument;
`python -m tests.layout --write` writes the list of packages into docs/architecture.md.
"""

import ast
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("app", "core", "worker")
DOCUMENT = "docs/architecture.md"
BEGIN, END = "<!-- packages: written by python -m tests.layout --write -->\n", "<!-- end of packages -->\n"

Arrows = dict[str, dict[str, set[str]]]  # package -> imported package -> "module imports module"


def modules(root: Path, part: str) -> dict[str, Path]:
    """Files of a part ("core") by the names of their modules."""
    return {_name(file.relative_to(root)): file for file in sorted((root / part).rglob("*.py"))}


def _name(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package(module: str) -> str:
    """What a module belongs to: `core.measure`, `core.errors`, or one page such as `app.screens.run`."""
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[:2] == ["app", "screens"] else 2])


def imported_names(file: Path) -> set[str]:
    """What a file imports, at its top or inside a function: modules, and names in modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(file: Path, known: Mapping[str, Path]) -> set[str]:
    """The known modules that a file imports."""
    return {name if name in known else name.rpartition(".")[0] for name in imported_names(file)} & known.keys()


def arrows(root: Path, part: str) -> Arrows:
    """Which package of a part imports which other one, and where."""
    known = modules(root, part)
    found: Arrows = defaultdict(lambda: defaultdict(set))
    for module, file in known.items():
        for target in imported(file, known):
            if package(target) not in (package(module), part):
                found[package(module)][package(target)].add(f"{module} imports {target}")
    return found


def circles(found: Mapping[str, Mapping[str, object]]) -> list[list[str]]:
    """Groups of packages that import each other, directly or through others."""
    reached = {name: _reached(name, found) for name in found}
    groups = {frozenset({name, *(o for o in reached[name] if name in reached.get(o, ()))}) for name in found}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _reached(name: str, found: Mapping[str, Mapping[str, object]]) -> set[str]:
    seen: set[str] = set()
    ahead = list(found.get(name, ()))
    while ahead:
        current = ahead.pop()
        if current not in seen:
            seen.add(current)
            ahead += found.get(current, ())
    return seen


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """(name, lines without its docstring) of each function of a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
            first = node.body[0]
            documented = ast.get_docstring(node) is not None and first.end_lineno
            docstring = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


def summary(module: str, file: Path) -> str:
    """The first sentence of a module's docstring."""
    return " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\n")[0].split())


def package_list(root: Path) -> str:
    """Every package with its modules and what each is for, as Markdown."""
    lines: list[str] = []
    for part in PARTS:
        lines += [f"### `{part}/`", ""]
        by_folder: dict[str, list[str]] = defaultdict(list)
        known = modules(root, part)
        for module, file in known.items():
            folder = file.parent.relative_to(root).as_posix()
            by_folder[folder] += [] if file.name == "__init__.py" else [module.rpartition(".")[2]]
        for folder, names in sorted(by_folder.items()):
            said = summary(part, root / folder / "__init__.py") if (root / folder / "__init__.py").exists() else ""
            listed = ", ".join(f"`{name}`" for name in names)
            lines.append(f"- **`{folder}/`** {said}{' — ' if said and listed else ''}{listed}")
        lines.append("")
    return "\n".join(lines)


def with_list(text: str, listed: str) -> str:
    """The document with the list between its marks brought up to date."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{listed}\n{END}{after}"


def report(root: Path) -> str:
    """Packages, arrows, circles and sizes as Markdown."""
    rows = ["| part | packages | arrows | in circles | files | file p90 / max | function median / p90 / max |"]
    rows.append("|---|---|---|---|---|---|---|")
    for part in PARTS:
        found, known = arrows(root, part), modules(root, part)
        lengths = sorted(len(file.read_text().splitlines()) for file in known.values())
        bodies = sorted(n for file in known.values() for _, n in functions(file))
        cells = [
            part,
            len({package(module) for module in known} - {part}),
            sum(map(len, found.values())),
            sum(map(len, circles(found))),
            len(known),
            f"{_percentile(lengths, 0.9)} / {lengths[-1]}",
            f"{statistics.median(bodies):g} / {_percentile(bodies, 0.9)} / {bodies[-1]}",
        ]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    told = [f"{part}: {' ↔ '.join(group)}" for part in PARTS for group in circles(arrows(root, part))]
    return "\n".join([*rows, "", *(told or ["No circles."])])


def _percentile(values: list[int], share: float) -> int:
    return values[min(int(share * len(values)), len(values) - 1)]


def main() -> None:
    """Print the report, or write the list of packages."""
    if "--write" in sys.argv:
        document = ROOT / DOCUMENT
        document.write_text(with_list(document.read_text(), package_list(ROOT)))
    else:
        print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))  # noqa: T201


if __name__ == "__main__":
    main()
