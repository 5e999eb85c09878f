"""Runs the unit tests of what has changed: `python -m tests.changed [REF]`.

Changed is what differs from REF (by default the last commit of main, else the last commit), committed or not.  A test
is run if it has changed, or imports a changed module or another module of its room.  Files that take long are
named, and left to `make unit`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import LONG

ROOT = Path(__file__).parents[1]
CONSUMER, PIPELINE = ROOT / "consumer", ROOT / "pipeline"
ALWAYS = {ROOT / "tests/unit/test_docs.py", ROOT / "tests/unit/test_settings.py"}
"""Quick, and about pages that any change may leave untrue."""
PYTEST = ("-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "not services and not chaos")


def main(arguments: list[str]) -> int:
    changed = changed_files(arguments[0] if arguments else "")
    found = {test for test in (ROOT / "tests/unit").glob("test_*.py") if concerns(test, changed)}
    found |= {path for path in changed if path.match("tests/*/test_*.py") and path.exists()}
    names = sorted(str(test.relative_to(ROOT)) for test in found | ALWAYS)
    long = [name for name in names if name.startswith(LONG) and ROOT / name not in changed]
    if long:
        sys.stdout.write(f"left to `make unit`, as they take long: {' '.join(long)}\n")
    tests = [name for name in names if name not in long]
    sys.stdout.write(f"{len(tests)} test files: {' '.join(tests)}\n")
    sys.stdout.flush()
    return subprocess.run([sys.executable, *PYTEST, *tests], cwd=ROOT, check=False).returncode


def changed_files(since: str) -> set[Path]:
    since = since or _common_ancestor()
    names = _git("diff", "--name-only", since) + _git("ls-files", "--others", "--exclude-standard")
    return {ROOT / name for name in names}


def concerns(test: Path, changed: set[Path]) -> bool:
    """Whether it is one of these, imports one of them, or imports from a room that one of them is in."""
    rooms = {path.parent for path in changed if path.suffix == ".py" and path.parent.parent in (CONSUMER, PIPELINE)}
    return test in changed or any(module in changed or module.parent in rooms for module in _imported(test))


def _imported(test: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(test.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        else:
            continue
        for name in names:
            path = ROOT / name.replace(".", "/")
            yield from (path.with_suffix(".py"), path / "__init__.py")


def _common_ancestor() -> str:
    branches = _git("branch", "--format=%(refname:short)")
    return _git("merge-base", "HEAD", "main")[0] if "main" in branches else "HEAD"


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
