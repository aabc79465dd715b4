"""Static checks: each fault with its code, each fault's near-twin without it, and a thousand broken zips."""

import gzip
import io
import json
import os
import re
import resource
import subprocess
import sys
import zipfile
from collections import Counter
from fnmatch import fnmatch
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import build_submission
from grader import checks, keras_files, registry, verdict, worker
from grader.checks import check_zip
from grader.codes import CODES, refused
from tests.submissions import GOOD, hdf5, keras_file, layer, make_zip, model, npy, submission, whole_h5

ROOT = Path(__file__).resolve().parent.parent
HERE = "os.path.join(os.path.dirname(os.path.abspath(__file__)), {!r})"
LOADS = "import keras, os"


def loads(name: str, more: str = "") -> str:
    """A model.py that loads a .keras file of the zip in the right way."""
    return model(init=f"self.net = keras.saving.load_model({HERE.format(name)}{more})", top=LOADS)


def raw(*changes, files=GOOD, name="s.zip", **options):
    """A builder of a zip whose bytes `changes` ((old, new), ...) replace everywhere."""

    def build(folder: Path) -> Path:
        path = make_zip(folder / name, files, **options)
        data = path.read_bytes()
        for old, new in changes:
            assert old in data
            data = data.replace(old, new)
        path.write_bytes(data)
        return path

    return build


