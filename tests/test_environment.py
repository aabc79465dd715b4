"""The Python of a rehearsal: what the grader has is there, all else is not."""

import subprocess
import sys
import textwrap

import pytest

from grader import environment
from tests.conftest import ROOT

FIND = """
import contextlib, importlib.util, sys
for name in sys.argv[1:]:
    with contextlib.suppress(ModuleNotFoundError):  # of the package that should hold it
        if importlib.util.find_spec(name): print(name)
"""


@pytest.fixture
def python(tmp_path, request):
    """python(code, *arguments) -> what it prints in an environment with the packages of the test's parameter."""
    environment.lay_out(tmp_path / "env", sys.executable, getattr(request, "param", ()))

    def go(*code: str) -> subprocess.CompletedProcess:
        return subprocess.run([tmp_path / "env/bin/python", "-c", *code], capture_output=True, text=True, cwd="/")

    return go


def test_what_the_grader_lacks_is_not_there_and_the_rest_is(python):
    hidden = environment.hidden(sys.executable)
    assert {"cv2", "scipy", "sklearn", "PIL", "matplotlib", "pytest"} <= set(hidden)
    there = ["tensorflow", "keras", "numpy", "h5py", "google.protobuf", "rich", "requests", "pasta", "json"]
    assert python(FIND, *hidden, *there).stdout.split() == there
    assert python("import cv2").stderr.endswith("ModuleNotFoundError: No module named 'cv2'\n")
    assert "PackageNotFoundError" in python("import importlib.metadata as m; m.version('scipy')").stderr


@pytest.mark.parametrize("python", [("sklearn",)], indirect=True)
def test_packages_that_are_named_come_with_what_they_require(python):
    names = ["sklearn", "scipy", "joblib", "threadpoolctl", "cv2", "matplotlib"]
    assert python(FIND, *names).stdout.split() == names[:4]
    done = python("import sklearn.linear_model, numpy; print(numpy.__version__)")
    assert done.stdout.strip() == environment.versions(sys.executable)["numpy"], done.stderr


@pytest.mark.slow
def test_tensorflow_and_keras_work_without_their_optional_packages(python):
    code = """
        import keras, numpy as np, tensorflow as tf
        net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()])
        print(net.predict(np.zeros((2, 8, 8, 3)), verbose=0).shape)
        keras.utils.array_to_img(np.zeros((4, 4, 3)))
        """
    done = python(textwrap.dedent(code))
    assert done.stdout.strip() == "(2, 72)" and "requires PIL" in done.stderr.splitlines()[-1]


def fake(name: str, *entries: str, requires: tuple[str, ...] = ()) -> dict:
    return {"name": name, "version": "1", "place": "/nowhere", "entries": list(entries), "requires": list(requires)}


FAKES = [
    fake("protobuf", "google/protobuf", "google/_upb", "protobuf-1.dist-info"),
    fake("google-cloud-storage", "google/cloud", "google_cloud_storage-1.dist-info"),
    fake("six", "six.py", "six-1.dist-info"),
    fake("Never_Heard.Of", "never_heard", "compiled.cpython-311-x86_64-linux-gnu.so", requires=("deep-er>=2; x", "a")),
    fake("deep.er", "deeper.py", requires=("six", "never-heard-of", 'option; extra == "more"')),
    fake("option", "option.py"),
]


def test_any_package_is_hidden_unless_it_is_known_to_be_there(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "look", lambda _: {"version": "3.11.7", "base": "/b", "distributions": FAKES})
    assert environment.hidden("p") == ["compiled", "deeper", "google.cloud", "never_heard", "option"]
    assert environment.hidden("p", ("compiled",)) == ["google.cloud", "option"]
    assert environment.hidden("p", ("google.cloud",)) == ["compiled", "deeper", "never_heard", "option"]
    environment.lay_out(tmp_path / "env", "p")
    site = tmp_path / "env/lib/python3.11/site-packages"
    assert sorted(str(path.relative_to(site)) for path in site.rglob("*") if path.is_symlink()) == [
        "google/_upb", "google/protobuf", "protobuf-1.dist-info", "six-1.dist-info", "six.py"
    ]  # fmt: skip


def test_versions_are_compared_part_by_part():
    same = {"python": "3.11.7", "tensorflow": "2.17.0", "keras": "3.4.1", "numpy": "1.26.4"}
    assert environment.differing(same) == []
    other = {"python": "3.1", "tensorflow": "2.17.01", "keras": "3.4.10", "numpy": None}
    assert environment.differing(other) == list(other)
    assert environment.phrase(other, ["keras", "numpy"]) == "Keras 3.4.10, no numpy"


def test_what_is_no_python_is_refused(tmp_path):
    for path in (tmp_path / "nothing", "/bin/true"):
        with pytest.raises(ValueError, match="is no Python"):
            environment.look(str(path))


def test_the_requirements_are_the_graders_versions():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = [f"{name}=={environment.GRADER_VERSIONS[name]}" for name in ("tensorflow", "keras")]
    assert lines[:3] == [*pinned, "numpy>=1.26,<2"]
    assert [line.split(">")[0] for line in lines[3:5]] == ["opencv-python", "pytest"]
