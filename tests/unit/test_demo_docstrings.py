import ast
import re
import sys
from pathlib import Path

import pytest

from tessera.demo import docstrings
from tessera.errors import UserError

LIBRARIES = ["numpy", "scipy", "pandas", "sklearn", "matplotlib", "torch", "transformers", "networkx"]


def module(*paragraphs: str) -> str:
    """Source whose functions carry the paragraphs as docstrings, and whose import fails."""
    functions = [f"def f{number}():\n    {text!r}\n" for number, text in enumerate(paragraphs)]
    return "\n".join([*functions, "raise RuntimeError('imported')\n"])


def sentences(word: str, count: int) -> list[str]:
    return [f"Return the {word} that belongs to case number {number}." for number in range(count)]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages, `alphalib` and `betalib`, that share one paragraph."""
    for name, word in (("alphalib", "apple"), ("betalib", "pear")):
        (tmp_path / name / "tests").mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text(module(*sentences(word, 12)))
        (tmp_path / name / "deep.py").write_text(module("A paragraph that both of the libraries have."))
        (tmp_path / name / "tests/test_it.py").write_text(module("This is about a test and not about the library."))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_libraries_are_read_without_being_imported(packages: Path) -> None:
    found = docstrings.paragraphs(["alphalib", "betalib"], limit=100, seed=1)
    assert sorted(found["alphalib"]) == sorted(sentences("apple", 12))
    assert "alphalib" not in sys.modules


def test_a_text_found_in_two_libraries_is_in_neither(packages: Path) -> None:
    found = docstrings.paragraphs(["alphalib", "betalib"], limit=100, seed=1)
    assert not any("both of the libraries" in text for texts in found.values() for text in texts)
    alone = docstrings.paragraphs(["alphalib"], limit=100, seed=1)
    assert any("both of the libraries" in text for text in alone["alphalib"])


def test_copies_that_differ_in_case_and_punctuation_are_one_text(packages: Path) -> None:
    (packages / "alphalib/again.py").write_text(module("return the APPLE, that belongs to case -- number 3"))
    found = docstrings.paragraphs(["alphalib"], limit=100, seed=1)["alphalib"]
    assert sum("number 3" in text for text in found) == 1


def test_the_order_depends_on_the_seed_alone(packages: Path) -> None:
    read = [docstrings.paragraphs(["alphalib"], limit=100, seed=seed)["alphalib"] for seed in (1, 1, 2)]
    assert read[0] == read[1]
    assert read[0] != read[2]
    assert sorted(read[0]) == sorted(read[2])


def test_reading_stops_once_there_is_enough(packages: Path) -> None:
    for number in range(20):
        (packages / f"alphalib/more{number}.py").write_text(module(*sentences(f"plum of tree {number},", 5)))
    assert len(docstrings.paragraphs(["alphalib"], limit=30, seed=1)["alphalib"]) < 30 + 12


def test_a_file_that_is_no_python_is_left_out_and_logged(packages: Path, caplog: pytest.LogCaptureFixture) -> None:
    (packages / "alphalib/template.py").write_text("class {{ name }}: pass")
    with caplog.at_level("INFO", logger="tessera"):
        assert len(docstrings.paragraphs(["alphalib"], limit=100, seed=1)["alphalib"]) == 13
    assert "template.py is not Python" in caplog.text


def test_docstrings_are_found_wherever_a_statement_can_hold_one() -> None:
    source = '''
"""module"""
if True:
    class A:
        """class"""
        async def method(self):
            """method"""
else:
    try:
        def tried():
            """tried"""
    except ValueError:
        def caught():
            """caught"""
    finally:
        with open("x") as y:
            def inside():
                """inside"""
match 1:
    case 1:
        def matched():
            """matched"""
'''
    tree = ast.parse(source)
    every = {
        ast.get_docstring(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {ast.get_docstring(node) for node in docstrings._documented(tree)} == every
    assert len(every) == 7


@pytest.mark.parametrize(
    ("docstring", "paragraph"),
    [
        ("One line\nand another.\n\nMore.", "One line and another."),
        ("   \n", ""),
        (">>> code()\n1", ""),
        (".. deprecated:: 1.0\n   Gone.", ""),
        ("======  ====\nname    rank\n", ""),
        ("`kind` of thing", "`kind` of thing"),
    ],
)
def test_the_first_paragraph_is_prose_on_one_line(docstring: str, paragraph: str) -> None:
    assert docstrings.first_paragraph(docstring) == paragraph


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("A NumPy array, see numpy.ndarray", "A LIB array, see LIB.ndarray"),
        ("np.float64 and Np, not npy or input", "LIB.float64 and LIB, not npy or input"),
        ("uses scikit-learn, Scikit Learn, SKLEARN and sklearn_tags", "uses LIB, LIB, LIB and LIB_tags"),
        ("TorchScript of PyTorch (is_torch_available)", "LIBScript of LIB (is_LIB_available)"),
        ("import networkx as nx; nx.Graph", "import LIB as LIB; LIB.Graph"),
        ("a transformer among Transformers", "a transformer among LIB"),
        ("pd.DataFrame, plt.plot, pyplot and Hugging Face", "LIB.DataFrame, LIB.plot, LIB and LIB"),
        ("updated, explains, complete", "updated, explains, complete"),
    ],
)
def test_names_and_aliases_are_masked_wherever_they_stand(text: str, masked: str) -> None:
    assert docstrings.masker(LIBRARIES).sub(docstrings.MASK, text) == masked


def test_no_name_of_any_library_is_left_in_real_texts() -> None:
    libraries = ["networkx", "sklearn"]
    task, prose = docstrings.collect(libraries, per_library=150, seed=3, prose=300)
    assert [sum(row["label"] == library for row in task) for library in libraries] == [150, 150]
    texts = [row["text"] for row in task] + prose
    for text in texts:
        assert not re.search(r"networkx|sklearn|scikit|\bnx\b", text, re.IGNORECASE), text
        assert len(text) <= docstrings.LONGEST + 10 * len(docstrings.MASK)
    assert sum(docstrings.MASK in text for text in texts) > 10
    assert len({docstrings.normalised(text) for text in texts}) == len(texts) == 600


def test_the_task_and_the_prose_share_no_text(packages: Path) -> None:
    task, prose = docstrings.collect(["alphalib", "betalib"], per_library=5, seed=1, prose=8)
    assert len(task) == 10
    assert len(prose) == 8
    assert len({row["id"] for row in task}) == 10
    assert not {row["text"] for row in task} & set(prose)


def test_too_few_paragraphs_are_told_with_their_number(packages: Path) -> None:
    with pytest.raises(UserError, match=r"demo\.docstrings\.per_library: alphalib has 12 usable .*13 are asked for"):
        docstrings.collect(["alphalib", "betalib"], per_library=13, seed=1)


@pytest.mark.parametrize("name", ["no_such_library", "os.path", "scikit-learn", ""])
def test_what_is_no_installed_package_is_a_user_error(name: str) -> None:
    with pytest.raises(UserError, match=r"demo\.docstrings\.libraries: .*not an installed package"):
        docstrings.paragraphs([name], limit=10, seed=1)


def test_versions_name_what_the_texts_depend_on(packages: Path) -> None:
    from importlib.metadata import version  # noqa: PLC0415 - beside what it checks

    assert docstrings.versions(["sklearn", "alphalib"]) == {"sklearn": version("scikit-learn"), "alphalib": None}
