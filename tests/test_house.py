"""The house rules that a machine can hold: direction of imports, documentation, what is packaged, what is said."""

import ast
import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from runners.cli.main import COMMANDS, parser

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "schemas": [],
    "connectors": ["schemas"],
    "stores": ["schemas", "connectors"],
    "transforms": ["schemas"],
    "pipelines": ["schemas", "connectors", "stores", "transforms"],
    "serving": ["schemas", "connectors", "stores", "transforms"],
    "console": ["schemas", "connectors", "stores", "transforms", "pipelines"],
    "runners": ["schemas", "connectors", "stores", "transforms", "pipelines", "serving", "console"],
}  # a folder, and the folders that it may import
LAYERS = list(FLOORS)
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py")) if path.name != "__init__.py"]


def modules(path: Path) -> set[str]:
    """The packages of ours that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.split(".")[0] for name in names}
    return found & {*LAYERS, "tests", "bench", "examples"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_strictly_downward(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    assert modules(path) <= {folder, *FLOORS[folder]}


def test_only_connectors_tell_transports_apart() -> None:
    classes = re.compile(r"\b(FileUri|TopicUri|SubscriptionUri|KafkaUri)\b")
    outside = [path for path in FILES if path.relative_to(ROOT).parts[0] != "connectors"]
    assert [path for path in outside if classes.search(path.read_text())] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the file"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert path.name == "commands.py" or ast.get_docstring(node), node.name


def test_transforms_read_no_clock() -> None:
    """Time enters a transform as a value or as a clock; `time.perf_counter` measures durations only."""
    clocks = {"time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "datetime.now", "datetime.utcnow"}
    for path in sorted((ROOT / "transforms").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        read = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        names = {
            f"{node.module}.{one.name}" for node in nodes if isinstance(node, ast.ImportFrom) for one in node.names
        }
        assert not (read | names) & clocks, path


LARGE_FOLDERS = {"transforms/delivery": 18}  # every step of rebatch, one a file
SPEAKING = ("runners", "console", "pipelines", "stores/local")  # the last is about processes and their signals
SILENT = [path for path in FILES if not str(path.relative_to(ROOT)).startswith(SPEAKING)]
SILENT += [path for path in FILES if path.is_relative_to(ROOT / "pipelines/operations")]


def test_operations_and_the_floors_below_pipelines_print_nothing() -> None:
    assert not [path for path in SILENT if re.search(r"\bprint\(", path.read_text())]


def test_files_and_folders_stay_small() -> None:
    assert not [path for path in FILES if len(path.read_text().splitlines()) > 300]
    for folder, count in Counter(str(path.parent.relative_to(ROOT)) for path in FILES).items():
        assert count <= LARGE_FOLDERS.get(folder, 15), folder


def test_what_a_worker_installs_holds_the_packages_and_their_data(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", f"--egg-base={tmp_path}", "sdist", "--formats=gztar", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    events = {f"schemas/avro/events/order_line/{name}" for name in ("1.avsc", "2.avsc", "type.yaml", "departments.txt")}
    assert events <= names
    assert {"schemas/avro/campaign_event.avsc", "schemas/avro/released/campaign_event/1.avsc", "pipelines/launch/pipeline.py",
            "pipelines/operations/report/page.html", "pipelines/operations/report/page.css", "transforms/audience/evaluate_audience.py"} <= names  # fmt: skip
    assert not [name for name in names if name.startswith(("tests/", "bench/", "examples/"))]
    assert len((ROOT / "setup.py").read_text().splitlines()) <= 12


def test_the_commands_of_the_readme_are_real() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", text, re.MULTILINE)) <= targets
    for line in re.findall(r"^(?:\.venv/bin/)?campaigns (.+?)(?:  #.*)?$", text, re.MULTILINE):
        words = line.replace("…", "x").split()
        assert words[0] in ("launch", "rebatch", "collect") or parser().parse_args(words).command in COMMANDS, line


def test_each_benchmark_says_how_it_is_started_and_is_started_as_a_module() -> None:
    for path in sorted((ROOT / "bench").glob("*.py")):
        if "__main__" in (text := path.read_text()):
            assert f"python -m bench.{path.stem}" in text, path
            assert "sys.executable, __file__" not in text, path
            assert "sys.path.insert" not in text, path


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in link:
                assert (path.parent / link).exists(), (path.name, link)


def test_the_lock_file_names_versions_and_hashes_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index" not in lock
    assert all("==" in line for line in lock.splitlines() if line and not line.startswith((" ", "#")))