def entries(*infos):
    """A builder of a zip from (ZipInfo or name, contents), after model.py; nothing is cleaned on the way."""

    def build(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "s.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for info, contents in [("model.py", GOOD), *infos]:
                file.writestr(info, contents)
        return folder / "s.zip"

    return build


def info(name: str, mode: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr, made.create_system = mode << 16, 3
    return made


def truncated(share: float):
    def build(folder: Path) -> Path:
        path = make_zip(folder / "s.zip", GOOD)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        return path

    return build


DEFLATE, DEFLATE64, FLAGS = b"\x00\x00\x08\x00", b"\x00\x00\x09\x00", b"\x14\x00\x01\x00"
ENCRYPTED = [(b"\x14\x00\x00\x00\x08\x00", FLAGS + b"\x08\x00")]
WEIGHTS = {"weights/model.weights.h5": hdf5()}
MANIFEST = {"weights/manifest.json": json.dumps({"sha256": sha256(hdf5()).hexdigest()})}
SAVED, LOSS = keras_file(), {"loss": {"module": "builtins", "class_name": "function", "config": "my_loss"}}
CUSTOM = layer("Spotlight", None, "Blood>Spotlight")
TWO_METHODS = model("return self.scale(X, factor=2)[:, 0]") + "\n    def scale(self, X, {}=1):\n        return X\n"
CROP = "def crop(X, size):\n    return X"
TOOLS = model(top="import tools")
TRAINING = (
    "\ndef train(path):\n    import cv2\n    return cv2.imread('cells.png') + undefined\n"
    "\nif __name__ == '__main__':\n    train(np.load('training_set.npz'), twice=True)\n"
)
PATHLIB = "from pathlib import Path"

PLAIN = "import keras, os\nclass Plain(keras.layers.Layer): pass"
PLAIN_FILE = keras_file(layer("Plain", None, "Plain"))
PASSED = ", custom_objects={'Plain': Plain}"
BLOOD = "import keras, os\n@keras.saving.register_keras_serializable({!r})\nclass Spotlight(keras.layers.Layer): pass"
READS = "import pickle, os"
UNPICKLES = f"with open({HERE.format('c.pkl')}, 'rb') as f:\n    self.c = pickle.load(f)"
PICKLE = b"\x80\x04\x8c\x0bsklearn.svm\x94\x8c\x03SVC\x94\x93\x94."


def reads(name: str, data: bytes) -> dict:
    """A zip whose model.py gives a file to `load`."""
    return {"model.py": model(init=UNPICKLES.replace("c.pkl", name), top=READS), name: data}


def objects(module: bytes) -> bytes:
    """A .npy file of one object of a module."""
    file = io.BytesIO()
    np.save(file, np.array([None]), allow_pickle=True)
    return file.getvalue()[:128] + PICKLE.replace(b"\x0bsklearn.svm", bytes([len(module)]) + module)


def npz(array: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", array)
    return file.getvalue()


def stored(source: str, **files) -> dict:
    """A zip of model.py that loads n.keras, after these lines, with `files` under their names with _ for a dot."""
    return {"model.py": source, **{name.replace("_", "."): data for name, data in files.items()}}


def tops(top: str, more: str = "") -> str:
    return loads("n.keras", more).replace(LOADS, top)


def named_h5(*attributes: str) -> bytes:
    """An .h5 file of weights as Keras 3 writes them; with the attribute layer_names, as Keras 2 does."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("layers")
        for name in attributes:
            file.attrs[name] = ["conv"]
    return buffer.getvalue()


LOADS_WEIGHTS = loads("{}").replace("saving.load_model", "Sequential().load_weights")
ZIPS = f"import zipfile\n{PATHLIB}"
TF = f"import os, keras\nimport tensorflow as tf\n{PATHLIB}"
READS_OR = f"w = {HERE.format('w.npy')}\nif os.path.exists(w):\n    np.load(w)\nelse:\n    {{}}"
USES_CV2 = "def crop(X):\n    import cv2\n    return cv2.resize(X, (9, 9))\n"
GROW = "def grow(X):\n    return X\n"
NET = GOOD.replace("class Model", "class Net")
SCALER = "import os, pickle\nclass Scaler:\n    def transform(self, X):\n        return X - self.mean\n"
MAIN = PICKLE.replace(b"\x0bsklearn.svm", b"\x08__main__")
RUN = "class Base:\n    def run(self, X):\n        return self.label(X, 2)\n    def label(self, X):\n        return X\n"
SIZE = "SIZE = None\ndef load():\n    {}\n    if SIZE is None:\n        SIZE = 96"
TRAINER = "class Trainer:\n    def __init__(self):\n        import matplotlib"


# Kinds of weights and names: (code, faulty, twin)
KINDS = [
    ("KER01", stored(loads("n.keras"), n_keras=keras_file(version="2.15.0")), stored(loads("n.keras"), n_keras=SAVED)),
    ("KER02", stored(tops(PLAIN), n_keras=PLAIN_FILE), stored(tops(PLAIN, PASSED), n_keras=PLAIN_FILE)),
    (
        "KER02",
        stored(tops(PLAIN + "\n# custom_objects={'Plain': Plain}"), n_keras=PLAIN_FILE),
        stored(tops(PLAIN.replace("Plain", "PlainLayer"), ", {'Plain': PlainLayer}"), n_keras=PLAIN_FILE),
    ),
    ("KER02", stored(tops(BLOOD.format("Cells")), n_keras=keras_file(CUSTOM)),
     stored(tops(BLOOD.format("Blood")), n_keras=keras_file(CUSTOM))),
    ("KER02", stored(loads("n.keras"), n_keras=keras_file(CUSTOM), train_py=BLOOD.format("Blood")),
     stored(tops(LOADS + "\nimport train"), n_keras=keras_file(CUSTOM), train_py=BLOOD.format("Blood"))),
    ("KER02", stored(tops(PLAIN), n_keras=keras_file(layer("Plain", "__main__", "Plain"))),
     stored(tops(PLAIN), n_keras=keras_file(layer("Plain", "model", "Plain")))),
    ("KER03", stored(loads("n.keras"), n_keras=keras_file(layer("Lambda"))),
     stored(loads("n.keras"), n_keras=keras_file(layer("Rescaling")))),
    ("KER07", stored(loads("n.keras"), n_keras=keras_file(layer("RandomContrast", factor=0.1, value_range=[0, 255]))),
     stored(loads("n.keras"), n_keras=keras_file(layer("RandomContrast", factor=0.1, seed=None)))),
    ("KER07", stored(loads("n.h5"), n_h5=whole_h5(layer("DepthwiseConv2D", kernel_size=3, groups=1))),
     stored(loads("n.h5"), n_h5=whole_h5(layer("DepthwiseConv2D", kernel_size=3)))),
    ("KER02", stored(loads("n.h5"), n_h5=whole_h5(layer("Plain"))),
     stored(loads("n.h5", PASSED).replace(LOADS, PLAIN), n_h5=whole_h5(layer("Plain")))),
    ("KER04", stored(loads("n.h5"), n_h5=whole_h5(loss="mse")),
     stored(loads("n.h5"), n_h5=whole_h5(loss="mean_squared_error"))),
    ("KER04", stored(loads("n.h5"), n_h5=whole_h5(loss="my_loss")),
     stored(loads("n.h5", ", compile=False"), n_h5=whole_h5(loss="my_loss"))),
    ("KER08", stored(loads("n.h5"), n_h5=hdf5()),
     stored(loads("n.h5").replace("saving.load_model", "Sequential().load_weights"), n_h5=hdf5())),
    ("KER08", {"model.py": loads("net"), "net/saved_model.pb": "x"},
     {"model.py": loads("net").replace("keras.saving.load_model", "keras.layers.TFSMLayer"),
      "net/saved_model.pb": "x"}),
    *(("KER05", stored(loads("n.keras"), n_keras=keras_file(weights=bad)), stored(loads("n.keras"), n_keras=SAVED))
      for bad in (b"", hdf5()[:-1], b"version https://git-lfs.github.com/spec/v1\n", b"PK")),
    ("KER05", stored(loads("n.keras"), n_keras=SAVED.replace(b"\x89HDF", b"\x89HDG")),
     stored(loads("n.keras"), n_keras=SAVED)),
    ("KER09", stored(model(init=UNPICKLES, top=READS), c_pkl=PICKLE),
     stored(model(init=UNPICKLES, top=READS), c_pkl=PICKLE.replace(b"\x0bsklearn.svm", b"\x0bcollections"))),
    *(("KER09", reads(name, pack(objects(b"sklearn.svm"))), reads(name, pack(objects(b"collections"))))
      for name, pack in (("c.npy", bytes), ("c.npz", npz))),
    ("KER09", reads("c.gz", gzip.compress(PICKLE)), reads("c.gz", gzip.compress(b"label,count"))),
    ("KER09", reads("c.bin", PICKLE), reads("c.bin", PICKLE[1:])),
    ("PY04", model("yield X"), model("return list(i for i in (lambda: (yield))())")),
    ("IMP01", {"model.py": model(top="from a.c import x"), "a/b.py": "x = 1"},
     {"model.py": model(top="from a.b import x"), "a/b.py": "x = 1"}),
    *(("IMP01", {"model.py": model(top="from a import x"), "a.py": faulty},
       {"model.py": model(top="from a import x"), "a.py": twin})
      for faulty, twin in (("if __name__ == '__main__': x = 1", "if __name__ == '__main__': 0\nelse: x = 1"),
                           ("if '__main__' == __name__: x = 1", "if __name__ != '__main__': x = 1"),
                           ("match 1:\n    case _: 0", "match [1]:\n    case [x, *y]: 0"))),
    ("IMP01", {"model.py": model(top="from a.b import y"), "a/b.py": "x = 1"},
     {"model.py": model(top="from a.b import y"), "a/b.py": "def __getattr__(name): return 1"}),
    ("IMP01", {"model.py": model(top="import a.b"), "a/b.py": "from . import c"},
     {"model.py": model(top="import a.b"), "a/b.py": "from . import c", "a/c.py": ""}),
    *(("IMP01", model(top=f"import os\n{how}" % "jax"), model(top=f"import os\n{how}" % "tensorflow"))
      for how in ("os.environ['KERAS_BACKEND'] = '%s'", "os.environ.setdefault('KERAS_BACKEND', '%s')")),
    ("IMP01", model(top="import os\nos.environ['TF_USE_LEGACY_KERAS'] = '1'"),
     model(top="import os\nos.environ['TF_USE_LEGACY_KERAS'] = '0'")),
    ("IMP01", model(top="import google.colab"), model(top="import google.protobuf")),
    ("IMP01", model("return keras.utils.array_to_img(X)", top="import keras"),
     model("return keras.utils.img_to_array(X)", top="import keras")),
    ("IMP05", model("return tf.keras.saving.load_model(X)", top="import tensorflow as tf"),
     model("return tf.keras.models.load_model(X)", top="import tensorflow as tf")),
    ("IMP05", model("return keras.layers.RandomGaussianBlur()(X)", top="import keras"),
     model("return keras.layers.RandomFlip()(X)", top="import keras")),
    ("IMP05", model("return np.unstack(X)"), model("return X if not hasattr(np, 'unstack') else np.unstack(X)")),
    ("IMP05", "from __future__ import print_function\n"
     + model(top="import keras\ndef grow(net: keras.Net):\n    return net"),
     "from __future__ import annotations\n" + model(top="import keras\ndef grow(net: keras.Net):\n    return net")),
    ("IMP05", model(top="from keras.layers import AugMix"), model(top="from keras.layers import Dense")),
    ("PY04", model("while 0:\n    pass"), model("while 1:\n    return X")),
    ("PY01", GOOD + "\nreturn 1", GOOD + "\nx = 1"),
    ("PY01", GOOD + "\n*a, *b = [1]", GOOD + "\n*a, b = [1]"),
    ("PATH01", {"model.py": model(init="np.load(f'{DIR}/w.npy')", top="DIR = 'w'"), "w/w.npy": ""},
     {"model.py": model(init="np.load(f'{DIR}/w.npy')", top="import os\nDIR = os.path.dirname(__file__)"),
      "w.npy": ""}),
    ("PATH01", {"model.py": model(init="np.load(W)", top="from places import W"), "places.py": "W = 'w.npy'",
                "w.npy": ""},
     {"model.py": model(init="np.load(W)", top="from places import W"),
      "places.py": "import os\nW = os.path.join(os.path.dirname(__file__), 'w.npy')", "w.npy": ""}),
    ("ZIP10", entries(*((f"{i}", bytes(9 << 20)) for i in range(12))), entries(("0", bytes(9 << 20)))),
    ("KER08", {"model.py": LOADS_WEIGHTS.format("c"), "c.index": ""},
     {"model.py": model(init="self.c = len\nself.c.restore(Path(__file__).with_name('c'))", top=PATHLIB),
      "c.index": ""}),
    ("KER08", {"model.py": LOADS_WEIGHTS.format("w.npz"), "w.npz": npz(b"")},
     {"model.py": LOADS_WEIGHTS.format("w.npz").replace(LOADS, LOADS + "\nfrom net import Net"), "w.npz": npz(b""),
      "net.py": "class Net:\n    def load_weights(self, path): self.path = path"}),
    ("KER08", {"model.py": LOADS_WEIGHTS.format("w.weights.h5"), "w.weights.h5": named_h5("layer_names")},
     {"model.py": LOADS_WEIGHTS.format("w.h5"), "w.h5": named_h5("layer_names")}),
    ("KER08", {"model.py": LOADS_WEIGHTS.format("w.h5"), "w.h5": named_h5()},
     {"model.py": LOADS_WEIGHTS.format("w.weights.h5"), "w.weights.h5": named_h5()}),
    ("KER05", {"model.py": model(init=f"np.load({HERE.format('c.npy')})", top="import os"), "c.npy": objects(b"math")},
     {"model.py": model(init=f"np.load({HERE.format('c.npy')}, allow_pickle=True)", top="import os"),
      "c.npy": objects(b"math")}),
    *(("KER05", {"model.py": model(init=f"np.load({HERE.format(name)})", top="import os"), name: whole[:-cut]},
       {"model.py": model(init=f"np.load({HERE.format(name)})", top="import os"), name: whole})
      for name, whole, cut in (("c.npy", npy(np.zeros((9, 9), "<f4")), 1), ("u.npy", npy(np.array(["ab"])), 5),
                               ("z.npz", npz(npy(np.zeros(9))), 30))),
    ("KER05", {"model.py": model(init=f"np.load({HERE.format('c.npy')})", top="import os"),
               "c.npy": npy(np.zeros(9)).replace(b"(9,), }", b"('9',)}")},
     {"model.py": model(init=f"np.load({HERE.format('c.npy')})", top="import os"), "c.npy": npy(np.zeros(9))}),
    ("IMP05", model("return self.net.predict(X, workers=4)", init="self.net = keras.Sequential()", top=LOADS),
     model("return self.net.predict(X, 4)", init="self.net = Net()", top=LOADS)
     + "\nclass Net:\n    def predict(self, X, workers=1):\n        return X.predict(workers=workers)\n"),
    ("IMP05", {"model.py": model("return net.predict(X, workers=4)", top="from net import net"),
               "net.py": "import keras\nnet = keras.Sequential()"},
     {"model.py": model("return net.predict(X, workers=4)", top="from net import net"),
      "net.py": "class Net:\n    def predict(self, X, **how): return X\nnet = Net()"}),
    ("KER07", stored(loads("n.h5"), n_h5=whole_h5(layer("LeakyReLU", beta=0.1))),
     stored(loads("n.h5"), n_h5=whole_h5(layer("LeakyReLU", alpha=0.1)))),
    ("IMP05", model(init="self.net = keras.layers.LeakyReLU(beta=0.1)", top=LOADS),
     model(init="self.net = keras.layers.LeakyReLU(alpha=0.1)", top=LOADS)),
    ("IMP05", model("return next(batched(X, 9))", top="from itertools import batched"),
     model("return next(pairwise(X))", top="from itertools import pairwise")),
    ("IMP05", model("return self.net.predict_classes(X)", init="self.net = keras.Sequential()", top=LOADS),
     model("return self.predict_classes(X)") + "\n    def predict_classes(self, X):\n        return X\n"),
    ("PATH04", model(init="np.save(__file__[:-8] + 'a.npy', 1)\nopen(Path(__file__).with_name('a'), 'w')", top=PATHLIB),
     model(init="open('/tmp/a', 'w')\nself.net = [].append", top=PATHLIB)),
    ("PATH04", {"model.py": model(init="os.makedirs(Path(__file__).parent / 'b')", top="import os\n" + PATHLIB)},
     {"model.py": model(init="os.makedirs(Path(__file__).parent / 'b', exist_ok=True)", top="import os\n" + PATHLIB),
      "b/c": ""}),
    *(("PATH03", {"model.py": model(init=f"{how}(Path(__file__).with_name('n'))", top=TF), "m/a": ""},
       {"model.py": model(init=f"{how}(Path(__file__).with_name('n'))", top=TF), "n/a": ""})
      for how in ("keras.layers.TFSMLayer", "os.listdir", "tf.lite.Interpreter")),
    ("PATH03", {"model.py": model(init="np.load(Path(__file__).resolve().parent.parent / 'w.npy')", top=PATHLIB),
                "w.npy": ""},
     {"model.py": model(init="np.load(net.W)", top="from src import net"), "w.npy": "",
      "src/net.py": f"{PATHLIB}\nW = Path(__file__).resolve().parent.parent / 'w.npy'"}),
    ("PATH03", model(init=READS_OR.format("raise FileNotFoundError"), top="import os"),
     model(init=READS_OR.format("print('none')"), top="import os")),
    ("PATH03", model(init="np.load('w.npy')"),
     model(init="for p in Path('.').glob('*.txt'):\n    p.read_text('utf-8')\n    p.open('rb')", top=PATHLIB)),
    ("IMP01", {"model.py": model("return crop(X)", top="from tools import crop"), "tools.py": USES_CV2},
     {"model.py": model("return grow(X)", top="from tools import grow"), "tools.py": USES_CV2 + GROW}),
    ("IMP01", {"model.py": model("return c(X)", top="from tools import crop as c"), "tools.py": USES_CV2},
     {"model.py": model("return c(X)", top="from tools import grow as c"), "tools.py": USES_CV2 + GROW}),
    ("IMP01", model(init="self.t = Trainer()", top=TRAINER), model(top=TRAINER)),
    ("IMP01", model(top="try:\n    import cv2\nexcept ImportError as e:\n    raise SystemExit('cv2') from e"),
     model(top="try:\n    import cv2\nexcept ImportError as e:\n    if not e:\n        raise\n    cv2 = None")),
    ("IMP01", model("try:\n    import cv2\nexcept ImportError:\n    raise\nreturn X"),
     model("if len(X):\n    return X\ntry:\n    import cv2\nexcept ImportError:\n    raise\nreturn X")),
    ("IMP01", model("return array_to_img(X)", top="from keras.utils import array_to_img"),
     model("return img_to_array(X)", top="from keras.utils import array_to_img, img_to_array")),
    ("IMP01", model("return image.random_shift(X, 1, 1)", top="from tensorflow.keras.preprocessing import image"),
     model("return image.random_brightness(X, (1, 1))", top="from tensorflow.keras.preprocessing import image")),
    *(("IMP01", model(top=f"import {name}"), model(top="import curses")) for name in ("tkinter", "winsound")),
    ("PY02", GOOD.replace("class", "if __name__ == '__main__':\n  class"), GOOD.replace("class", "if True:\n  class")),
    ("PY02", "from net import Net", {"model.py": "import numpy as np\ndef Model():\n    return np"}),
    ("PY04", {"model.py": "from net import Net as Model", "net.py": GOOD.replace("(self, X)", "(self, X, y)").replace(
        "class Model", "class Net")}, {"model.py": "from net import Net as Model",
                                     "net.py": GOOD.replace("class Model", "class Net")}),
    ("PY04", {"model.py": model(top="from tools import *").replace("self, X", ""), "tools.py": ""},
     {"model.py": "from tools import *", "tools.py": GOOD}),
    ("PY04", model("return"), model("raise NotImplementedError")),
    ("PY04", model("y = X"), model("if len(X):\n    return X\nreturn X")),
    ("PY04", GOOD.replace("def predict", "def forecast"),
     GOOD.replace("def predict", "def forecast").replace("pass", "self.predict = self.forecast")),
    ("PY04", GOOD.replace("def predict", "def forecast"), GOOD.replace("def predict(", "def __getattr__(")),
    ("PY04", GOOD.replace("    def predict", "def predict"),
     GOOD.replace("    def predict", "def predict") + "\nModel.predict = predict\n"),
    ("PY05", model("return self.net(X)", init="self.model = len"), model("return self.net(X)", init="self.net = len")),
    ("PY05", model("return self.crop(X)"), model("return self.crop(X)") + "\n    def crop(self, X): return X\n"),
    ("PY05", model("return self.net(X)", init="net = len"), model("return self.net(X)") + "\n    net = len\n"),
    ("PY05", model("return self.crop(X)"), model("return self.crop(X)", init="setattr(self, 'cr' + 'op', len)")),
    ("PY05", model(init="self.f = grow", top="def make(): return grow\nmake()"),
     model(init="self.f = 1", top="def grow(): return 1\ndef make(): return grow\nmake()\ndel grow")),
    ("IMP05", model(top="import numpy.rot91"), model(top="import numpy._core")),
    ("PY05", model("y = X", top="y: NDArray = 1"), model("y: NDArray = X\nreturn y")),
    ("PY03", GOOD.replace("__init__(self)", "__init__()"), GOOD.replace("__init__(self)", "__init__(*parts)")),
    ("PY04", GOOD.replace("def predict", "async def predict"), GOOD),
    ("PATH03", model(init="try:\n    np.load('/tmp/w')\nexcept OSError:\n    np.load('w.npy')"),
     model(init="try:\n    import keras\nexcept ImportError:\n    np.load('w.npy')")),
    ("KER02", stored(loads("n.h5"), n_h5=whole_h5(layer("Plain"))),
     stored(LOADS_WEIGHTS.format("n.h5"), n_h5=whole_h5(layer("Plain")))),
    *(("IMP01", model(top=f"import sys\n{package}"), model(top=f"import sys\nA = {switch}\nif A:\n    {package}"))
      for package, switch in (("from google.colab import drive", "'google.colab' in sys.modules"),
                              ("import matplotlib.pyplot", "False"))),
    ("IMP01", model("import cv2\nreturn cv2.imread(X)"),
     model("if isinstance(X, str):\n    import cv2\n    X = cv2.imread(X)\nreturn X")),
    ("PY05", model("match X:\n    case 1 if one:\n        return X\nreturn one"),
     model("match X:\n    case 'one':\n        return one\nreturn X")),
    ("PY05", model(top="def grow(X, size=SIZE):\n    return X\nSIZE = 96"),
     model(top="SIZE = 96\ndef grow(X, size=SIZE):\n    return crop(X)")),
    ("PY05", model(init="load()", top=SIZE.format("pass")), model(init="load()", top=SIZE.format("global SIZE"))),
    ("PY05", model(init="self.s = Scaler()", top=SCALER),
     stored(model(init=UNPICKLES + "\nassert isinstance(self.c, Scaler)", top=SCALER), c_pkl=b"N.")),
    ("PY04", GOOD.replace("(self, X)", "(self, X, y)"),
     model(top="def given(f):\n    return lambda self, X: f(self, X, 1)").replace(
         "    def predict(self, X)", "    @given\n    def predict(self, X, y)")),
    ("PY04", model("return X, X / 2"), model("if X is None:\n    return X, X / 2\nreturn (X)")),
    ("PY04", model("return {'labels': X}"), model("return {'labels': X}['labels']")),
    ("PY04", NET.replace("def predict", "def label") + "\nclass Model(Net):\n    pass",
     NET + "\nclass Model(Net):\n    pass"),
    ("PY04", NET.replace("(self, X)", "(self, X, y)") + "\nclass Model(Net):\n    pass",
     NET.replace("(self, X)", "(self, X, y)") + "\nclass Model(dict, Net):\n    def predict(self, X): return X"),
    ("PY04", NET.replace("def predict", "def label") + "\nclass Model(Net):\n    pass",
     NET.replace("def predict", "def label") + "\nclass Model(Net):\n    pass\nsetattr(Model, 'predict', pow)"),
    ("PY04", NET.replace("(self, X)", "(self, X, y)") + "\nclass Model(Net):\n    pass",
     "class A:\n    def predict(self, X, y): pass\nclass B(A):\n    def predict(self, X): return X\n"
     "class C(A): pass\nclass Model(C, B): pass"),
    ("PY03", NET.replace("(self)", "(self, path)") + "\nclass Model(Net):\n    pass",
     NET.replace("(self)", "(self, path)") + "\nclass Model(Net):\n    def __init__(self): super().__init__('w')"),
    ("PY03", NET + "\ndef Model(path):\n    return Net()", NET + "\ndef Model(path=None):\n    return Net()"),
    ("PY03", GOOD.replace("__init__(self)", "__init__(self, path)"),
     "def ready(cls):\n    return lambda: cls('w')\n" + GOOD.replace("class", "@ready\nclass").replace(
         "__init__(self)", "__init__(self, path)")),
    ("PY02", NET, NET + "\nglobals()['Model'] = Net"),
    ("PY02", {"model.py": GOOD, "model/__init__.py": "", "model/w.txt": ""}, {"model.py": GOOD, "model/w.txt": ""}),
    ("PY02", {"model.py": GOOD, "model/__init__.py": "from .net import *", "model/net.py": ""},
     {"model.py": "", "model/__init__.py": "from .net import Model", "model/net.py": GOOD}),
    ("PY06", model("return self.crop(X, 9)") + "    def crop(self, X):\n        return X\n",
     model("return self.crop(X, 9)", init="self.crop = pow") + "    def crop(self, X):\n        return X\n"),
    ("PY06", GOOD.replace("class Model", RUN + "class Model(Base)"),
     GOOD.replace("class Model", RUN + "class Model(Base)") + "    def label(self, X, factor):\n        return X\n"),
    ("KER09", reads("c.pkl", MAIN),
     stored(model(init="__main__.SVC = dict\n" + UNPICKLES, top=READS + ", __main__"), c_pkl=MAIN)),
    ("KER09", reads("c.pkl", PICKLE),
     stored(model(init=UNPICKLES.replace("pickle.load(f)", "Reader(f).load()"), top=READS + "\nclass Reader("
                  "pickle.Unpickler):\n    def find_class(self, module, name):\n        return dict"), c_pkl=PICKLE)),
    ("IMP01", model(init="keras.utils.plot_model(keras.Sequential())", top=LOADS),
     model(init="keras.Sequential().summary()", top=LOADS)),
    *(("PATH04", {"model.py": model(init=how.format("Path(__file__).parent / 'w'"), top=ZIPS), "w": ""},
       {"model.py": model(init=how.format("'/tmp/w'"), top=ZIPS), "w": ""})
      for how in ("zipfile.ZipFile('/tmp/w.zip').extractall({})", "open({}, 'r+b')")),
]  # fmt: skip

# (code, what is faulty, the near-twin that is not): files, or model.py alone, or a builder of the zip
FAULTS = [
    ("ZIP01", {"submission/model.py": GOOD}, {"model.py": GOOD, "submission/notes.txt": "x"}),
    ("ZIP01", {"a/b/model.py": GOOD, "a/b/weights.npy": "x"}, {"model.py": GOOD, "a/b/weights.npy": "x"}),
    ("ZIP02", {"Model.py": GOOD}, {"model.py": GOOD}),
    ("ZIP03", truncated(0.9), truncated(1.0)),
    ("ZIP03", truncated(0.0), truncated(1.0)),
    ("ZIP03", raw((b"class", b"klass"), compression=0), raw(compression=0)),
    ("ZIP04", raw((DEFLATE, DEFLATE64)), raw()),
    ("ZIP04", raw(*ENCRYPTED), raw(compression=zipfile.ZIP_BZIP2)),
    ("ZIP04", raw(*ENCRYPTED), raw(compression=zipfile.ZIP_LZMA)),
    ("ZIP05", {"model.py": GOOD, "__MACOSX/._model.py": "x"}, {"model.py": GOOD, "MACOSX/model.txt": "x"}),
    ("ZIP05", {"model.py": GOOD, "weights/.DS_Store": "x"}, {"model.py": GOOD, "weights/DS_Store.txt": "x"}),
    ("ZIP13", {"model.py": GOOD, "predictions.npy": "x"}, {"model.py": GOOD, "weights/predictions.npy": "x"}),
    ("ZIP13", {"model.py": GOOD, "predictions.npy/a": "x"}, {"model.py": GOOD, "predictions/a": "x"}),
    ("ZIP13", {"model.py": GOOD, "progress.json": "{}"}, {"model.py": GOOD, "my_progress.json": "{}"}),
    ("ZIP05", {"model.py": GOOD, "__pycache__/model.cpython-311.pyc": "x"}, {"model.py": GOOD, "cache/model.txt": "x"}),
    ("ZIP06", raw(name="s" * 61 + ".zip"), raw(name="s" * 60 + ".zip")),
    ("ZIP06", raw(name="model.rar"), raw(name="model.zip")),
    ("ZIP06", {"model.py": GOOD, "d" * 256: "x"}, {"model.py": GOOD, "d" * 255: "x"}),
    ("ZIP07", entries(("../evil.py", "x")), entries(("..evil.txt", "x"))),
    ("ZIP07", entries(("Icon\r", "x")), entries(("Screenshot at 10:00\u202fAM?.png", "x"))),
    ("ZIP07", entries(("/etc/evil", "x")), entries(("etc/evil", "x"))),
    ("ZIP07", entries(("C:/evil", "x")), entries(("C/evil", "x"))),
    ("ZIP07", raw((b"b+evil", b"b\\evil"), files={"model.py": GOOD, "b+evil": "x"}),
     raw(files={"model.py": GOOD, "b+evil": "x"})),
    ("ZIP07", raw((b"b+evil", b"b\0evil"), files={"model.py": GOOD, "b+evil": "x"}),
     raw(files={"model.py": GOOD, "b+evil": "x"})),
    ("ZIP08", entries((info("link", 0o120777), "/etc/passwd")), entries((info("file", 0o100644), "/etc/passwd"))),
    ("ZIP08", entries((info("pipe", 0o010644), "")), entries((info("file", 0), ""))),
    ("ZIP09", raw((b"notes2", b"notes1"), files={"model.py": GOOD, "notes1": "1", "notes2": "2"}),
     raw(files={"model.py": GOOD, "notes1": "1", "notes2": "2"})),
    ("ZIP09", entries(("a", "1"), ("a/b", "2")), entries(("a", "1"), ("ab/b", "2"))),
    ("ZIP10", entries(("zeros", bytes(11 << 20))), entries(("zeros", bytes(9 << 20)))),
    ("ZIP10", entries(*((f"{i}", "") for i in range(10_001))), entries(*((f"{i}", "") for i in range(99)))),
    ("MET01", {"model.py": GOOD, "metadata": "command: python3 model.py"},
     {"model.py": GOOD, "metadata": "description: ours"}),
    *(("MET01", {"model.py": GOOD, "metadata": command}, {"model.py": GOOD, "metadata": none}) for command, none in (
        ("{command: python3 model.py}", "{command: ''}"),
        ("\ufeffcommand: python3 model.py", "\ufeffdescription: ours"),
        ("description: ours\ncommand: ls", "description: |\n  ours\n  command: ls"),
        ("'command': ls", "commands: ls"),
        ("command: ls\n# " + "é" * 40_000, "description: ls\n# " + "é" * 40_000))),
    ("PY01", GOOD + "\n  def", GOOD + "\ndef f(): pass"),
    ("PY01", GOOD + "\n" + "-" * 100_000 + "1", GOOD + "\n" + "-" * 10 + "1"),
    ("PY02", GOOD.replace("class Model", "class model"), GOOD.replace("class Model:", "class Model(object):")),
    ("PY03", GOOD.replace("__init__(self)", "__init__(self, path)"),
     GOOD.replace("__init__(self)", "__init__(self, path=None)")),
    ("PY04", GOOD.replace("def predict", "def forecast"), GOOD + "\n    def forecast(self): pass"),
    ("PY04", GOOD.replace("predict(self, X)", "predict(X)"), GOOD.replace("predict(self, X)", "predict(self, *X)")),
    ("PY04", GOOD.replace("predict(self, X)", "predict(self, X, batch)"),
     GOOD.replace("predict(self, X)", "predict(self, X, batch=8)")),
    ("PY05", model("return preprocess(X).argmax(1)"),
     model("return preprocess(X).argmax(1)", top="def preprocess(X): return X")),
    ("PY05", model("return len(X) if tf else X"),
     model("return len(X) if tf else X", top="import tensorflow as tf")),
    ("PY06", TWO_METHODS.format("times"), TWO_METHODS.format("factor")),
    ("PY06", model("return crop(X)", top=CROP), model("return crop(X, 9)", top=CROP)),
    ("PY06", model("return crop(X)", top=CROP), model("def crop(X): return X\nreturn crop(X)", top=CROP)),
    ("IMP01", model(top="import keras_cv"),
     model(top="try:\n    import keras_cv\nexcept ImportError:\n    keras_cv = None")),
    ("IMP01", model(top="from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    import torch"),
     model(top="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch")),
    ("IMP01", model(top="from albumentations.core import x"), model(top="from tensorflow.keras import layers")),
    ("IMP01", model("import sklearn\n" + "return X"), model("import keras\n" + "return X")),
    ("IMP01", TOOLS, {"model.py": TOOLS, "tools.py": "", "train.py": "import cv2"}),
    ("IMP01", {"model.py": TOOLS, "tools.py": "import cv2"}, {"model.py": TOOLS, "tools.py": "import math"}),
    ("IMP02", {"model.py": model(top="import random"), "random.py": ""},
     {"model.py": model(top="import randoms"), "randoms.py": ""}),
    ("IMP02", {"model.py": model(top="from ingestion import f"), "ingestion.py": ""},
     {"model.py": GOOD, "ingestion.py": ""}),
    ("IMP03", {"model.py": model(top="import utils"), "utils.py": ""},
     {"model.py": model(top="import blood_utils"), "blood_utils.py": ""}),
    ("IMP04", {"model.py": model(top="from .net import f"), "net.py": ""},
     {"model.py": model(top="from net import f"), "net.py": "f = 1"}),
    ("IMP04", {"model.py": model(top="if True:\n    from .net import f"), "net.py": "f = 1"},
     {"model.py": model(top="try:\n    from .net import f\nexcept ImportError:\n    from net import f"),
     "net.py": "f = 1"}),
    ("IMP01", model(top="try:\n    import keras_cv\nexcept ImportError:\n    import cv2"),
     model(top="try:\n    import keras\nexcept ImportError:\n    import cv2")),
    ("IMP01", {"model.py": model(top="import sys\nfrom net import f"), "src/net.py": "f = 1"},
     {"model.py": model(top="import sys\nsys.path.insert(0, __file__[:-8] + 'src')\nfrom net import f"),
     "src/net.py": "f = 1"}),
    ("PATH01", {"model.py": loads("n.keras") + "\nnet = keras.saving.load_model('n.keras')\n", "n.keras": SAVED},
     {"model.py": model(init="self.net = load_model('n.keras')",
     top=f"{LOADS}\n\ndef load_model(name):\n"
         "    return keras.saving.load_model(os.path.join(os.path.dirname(__file__), name))"), "n.keras": SAVED}),
    ("PATH01", {"model.py": model(init="read()", top="def read(name='w.npy'):\n    return np.load(name)"), "w.npy": ""},
     {"model.py": model(init="read(__file__[:-8] + 'w.npy')", top="def read(name='w.npy'):\n    return np.load(name)"),
     "w.npy": ""}),
    ("PATH02", model(init="if X is None:\n    np.load('/content/w.npy')", top="X = None"),
     model(init="if os.path.exists('/content/w.npy'):\n    np.load('/content/w.npy')", top="import os")),
    ("PATH02", model(init="if not os.path.exists('/content/w.npy'):\n    np.load('/content/w.npy')", top="import os"),
     model(init="if not os.path.exists('/content/w.npy'):\n    pass\nelse:\n    np.load('/content/w.npy')",
     top="import os")),
    ("PATH03", model(init="open('w.txt', mode='r')"), model(init="open('/tmp/w.txt', mode='w')")),
    ("PATH03", model(init="Path('w.txt').open()", top=PATHLIB), model(init="Path('/tmp/w').open('w')", top=PATHLIB)),
    ("PATH03", {"model.py": model(init="self.c = len\nself.c.restore(Path(__file__).with_name('c-1'))", top=PATHLIB),
                "c-11.index": ""},
     {"model.py": model(init="self.c = len\nself.c.restore(Path(__file__).with_name('c-1'))", top=PATHLIB),
      "c-1.index": ""}),
    ("PATH01", {"model.py": model(init="self.w = np.load('w.npy')"), "w.npy": "x"},
     {"model.py": model(init=f"self.w = np.load({HERE.format('w.npy')})", top="import os"), "w.npy": "x"}),
    ("PATH01", {"model.py": model(init="self.w = (Path('w') / 'a.txt').read_text()", top=PATHLIB), "w/a.txt": "x"},
     {"model.py": model(init="self.w = (Path(__file__).parent / 'w/a.txt').read_text()", top=PATHLIB), "w/a.txt": "x"}),
    ("PATH01", {"model.py": model(init="with open(NAME) as f: pass", top="NAME = 'w.txt'"), "w.txt": "x"},
     {"model.py": model(init="os.chdir(os.path.dirname(__file__))\nwith open(NAME) as f: pass",
     top="import os\nNAME = 'w.txt'"), "w.txt": "x"}),
    ("PATH03", {"model.py": model(init="np.load(Path(__file__).with_name('w.npy'))", top=PATHLIB), "v.npy": ""},
     {"model.py": model(init="np.load(Path(__file__).with_name('w.npy'))", top=PATHLIB), "w.npy": ""}),
    ("PATH02", model(init="open('/content/drive/MyDrive/w.keras')"), model(init="open('/tmp/w.keras', 'w')")),
    ("PATH02", model(init="open(r'C:\\Users\\me\\w.keras')"), model(init="print(r'C:\\Users\\me\\w.keras')")),
    ("PATH03", {"model.py": loads("net.keras"), "nets.keras": SAVED},
     {"model.py": loads("net.keras"), "net.keras": SAVED}),
    ("PATH03", model("return np.load('x.npy')"), model() + TRAINING),
    ("PATH03", {"model.py": model(init="np.load('w.npy')"), "w/w.npy": "x"},
     {"model.py": model(init="os.chdir(os.path.join(os.path.dirname(__file__), 'w'))\nnp.load('w.npy')",
      top="import os"), "w/w.npy": "x"}),
    ("NET01", model(init="self.net = keras.applications.ResNet50(weights='imagenet')", top=LOADS),
     model(init="self.net = keras.applications.ResNet50(weights=None)", top=LOADS)),
    ("KER02", {"model.py": loads("n.keras"), "n.keras": keras_file(layer("RandAugment", "keras_cv.layers"))},
     {"model.py": loads("n.keras"), "n.keras": keras_file(layer("RandomFlip"))}),
    ("KER04", {"model.py": loads("n.keras"), "n.keras": keras_file(compiled=LOSS)},
     {"model.py": loads("n.keras", ", compile=False"), "n.keras": keras_file(compiled=LOSS)}),
    ("KER05", {"model.py": GOOD, "w.h5": hdf5()[:-1]}, {"model.py": GOOD, "w.h5": hdf5()}),
    ("KER05", {"model.py": GOOD, "w.h5": "version https://git-lfs.github.com/spec/v1"},
     {"model.py": GOOD, "w.txt": "version 1"}),
    ("KER05", {"model.py": loads("n.keras"), "n.keras": SAVED[:-9]}, {"model.py": loads("n.keras"), "n.keras": SAVED}),
    *KINDS,
    ("KER06", {"model.py": GOOD, **MANIFEST, "weights/model.weights.h5": hdf5(999)},
     {"model.py": GOOD, **MANIFEST, **WEIGHTS}),
]  # fmt: skip


def build(folder: Path, files) -> Path:
    return files(folder) if callable(files) else make_zip(folder / "s.zip", files)


@pytest.mark.parametrize("code, faulty, twin", FAULTS, ids=[f"{i}-{row[0]}" for i, row in enumerate(FAULTS)])
def test_each_fault_has_its_code_and_its_near_twin_has_none(tmp_path, code, faulty, twin):
    found = check_zip(build(tmp_path, faulty), "strict")
    assert code in {f.code for f in found}
    assert refused(found) == (CODES[code].level != "warning")
    for f in found:
        assert "{" not in str(f) and str(f).count("; on the platform, ") == 1 and "\n" not in str(f)
    (tmp_path / "twin").mkdir()
    assert check_zip(build(tmp_path / "twin", twin)) == []


def test_files_of_newer_versions_that_the_graders_keras_takes_are_a_warning(tmp_path):
    files = {"model.py": loads("n.keras"), "n.keras": keras_file(layer("Rescaling", scale=2), version="3.12.0")}
    assert [(f.code, f.level) for f in check_zip(make_zip(tmp_path / "s.zip", files))] == [("KER01", "warning")]


def test_lambdas_are_refused_only_where_load_model_refuses_them(tmp_path):
    held = {"n.keras": keras_file(layer("Lambda")), "n.h5": whole_h5(layer("Lambda"))}
    for name, more, level in [
        ("n.keras", "", "error"),
        ("n.keras", ", safe_mode=False", "warning"),
        ("n.h5", "", "warning"),
    ]:
        found = check_zip(make_zip(tmp_path / "s.zip", {"model.py": loads(name, more), name: held[name]}))
        assert [(f.code, f.level) for f in found] == [("KER03", level)]


def test_the_error_says_what_becomes_of_a_class(tmp_path):
    for source, words in [
        (tops(PLAIN), "neither register nor pass"),
        (tops(BLOOD.format("Cells").replace("Spotlight", "Plain")), "register as Cells>Plain"),
        (loads("n.keras"), "only train.py defines, which model.py never imports"),
    ]:
        files = {"model.py": source, "n.keras": PLAIN_FILE, "train.py": PLAIN}
        assert words in str(check_zip(make_zip(tmp_path / "s.zip", files))[0])


def test_findings_come_in_the_order_in_which_they_strike_and_once(tmp_path):
    source = model("return nowhere(X)", init="import cv2\nimport cv2\nnp.load('w.npy')", top="import tools")
    found = check_zip(make_zip(tmp_path / "s.zip", {"model.py": source, "tools.py": "return", ".DS_Store": ""}))
    assert [f.code for f in found] == ["ZIP05", "PY01", "IMP01", "PATH03", "PY05"]
    assert found[2].wrong.endswith("(2 times)")


def test_of_very_many_findings_of_one_code_a_few_are_shown(tmp_path):
    for n, more in ((checks.MOST, None), (30, "(and 10 more)")):
        found = check_zip(make_zip(tmp_path / "s.zip", {"model.py": GOOD, **{f"../{i}": "" for i in range(n)}}))
        assert [f.code for f in found] == ["ZIP07"] * checks.MOST and found[-1].wrong.endswith(more or "parts")


def test_the_remedy_for_leftovers_matches_all_of_them_and_nothing_else(tmp_path):
    junk = ["lib/.DS_Store", "lib/a.pyc", "lib/__pycache__/b.cpython-311.pyc", "__MACOSX/lib/._x", "._y", ".git/HEAD"]
    kept = ["model.py", "lib/a.py", "lib/x.y", "notes.txt"]
    found = check_zip(make_zip(tmp_path / "s.zip", {**dict.fromkeys(junk, "x"), **dict.fromkeys(kept, GOOD)}))
    patterns = re.findall(r"'([^']+)'", found[0].change)
    assert [f.code for f in found] == ["ZIP05"]
    assert {name for name in junk + kept if any(fnmatch(name, p) for p in patterns)} == set(junk)


@pytest.mark.parametrize("names", [("Notes.txt", "notes.txt"), ("Nets", "nets/a.txt")])
def test_names_that_differ_in_case_alone_are_a_warning(tmp_path, names):
    found = check_zip(make_zip(tmp_path / "s.zip", {"model.py": GOOD, **dict.fromkeys(names, "x")}))
    assert [(f.code, f.level) for f in found] == [("ZIP09", "warning")]


def test_a_zip_in_the_zip_is_named(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", GOOD).read_bytes()
    found = check_zip(make_zip(tmp_path / "s.zip", {"inner.zip": inner}))
    assert [f.code for f in found] == ["ZIP02"] and "inner.zip" in found[0].wrong


def test_what_is_no_regular_file_is_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "s.zip")
    for path in (tmp_path / "s.zip", "/dev/zero"):
        assert [f.code for f in check_zip(path)] == ["ZIP03"]


def test_size_limits(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "s.zip", {"model.py": GOOD, "w.npy": bytes(2_000_000)}, zipfile.ZIP_STORED)
    for slow, most, expected in ((2.1, 3, []), (1.9, 3, [("ZIP11", "warning")]), (1.5, 1.9, [("ZIP11", "error")])):
        monkeypatch.setattr(checks, "SLOW_MB", slow)
        monkeypatch.setattr(checks, "MAX_MB", most)
        assert [(f.code, f.level) for f in check_zip(path)] == expected


def test_a_copy_counts_against_the_quota_before_2026_05_only(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "s.zip", {"model.py": GOOD, "w.npy": bytes(2_000_000)}, zipfile.ZIP_STORED)
    assert check_zip(path, era="2026") == []
    monkeypatch.setattr(checks, "COPY_MB", 1.9)
    assert [f.code for f in check_zip(path, era="2026")] == ["ZIP12"]
    assert check_zip(path) == []


def test_relative_paths_are_a_warning_where_the_grader_changes_into_the_submission(tmp_path):
    files = {"model.py": model(init="self.w = np.load('w.npy')"), "w.npy": "x"}
    found = check_zip(make_zip(tmp_path / "s.zip", files), profile="an2dl")
    assert [(f.code, f.level) for f in found] == [("PATH01", "warning")]


def test_a_submission_may_write_beside_model_py_before_2026_05_only(tmp_path):
    path = make_zip(tmp_path / "s.zip", model(init="open('log.txt', 'w')"))
    assert [f.code for f in check_zip(path)] == ["PATH04"] and check_zip(path, "strict") == []
    assert check_zip(path, era="2026") == []


def test_packages_that_the_user_vouches_for(tmp_path):
    path = make_zip(tmp_path / "s.zip", model(top="import sklearn.svm, cv2"))
    assert {f.code for f in check_zip(path, packages=("sklearn",))} == {"IMP01"}
    assert check_zip(path, packages=("sklearn", "cv2")) == []


ODD = [
    {"class_name": "function", "config": {}},
    {"class_name": "X", "config": {}, "module": 5},
    {"class_name": []},
    None,
    [[]],
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_configs_that_no_keras_writes_are_judged_all_the_same(tmp_path, odd):
    for files in ({"n.keras": keras_file(odd)}, {"n.keras": keras_file(compiled={"loss": odd})}):
        found = check_zip(make_zip(tmp_path / "s.zip", {"model.py": loads("n.keras"), **files}))
        assert {f.code for f in found} <= {"KER02", "KER04"}


def test_metrics_that_no_keras_writes_are_passed_over():
    for metrics, names in ((5, []), ("MeanIoU", []), ({"a": "MeanIoU"}, []), (["MeanIoU", 5, "accuracy"], ["MeanIoU"])):
        found = keras_files.stuck({"metrics": metrics}, registry.Registry(), legacy=True)
        assert [doubt.name for doubt in found] == names


HARD = {  # name: a source that is hard to read
    "functions": "".join(f"def f{i}(): return f{i + 1}()\n" for i in range(7_000)),
    "attributes": "x = a" + ".b()" * 300 + "\n" + "x = a.b" + ".c" * 100_000,
    "chains": ("x = a" + ".c" * 900 + "\n") * 40,
    "elif": "if a: pass\n" + "elif b: pass\n" * 900,
    "parentheses": "x = " + "(" * 5_000,
    "calls": "class A:\n def f(self): self.f()\n" * 4_500,
    "parameters": "def f(" + ",".join(f"a{i}" for i in range(9_000)) + "): pass\n" + "f()\n" * 6_000,
    "doubled": "\n".join(f"p{i} = p{i + 1} + p{i + 1}" for i in range(300)) + "\n" + "open(p0)\n" * 8_000,
    "finally": "\n".join(" " * i + f"try: pass\n{' ' * i}finally:" for i in range(19)) + f"\n{' ' * 19}pass",
    "nested": "\n".join(" " * i + f"def f{i}():" for i in range(95)) + "\n" + " " * 95 + "x = [" + "a," * 35_000 + "]",
    "again": "if a:\n" + " def f(): pass\n" * 9_000,
    "keys": "x = {" + "".join(f"{i}: 1, {i}: 2, " for i in range(9_000)) + "}",
    "scopes": "def f():\n " + "=".join(f"a{i}" for i in range(9_000)) + "=1\n x = [" + "lambda: 0," * 7_000 + "]",
    "imports": "import sys\nsys.path\n" + "import a\n" * 19_000,
    "names": "from " + "a" * 100_000 + " import " + ",".join(f"b{i}" for i in range(9_000)),
    "dots": "import " + ".".join("a" * 100_000),
    "f-string": "x = f'" + "{a}" * 80_000 + "'",
    "undefined": "".join(f"np.q{i}\nq{i}\n" for i in range(7_000)),
}


def holds(name: str, layers: str, more: str = "") -> dict:
    """A zip whose .keras file has these layers."""
    with zipfile.ZipFile(io.BytesIO(keras_file())) as file:
        parts = {part: file.read(part) for part in file.namelist()}
    make_zip(buffer := io.BytesIO(), parts | {"config.json": f'{{"layers": {layers}}}'})
    return {"model.py": loads(name) + more, name: buffer.getvalue()}


REGISTERED = "".join(f"\n@keras.saving.register_keras_serializable('p{i}')\nclass A{i}: pass" for i in range(3_000))
LARGE = {  # name: what makes the files of a zip that is hard to read
    "entries": lambda: {"model.py": GOOD, **{f"d/{i}": "" for i in range(9_900)}},
    "outside": lambda: {"model.py": GOOD, **{f"../{i}": "" for i in range(9_900)}},
    "directory": lambda: {"model.py": GOOD, **{f"{i}": "" for i in range(40_000)}},
    "parts": lambda: {"model.py": GOOD, **{"/".join(["a"] * 32_000) + str(i): "" for i in range(25)}},
    "broken sources": lambda: {"model.py": GOOD + "".join(f"\nimport m{i}" for i in range(60)),
                               **{f"m{i}.py": "x = [" + "a," * 120_000 + "]\n(" for i in range(60)}},
    "chain": lambda: {"model.py": model(top="import sys, m0\nsys.path"),
                      **{f"m{i}.py": f"import m{i + 1}" for i in range(9_000)}},
    "aliases": lambda: {"model.py": GOOD, "metadata": "a0: &a0 {x: 1}\n" + "".join(
        f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 9)}]}}\n" for i in range(7))},
    "pickles": lambda: {"model.py": model(init=UNPICKLES, top=READS) + "\nx = '.pkl'",
                        **{f"c{i}.pkl": b"\x80\x04" + b"N0" * 240_000 + b"." for i in range(50)}},
    "objects": lambda: holds("n.keras", json.dumps([layer("Nope", "x", f"r{i}") for i in range(20_000)]), REGISTERED),
    "lists": lambda: holds("n.keras", "[" + "[]," * 1_300_000 + "0]"),
}  # fmt: skip


QUICK = ("parentheses", "aliases", "entries")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in [*HARD, *LARGE]]
)
def test_what_is_hard_to_read_takes_two_seconds_and_half_a_gigabyte_at_most(tmp_path, name):
    path = make_zip(tmp_path / "s.zip", GOOD + "\n" + HARD[name] if name in HARD else LARGE[name]())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = checks.check_within_limits(path)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert end.ru_utime + end.ru_stime - before.ru_utime - before.ru_stime < checks.SECONDS + 0.2
    assert end.ru_maxrss - max(before.ru_maxrss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) < 500_000  # KiB
    assert max(Counter(f.code for f in found).values(), default=0) <= checks.MOST


def spin(*_, **__):
    while True:
        pass


def hoard(*_, **__):
    held = []
    while True:
        held.append(bytearray(10**7))


def test_a_package_that_the_check_lacks_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyflakes", None)
    assert build_submission.main(["--check", str(make_zip(tmp_path / "s.zip", GOOD))]) == 2
    assert "pyflakes" in (out := capsys.readouterr().out) and "pip install -r requirements.txt" in out


@pytest.mark.parametrize("check", [spin, hoard, lambda *_, **__: os.kill(os.getpid(), 9), check_zip])
def test_a_zip_that_passes_the_limits_or_ends_its_reader_is_refused(tmp_path, monkeypatch, check):
    path = make_zip(tmp_path / "s.zip", GOOD)
    monkeypatch.setattr(checks, "check_zip", check)
    monkeypatch.setattr(checks, "SECONDS", 1)
    found = [(f.code, f.level) for f in checks.check_within_limits(path)]
    assert found == ([] if check is check_zip else [("ZIP14", "error")])
    assert build_submission.main(["--check", str(path)]) == len(found)


def test_sources_that_pass_the_limits_are_no_error(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "s.zip", {"model.py": GOOD, "__MACOSX/a": "x"})
    monkeypatch.setattr(checks, "check_sources", spin)
    monkeypatch.setattr(checks, "SECONDS", 1)
    found = checks.check_within_limits(path)
    assert [(f.code, f.level) for f in found] == [("ZIP05", "warning"), ("ZIP14", "warning")]
    assert verdict.conclude(found, asked=False, ran=False, scored=False)[1].startswith("NOT KNOWN")
    assert verdict.conclude(found, asked=True, ran=True, scored=True)[1] == "GOOD"


def test_the_projects_own_submission_is_clean(tmp_path):
    files = {"model.py": (ROOT / "model.py").read_bytes(), **WEIGHTS, **MANIFEST}
    assert check_zip(make_zip(tmp_path / "s.zip", files)) == []
    kit = ROOT / "grader/starting_kit"
    files = {path.name: path.read_bytes() for path in kit.iterdir() if path.is_file()}
    assert check_zip(make_zip(tmp_path / "kit.zip", files)) == []


def test_the_zip_of_a_run_that_needs_more_code(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model.weights.h5").write_bytes(hdf5())
    needed = {"network": "ViT"}, {"enhance": ["clahe"]}, {"network": "ViT", "enhance": ["clahe"]}
    for manifest, lacks in zip(needed, ([], ["IMP01"], ["IMP01"]), strict=True):
        (tmp_path / "run/manifest.json").write_text(json.dumps(manifest))
        path = tmp_path / "s.zip"
        path.write_bytes(submission(tmp_path / "run", "a run"))
        assert [f.code for f in check_zip(path)] == lacks  # training/enhance.py needs OpenCV
        assert check_zip(path, packages=("cv2",)) == []


def test_a_path_of_another_file_that_rests_on_a_later_name(tmp_path):
    for base, codes in (("os.environ['DATA']", []), ("'/home/me'", ["PATH02"])):
        other = f"import os\nif os.name:\n    base = {base}\nfirst = os.path.join(base, 'a.npy')\n"
        files = {"model.py": model("return np.load(other.first)", top="import other"), "other.py": other}
        assert [f.code for f in check_zip(make_zip(tmp_path / "s.zip", files))] == codes


def test_static_checks_import_neither_tensorflow_nor_numpy(tmp_path):
    path = make_zip(tmp_path / "s.zip", {"model.py": loads("n.keras"), "n.keras": keras_file()})
    script = (
        "import sys, build_submission\n"
        f"status = build_submission.main(['--check', {str(path)!r}])\n"
        "heavy = {'tensorflow', 'keras', 'torch', 'numpy', 'h5py', 'cv2'} & set(sys.modules)\n"
        "sys.exit(status or f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_table_is_what_the_graders_keras_takes():
    if metadata.version("keras") != keras_files.GRADER_KERAS or sys.version_info[:2] != (3, 11):
        pytest.skip(f"needs Keras {keras_files.GRADER_KERAS} and Python 3.11")
    made = subprocess.run([sys.executable, ROOT / "tests/keras_table.py"], capture_output=True, text=True)
    assert json.loads(made.stdout) == keras_files.TABLE, "python tests/keras_table.py > grader/keras_table.json"


@pytest.mark.slow
def test_files_that_keras_writes_are_read_as_keras_means_them(tmp_path):
    keras = pytest.importorskip("keras")
    inputs = keras.layers.Input((4,))
    plain = keras.Sequential([inputs, keras.layers.Dense(8, kernel_regularizer="l2", activation="softmax")])
    plain.compile("adam", keras.losses.sparse_categorical_crossentropy, metrics=["accuracy"])

    class Spotlight(keras.layers.Layer):
        def call(self, x):
            return x

    odd = keras.Sequential([inputs, Spotlight(), keras.layers.Lambda(lambda x: 2 * x)])
    odd.compile("adam", lambda true, predicted: predicted)
    codes = {}
    for name, network in (("plain", plain), ("odd", odd)):
        network.save(tmp_path / "n.keras")
        files = {"model.py": loads("n.keras"), "n.keras": (tmp_path / "n.keras").read_bytes()}
        codes[name] = {f.code for f in check_zip(make_zip(tmp_path / "s.zip", files))} - {"KER01"}
    assert codes == {"plain": set(), "odd": {"KER02", "KER03"}}


@pytest.mark.parametrize("profile", worker.PROFILES)
@pytest.mark.parametrize("era", worker.ERAS)
def test_what_ships_has_no_fault_at_any_grader(tmp_path, profile, era):
    path = tmp_path / "submission.zip"
    path.write_bytes(submission(build_submission.ROOT))
    assert check_zip(path, profile, (), era) == []


def test_findings_are_in_the_order_of_a_run_then_of_lines_and_new_codes_come_last():
    codes = ["PY99", "NET01", "ZIP05", "PY01"]
    found = checks.in_order([checks.Finding(code, "error", "a", "b", "c") for code in codes])
    assert [f.code for f in found] == ["ZIP05", "PY01", "NET01", "PY99"]
    found = [checks.finding("PY05", file="model.py", line=line, name=name) for line, name in ((10, "c"), (9, "a"))]
    twice = checks.finding("PY05", file="model.py", line=2, name="c")
    first, second = (f.wrong for f in checks.in_order([*found, twice]))
    assert "line 2 " in first and first.endswith("(2 times)") and "line 9 " in second
