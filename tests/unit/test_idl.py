"""The Thrift contracts: nothing that was frozen breaks, and all languages can be made of them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import idl
from tests.unit.idl_kit import breaks, changed, contract

IDL = Path(idl.__file__).parent
BASELINE = IDL / "baseline"
NAMES = sorted(path.name for path in IDL.glob("*.thrift"))
LANGUAGES = ["py", "go", "java", "js", "js:node", "cpp", "php", "rb"]

BEFORE = """\
const string VERSION = "1.0.0"
enum Kind {{ A = 1, B = 2 }}
struct Inner {{ 1: required i64 at }}
struct Thing {{
  1: required string name
  2: optional list<Inner> inner
  3: optional i32 size = 5
  4: optional map<string, list<i64>> many
  {field}
}}
exception Wrong {{ 1: required string em }}
service Things {{
  i64 put(1: Thing thing, 2: Kind kind{argument}) throws (1: Wrong wrong{thrown})
  void drop(1: string name)
  {method}
}}
{type}
"""
EMPTY = dict.fromkeys(("field", "argument", "thrown", "method", "type"), "")


def of(folder: Path, name: str, text: str) -> dict[str, dict[str, str]]:
    path = folder / f"{name}.thrift"
    path.write_text(text)
    return contract(path)


def version(path: Path) -> tuple[int, ...]:
    """1.0.0 for the files that had none."""
    text = contract(path)["constants"].get("VERSION", "'1.0.0'")
    return tuple(int(number) for number in text.strip("'").split("."))


@pytest.mark.parametrize("name", NAMES)
def test_what_was_frozen_goes_on(name: str) -> None:
    if not (BASELINE / name).exists():
        pytest.fail(f"{name} is new: copy it to {BASELINE} when it is frozen")
    assert breaks(contract(BASELINE / name), contract(IDL / name)) == []


def test_nothing_that_was_frozen_is_gone() -> None:
    assert {path.name for path in BASELINE.glob("*.thrift")} <= set(NAMES)


def test_what_differs_has_another_version() -> None:
    old, new = (folder / "soraka.thrift" for folder in (BASELINE, IDL))
    differs = changed(contract(old), contract(new))
    assert (version(new) > version(old)) == differs
    assert version(new)[0] == version(old)[0]


def test_the_readme_tells_of_this_version() -> None:
    readme = (IDL / "README.md").read_text()
    assert f"| {idl.soraka.VERSION} |" in readme


@pytest.mark.skipif(
    not (os.environ.get("CI") or shutil.which("thrift")),
    reason="no compiler: run dev/stack install",
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_official_compiler_takes_it(language: str, tmp_path: Path) -> None:
    command = ["thrift", "-strict", "--gen", language, "-out", str(tmp_path)]
    done = subprocess.run(
        [*command, str(IDL / "soraka.thrift")], capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""
    assert any(tmp_path.iterdir())


@pytest.mark.parametrize("language", [name for name in LANGUAGES if ":" not in name])
def test_every_language_has_a_namespace(language: str) -> None:
    assert f"\nnamespace {language} " in (IDL / "soraka.thrift").read_text()


@pytest.mark.parametrize(
    "more",
    [
        {"field": "5: optional bool more"},
        {"thrown": ", 2: Other other", "type": "exception Other { 1: required string em }"},
        {"method": "void stir(1: Added added)", "type": "struct Added { 1: required i64 at }"},
        {"type": "enum Sort { X = 1 }"},
    ],
)
def test_what_is_added_is_allowed(more: dict[str, str], tmp_path: Path) -> None:
    # types must stand before what uses them
    given = {**EMPTY, **more}
    old = of(tmp_path, "old", BEFORE.format(**EMPTY))
    text = given.pop("type") + "\n" + BEFORE.format(**given, type="")
    new = of(tmp_path, "new", text)
    assert breaks(old, new) == []
    assert changed(old, new)


@pytest.mark.parametrize(
    ("was", "is_", "told"),
    [
        ("2: optional list<Inner> inner", "", "2 (optional list<struct Inner> inner) removed"),
        ("1: required string name\n", "1: required binary other\n", "1 was (required string name)"),
        ("1: required string name\n", "1: required i64 name\n", "is (required i64 name)"),
        ("1: required string name\n", "1: optional string name\n", "is (optional string name)"),
        ("3: optional i32 size = 5", "3: required i32 size = 5", "is (required i32 size = 5)"),
        ("size = 5", "size = 6", "is (optional i32 size = 6)"),
        ("list<Inner> inner", "list<string> inner", "is (optional list<string> inner)"),
        ("list<Inner> inner", "set<Inner> inner", "is (optional set<struct Inner> inner)"),
        ("list<i64>> many", "list<i32>> many", "is (optional map<string, list<i32>> many)"),
        ("A = 1, B = 2", "A = 1", "enum Kind: 2 (B) removed"),
        ("A = 1, B = 2", "A = 1, B = 3", "enum Kind: 2 (B) removed"),
        ("A = 1, B = 2", "A = 2, B = 1", "enum Kind: 1 was (A), is (B)"),
        ("  void drop(1: string name)\n", "", "method Things.drop: removed"),
        (
            "  void drop(1: string name)",
            "  bool drop(1: string name)",
            "answer 0 (optional bool success) added",
        ),
        ("void drop(", "oneway void drop(", "answer was (one), is (none)"),
        ("i64 put(", "i32 put(", "answer 0 was (optional i64"),
        ("throws (1: Wrong wrong)", "", "answer 1 (optional struct Wrong wrong) removed"),
        ("2: Kind kind)", "2: i32 kind)", "argument 2 was (optional i32 Kind kind)"),
        ("2: Kind kind)", "2: Kind kind, 3: i64 more)", "argument 3 (optional i64 more) added"),
        ("  4: optional", "  5: required string need\n  4: optional", "5 (required string need)"),
    ],
)
def test_what_breaks_is_refused(was: str, is_: str, told: str, tmp_path: Path) -> None:
    before = BEFORE.format(**EMPTY)
    assert was in before
    old = of(tmp_path, "old", before)
    new = of(tmp_path, "new", before.replace(was, is_))
    assert any(told in line for line in breaks(old, new)), breaks(old, new)


def test_a_version_and_comments_are_no_change(tmp_path: Path) -> None:
    before = BEFORE.format(**EMPTY)
    old = of(tmp_path, "old", before)
    new = of(
        tmp_path,
        "new",
        before.replace("1.0.0", "1.0.1").replace("struct Inner", "/** x */ struct Inner"),
    )
    assert not changed(old, new)
    assert breaks(old, new) == []


PROTOCOL = (IDL.parent / "docs" / "protocol.md").read_text()
SECTION = PROTOCOL.partition("\n## Thrift, receive")[2].partition("\n## The callback")[0]
METHODS = idl.soraka.Soraka.thrift_services


@pytest.mark.parametrize("struct", ["Submission", "Callback", "MessageInfo", "SubmitResult"])
def test_the_protocol_tells_of_every_field(struct: str) -> None:
    table = SECTION.partition(f"\n| {struct} | type |")[2].partition("\n\n")[0]
    for number, (_, name, *_) in getattr(idl.soraka, struct).thrift_spec.items():
        assert f"{number} `{name}`" in table


@pytest.mark.parametrize("method", METHODS)
def test_the_protocol_tells_of_every_argument_and_exception(method: str) -> None:
    (row,) = [line for line in SECTION.splitlines() if line.startswith(f"| `{method}` |")]
    (like,) = [line for line in SECTION.splitlines() if line.startswith("| `cancel` |")]
    told = row.replace("as `cancel`", like)
    for number, (_, name, *_) in getattr(idl.soraka.Soraka, f"{method}_args").thrift_spec.items():
        assert f"{number} `{name}`" in row
    result = getattr(idl.soraka.Soraka, f"{method}_result").thrift_spec
    for number, (_, _, kind, _) in [item for item in result.items() if item[0]]:
        assert f"{number} {kind.__name__}" in told
