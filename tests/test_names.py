"""The house's words: no public name is defined twice, and errors below the command line speak no command line."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "dataprep"
ABSTRACTIONS = {"base.py", "__init__.py", "__main__.py"}  # every room has its own


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text("utf-8"))


def test_no_public_class_or_function_is_defined_in_two_modules() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in modules():
        if path.parts[0] == "cli":  # its functions are named as the verbs are typed
            continue
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                places[node.name].append(str(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_module_has_the_name_of_another() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, _ in modules():
        if path.parts[0] != "cli" and path.name not in ABSTRACTIONS:
            places[path.name].append(str(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The literal text of what is raised: line, and the first argument's words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            texts = [
                part.value
                for part in ast.walk(node.exc.args[0])
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            yield node.lineno, "".join(texts)


def test_errors_below_the_command_line_keep_its_options_for_the_hint() -> None:
    speaking = [
        f"{path}:{line}"
        for path, tree in modules()
        if path.parts[0] != "cli"
        for line, text in messages(tree)
        if " --" in f" {text}" or "`dataprep " in text
    ]
    assert speaking == []
