"""What the source never does: run what a file says, unpack an archive, build a shell's line, fetch past the pins."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("rice", "probes", "tracking", "mllm", "reports", "benchmarks")

UNPICKLERS = (
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "joblib.load", "shelve.open"),
    *("marshal.load", "marshal.loads", "cloudpickle.load", "cloudpickle.loads", "pandas.read_pickle"),
)
RUNNERS = ("eval", "exec", "compile", "__import__", "runpy.run_path", "code.interact")
SHELLS = (
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"),
    *("asyncio.create_subprocess_shell",),
)
INTERPRETERS = ("sh", "bash", "dash", "zsh", "env")
FETCHERS = (
    *("huggingface_hub.hf_hub_download", "huggingface_hub.snapshot_download", "urllib.request.urlopen"),
    *(
        "urllib.request.urlretrieve",
        "requests.get",
        "httpx.get",
        "torch.hub.load",
        "torch.hub.load_state_dict_from_url",
    ),
)
ARCHIVES = ("tarfile.open", "tarfile.TarFile", "zipfile.ZipFile", "shutil.unpack_archive", "lzma.open", "bz2.open")
XML = ("xml.etree.ElementTree.parse", "xml.etree.ElementTree.fromstring", "xml.etree.ElementTree.XML")
MARKUP = ("markupsafe.Markup", "jinja2.Template")
YAML = ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load")
PICTURES = ("PIL.Image.open",)
RULES = {
    "unpickle": UNPICKLERS, "run": RUNNERS, "shell": SHELLS, "fetch": FETCHERS, "archive": ARCHIVES, "xml": XML,
    "markup": MARKUP, "yaml": YAML, "picture": PICTURES,
}  # fmt: skip

ALLOWED = {
    ("mllm/lisa/pickles.py", "unpickle"): "a class of its own, which refuses every name; opcodes are looked at before",
    ("rice/curate/ray_engine.py", "unpickle"): "what the same command pickled for its own workers, never a file",
    ("rice/curate/tars.py", "archive"): "read member by member, headers and growth within limits; nothing is unpacked",
    ("rice/data/shards.py", "archive"): "written, mode w",
    ("tracking/submit.py", "archive"): "written, mode w",
    ("probes/sweeps/lifeline.py", "shell"): "a constant without any input",
    ("probes/yaml_files.py", "yaml"): "a SafeLoader",
    ("mllm/llava/benchmarks.py", "yaml"): "a SafeLoader, which reads !function as a text",
    ("rice/data/picture.py", "picture"): "the one place, with the formats and the pixels that are allowed",
    ("rice/encoders/hub.py", "fetch"): "the one place, at the pinned revision",
    ("mllm/llava/model_id.py", "fetch"): "whole models, at the pinned revision",
    ("rice/page/single.py", "markup"): "constants, and JSON in which no character ends its element",
    ("reports/page/build.py", "markup"): "tables, whose writer escapes every text",
    ("probes/visual/tsne/page.py", "markup"): "hashes of scripts",
    **{(f"benchmarks/{name}.py", "picture"): "measures Pillow itself" for name in ("curate", "kmeans", "loader")},
}
"""(file, rule) -> why. Each is in use: one that is not any more makes the test fail."""


class Found(NamedTuple):
    file: str
    rule: str
    line: int


def names_of(tree: ast.AST) -> dict[str, str]:
    """What a module's local names stand for: np -> numpy, urlopen -> urllib.request.urlopen."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    head = names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"
    return ".".join([head, *reversed(parts)])


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def broken(call: ast.Call, name: str) -> Iterator[str]:
    """The rules that a call breaks by what it is given."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    last = name.rpartition(".")[2]
    if name in ("torch.load", "torch.serialization.load"):
        strict = given.get("weights_only")
        if not (isinstance(strict, ast.Constant) and strict.value is True):
            yield "unpickle"
    if "allow_pickle" in given and name.startswith("numpy.") and not is_false(given["allow_pickle"]):
        yield "unpickle"
    if "shell" in given and not is_false(given["shell"]):
        yield "shell"
    if name.startswith("subprocess.") and call.args:
        words = call.args[0]
        if isinstance(words, (ast.Constant, ast.JoinedStr)):
            yield "shell"
        first = words.elts[0] if isinstance(words, ast.List) and words.elts else None
        if isinstance(first, ast.Constant) and str(first.value).rpartition("/")[2] in INTERPRETERS:
            yield "shell"
    if "trust_remote_code" in given and not is_false(given["trust_remote_code"]):
        yield "run"
    if last == "from_pretrained" and ".Auto" in f".{name}" and "trust_remote_code" not in given:
        yield "run"  # transformers would ask the user, who may say yes
    if last in ("extractall", "extract") and not name.startswith(("self.", "rice.")):
        yield "archive"
    if last in ("ClientHTTPResponse", "urlretrieve"):
        yield "fetch"


def findings(source: str, file: str = "x.py") -> list[Found]:
    tree = ast.parse(source)
    names = names_of(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found += [Found(file, "unpickle", node.lineno) for b in node.bases if dotted(b, names) in UNPICKLERS]
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func, names)
        found += [Found(file, rule, node.lineno) for rule, calls in RULES.items() if name in calls]
        found += [Found(file, rule, node.lineno) for rule in broken(node, name)]
    return found


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("import pickle\npickle.load(f)", "unpickle"),
        ("from pickle import loads as l\nl(b'')", "unpickle"),
        ("import pickle\nclass U(pickle.Unpickler): pass", "unpickle"),
        ("import torch\ntorch.load(p)", "unpickle"),
        ("import torch\ntorch.load(p, weights_only=False)", "unpickle"),
        ("import numpy as np\nnp.load(p, allow_pickle=True)", "unpickle"),
        ("eval(text)", "run"),
        ("from transformers import AutoModel\nAutoModel.from_pretrained(n)", "run"),
        ("import transformers\ntransformers.AutoModel.from_pretrained(n, trust_remote_code=trust)", "run"),
        ("import os\nos.system('ls')", "shell"),
        ("import subprocess\nsubprocess.run(f'ls {x}')", "shell"),
        ("import subprocess\nsubprocess.run(words, shell=True)", "shell"),
        ("import subprocess\nsubprocess.Popen(['bash', '-c', text])", "shell"),
        ("import tarfile\ntarfile.open(p)", "archive"),
        ("archive.extractall(folder)", "archive"),
        ("from zipfile import ZipFile\nZipFile(p)", "archive"),
        ("import yaml\nyaml.load(f, yaml.Loader)", "yaml"),
        ("from PIL import Image\nImage.open(p)", "picture"),
        ("from huggingface_hub import snapshot_download\nsnapshot_download(n)", "fetch"),
        ("import urllib.request\nurllib.request.urlopen(u)", "fetch"),
        ("from markupsafe import Markup\nMarkup(text)", "markup"),
        ("from xml.etree import ElementTree\nElementTree.parse(p)", "xml"),
    ],
)
def test_the_search_finds_each_kind(line: str, rule: str) -> None:
    assert [one.rule for one in findings(line)] == [rule]


@pytest.mark.parametrize(
    "line",
    [
        "import torch\ntorch.load(p, weights_only=True)",
        "import numpy as np\nnp.load(p, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['git', 'describe', name])",
        "from transformers import AutoModel\nAutoModel.from_pretrained(n, trust_remote_code=False)",
        "module.eval()",
    ],
)
def test_the_search_passes_what_is_sound(line: str) -> None:
    assert findings(line) == []


def test_no_file_runs_unpacks_or_fetches_what_input_says() -> None:
    found = [
        one
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for one in findings(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert [one for one in found if (one.file, one.rule) not in ALLOWED] == []
    assert ALLOWED.keys() - {(one.file, one.rule) for one in found} == set()


def test_every_loader_of_yaml_is_a_safe_one() -> None:
    import yaml

    from mllm.llava.benchmarks import _Loader
    from probes.yaml_files import _StrictLoader

    assert issubclass(_Loader, yaml.SafeLoader)
    assert issubclass(_StrictLoader, yaml.SafeLoader)


def test_no_template_marks_a_text_as_safe_but_what_plotly_wrote() -> None:
    files = [*ROOT.glob("*/**/template/*.j2"), ROOT / "probes/visual/tsne/page.py"]
    assert len(files) > 4
    marked = {path.relative_to(ROOT).as_posix() for path in files if "| safe" in path.read_text(encoding="utf-8")}
    assert marked == {"probes/visual/tsne/page.py"}


def test_every_page_stands_under_the_one_policy() -> None:
    pages = [path for path in ROOT.glob("*/**/template/*.j2") if "<html" in path.read_text(encoding="utf-8")]
    assert len(pages) >= 4
    line = '<meta http-equiv="Content-Security-Policy" content="{{ policy }}">'
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.index(line) < text.index("<title>"), page
    assert "unsafe" not in (ROOT / "rice/page/single.py").read_text(encoding="utf-8")


def test_no_script_of_a_page_builds_markup_or_runs_a_text() -> None:
    scripts = [path for package in PACKAGES for path in (ROOT / package).rglob("*.js")]
    assert len(scripts) > 10
    unsafe = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc")
    found = [f"{path.name}: {word}" for path in scripts for word in unsafe if word in path.read_text(encoding="utf-8")]
    assert found == []
