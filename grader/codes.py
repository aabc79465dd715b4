"""Every finding by its code: what is wrong, what the platform would do, what to change.

    python -m grader.codes > grader/CODES.md        writes the table that people read

A code keeps its meaning for ever; a new finding gets a new code. Level `error` refuses the submission, `warning`
lets it pass and says so. `mode` is the number of the failure mode it belongs to, in the order in which submissions
to Codabench fail most often; 0 stands for what no upload shows but a score or a security check does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

MODES = {
    1: "model.py is not at the zip's root",
    2: "a module that the grader lacks",
    3: "model.py crashes or breaks the contract",
    4: "time limit",
    5: "unsupported compression or a corrupt zip",
    6: "files opened relative to the working directory",
    7: "the ingestion program fails silently, the score is missing",
    8: "a Keras or TensorFlow mismatch",
    9: "memory",
    10: "size, quota, slow upload",
    11: "no score",
    12: "leftovers of the operating system, long names",
    13: "a module name shadowed by one of the grader's",
    0: "nothing fails, the score is wrong; or the zip is not safe to unpack",
}


@dataclass(frozen=True)
class Code:
    """One row of the table; `wrong` is a template filled in by the finding."""

    mode: int
    level: str
    wrong: str
    platform: str
    change: str


CODES = {
    # The zip as a container
    "ZIP01": Code(1, "error", "model.py is not at the zip's root but in {where}",
                  "it would find no model.py and give no score",
                  "zip the files themselves, not the folder that holds them"),
    "ZIP02": Code(1, "error", "the zip holds no model.py{where}",
                  "it would find no model.py and give no score", "put model.py at the zip's root"),
    "ZIP03": Code(5, "error", "the zip cannot be read ({why})",
                  "it would try ten times to unpack it, and then fail", "make the zip again and upload it again"),
    "ZIP04": Code(5, "error", "{name} is {how}",
                  "Python's zipfile could not unpack it: it would fail, on some versions hang in Preparing",
                  "zip with plain Deflate or Stored and without a password (not Windows Explorer above 2 GB)"),
    "ZIP05": Code(12, "warning", "leftovers of the operating system or of Python, {n} in all: {name}",
                  "it would unpack it beside your files, where it wastes quota and can be taken for code",
                  "delete them from the zip (zip -d FILE.zip {patterns})"),
    "ZIP06": Code(12, "error", "the name {name!r} {how}",
                  "the upload form or the file system would refuse it", "choose a shorter name that ends in .zip"),
    "ZIP07": Code(0, "error", "the entry {name!r} {how}",
                  "it would unpack it under another name, so your code would not find it",
                  "store plain relative names with forward slashes"),
    "ZIP08": Code(0, "error", "{name} is a link or a special file",
                  "it would unpack it as a small text file", "store the file itself in place of the link"),
    "ZIP09": Code(0, "error", "{name} is in the zip more than once, or clashes with {other}",
                  "only one of them would survive, which one depends on the machine", "keep one of them"),
    "ZIP10": Code(0, "error", "{name} claims {claim}",
                  "it would fill its disk or be killed while it unpacks", "leave such files out of the zip"),
    "ZIP11": Code(10, "error or warning", "the zip takes {size} MB",
                  "the upload could break off; a user's quota is 15,000 MB",
                  "ship one set of weights, in float16, without training data or optimizer state"),
    "ZIP12": Code(10, "warning", "the zip has no metadata file",
                  "until spring 2026 its files would be copied into the result and count twice against the quota "
                  "({size} MB)",
                  "add --metadata 'a short description'"),
    "ZIP13": Code(0, "error", "{name} in the zip has the name of a file that the ingestion program writes",
                  "since spring 2026 it copies the submission over the predictions before they are scored, so that "
                  "this file would be scored in their place", "delete it from the zip (zip -d FILE.zip {name})"),
    "MET01": Code(3, "error", "{name} holds a command",
                  "until spring 2026 it would run that command beside the ingestion program",
                  "leave only a description in it, or delete it"),
    # model.py and what it imports
    "PY01": Code(3, "error", "{file} cannot be parsed ({why})",
                 "the import would fail and there would be no score", "correct the line"),
    "PY02": Code(3, "error", "model.py defines no class Model",
                 "`from model import Model` would fail", "name the class Model, at the top level of model.py"),
    "PY03": Code(3, "error", "Model.__init__ needs arguments ({names})",
                 "it calls Model() and would stop with a TypeError", "give each of them a default"),
    "PY04": Code(3, "error", "Model {how}",
                 "it calls model.predict(X) and would stop with a TypeError or AttributeError",
                 "define predict(self, X)"),
    "PY05": Code(3, "error", "{file} line {line} uses the name {name}, which is defined nowhere",
                 "it would stop there with a NameError", "import or define it, or correct its spelling"),
    "PY06": Code(3, "error", "{file} line {line} calls {name} with {how}",
                 "it would stop there with a TypeError", "make the call and the definition agree"),
    "IMP01": Code(2, "error", "{file}{at} imports {name}, which is neither at the grader nor in the zip",
                  "the import would fail; a requirements.txt is never installed",
                  "do without it, put its files into the zip, or say --packages {name} if you know it is there"),
    "IMP02": Code(13, "error", "{name} in the zip has the name of a module that the grader already has",
                  "it would import its own module in place of yours", "rename it"),
    "IMP03": Code(13, "warning", "{name} in the zip has a name that many graders use for a module of their own",
                  "such a grader would import its own module in place of yours", "rename it"),
    "IMP05": Code(8, "error", "{file} line {line} uses {name}, which the grader's version lacks",
                  "it would stop there with an AttributeError or ImportError", "{instead}"),
    "IMP04": Code(3, "error", "{file} line {line} uses a relative import",
                  "model.py is not in a package there, so the import would fail", "drop the leading dots"),
    "PATH01": Code(6, "error or warning", "{file}{at} opens {name!r} relative to the working directory",
                   "a grader that stays in its own folder (--profile strict) would find no such file, and no grader "
                   "would if the zip lacks it",
                   "build the path from os.path.dirname(os.path.abspath(__file__))"),
    "PATH02": Code(6, "error", "{file}{at} opens {name!r}, a place on one particular machine",
                   "there is no such file there", "put the file into the zip and build its path from __file__"),
    "PATH03": Code(6, "error", "{file}{at} opens {name!r}, which is not in the zip",
                   "there is no such file there", "add the file or correct its name"),
    "NET01": Code(3, "warning", "{file} line {line} fetches pretrained weights from the internet",
                  "graders without network would stop there, the others lose time",
                  "say weights=None and load your own weights from the zip"),
    "NET02": Code(3, "warning", "the submission needs the network at `{stage}`: {error}",
                  "it would have network there unless its administrators switched it off; the rehearsal has none",
                  "put what it fetches into the zip: only then can it be rehearsed"),
    # Weights
    "KER01": Code(8, "error or warning", "{file} was saved by Keras {version}, the grader has {grader}",
                  "load_model can stop at what the other version wrote",
                  "save it again with Keras {grader}, or ship .weights.h5 and build the network in code"),
    "KER02": Code(8, "error", "{file} needs {name}, which {how}",
                  "load_model would stop with an unknown object",
                  "define and register it in model.py, or ship .weights.h5 and build the network in code"),
    "KER03": Code(8, "error or warning", "{file} holds a Lambda layer or another lambda function",
                  "load_model runs its stored bytecode only from .h5 files or with safe_mode=False, and the bytecode "
                  "differs between Python versions",
                  "replace the Lambda by a layer class or by Keras operations"),
    "KER04": Code(8, "error", "{file} was compiled with {name}, which {how}",
                  "load_model compiles by itself and would stop there", "load it with compile=False"),
    "KER05": Code(8, "error", "{file} is not a whole weights file ({why})",
                  "loading it would stop with an error", "copy or save the file again"),
    "KER06": Code(8, "error", "{file} is not the file that weights/manifest.json describes (its SHA-256 differs)",
                  "it would score other weights than you measured", "write weights and manifest together, again"),
    "KER07": Code(8, "error", "{file} gives {name} what the grader's Keras does not take ({how})",
                  "load_model would stop at an unknown argument",
                  "save it with Keras 3.4.1, or ship .weights.h5 and build the network in code"),
    "KER08": Code(8, "error", "{file}{at} calls load_model on {name}, {how}",
                  "it would stop with a ValueError: Keras 3 loads .keras and .h5 files",
                  "save the model as .keras, or load a SavedModel with keras.layers.TFSMLayer"),
    "KER09": Code(2, "error", "{file} holds objects of {name}, which is neither at the grader nor in the zip",
                  "unpickling it would stop with a ModuleNotFoundError",
                  "store the numbers with numpy and compute with numpy, or say --packages {name}"),
    # The rehearsal
    "RUN01": Code(3, "error", "the submission crashed at `{stage}`: {error}",
                  "it would show this traceback and give no score", "mend it; the end of the log is below"),
    "RUN02": Code(7, "error", "the submission ended at `{stage}` with exit status {status} and no predictions",
                  "it ignores the exit status, starts the scoring, which finds nothing, and shows no reason",
                  "do not leave the process from within model.py (exit, os._exit, a crash in native code)"),
    "OUT01": Code(3, "error", "predict returned shape {shape}: one-hot rows or probabilities",
                  "it would fail or compare the wrong things", "return np.argmax(..., axis=1)"),
    "OUT02": Code(3, "error", "predict returned shape {shape} for {n} images",
                  "it would fail, or compare everything with everything and give a score near guessing",
                  "return one label per image, shape ({n},)"),
    "OUT03": Code(3, "error", "predict returned {dtype} values",
                  "labels that are not integers would not equal any true label, or be refused",
                  "return integers, such as from np.argmax"),
    "OUT04": Code(3, "error", "predict returned labels from {low} to {high}",
                  "a label outside 0-{last} is never right, or refused", "return labels 0 to {last}"),
    "OUT05": Code(3, "error", "the predictions cannot be read ({why})",
                  "it would give no score", "return a plain numpy array from predict"),
    "OUT06": Code(7, "error", "the submission wrote a file named metadata into the output folder",
                  "it keeps its own file of that name there and fails the submission", "write nothing there"),
    "LIM01": Code(4, "error", "the {job} was not done within {limit} seconds",
                  "it would kill it and fail the submission (some versions of 2026 let it finish)",
                  "predict in batches, drop test-time augmentation or use a smaller network"),
    "LIM02": Code(9, "error", "memory passed {limit}",
                  "it would be killed with exit status 137 and no message",
                  "predict in batches and keep no copies of all images"),
    "LIM03": Code(0, "error", "the submission wrote more than {limit} MB to disk, or 64 MB to /dev/shm",
                  "its worker's disk or memory would be full", "write nothing while predicting"),
    "LIM04": Code(0, "error", "the submission ran more than {limit} processes and threads at once",
                  "nothing limits them, and its machine would stall", "start few processes while predicting"),
    "LIM05": Code(4, "warning", "{n} images would take about {seconds} s of {limit} s on this machine",
                  "a slower grader would pass its time limit", "predict in larger batches or use a smaller network"),
    "LIM06": Code(9, "warning", "memory grows by {each} MB with every image, to about {total} MB for {n} images",
                  "it would be killed with exit status 137 on a larger test set",
                  "predict in batches and keep one view of one batch at a time"),
    "LIM07": Code(9, "error", "{n} images would take about {total} MB, more than any known grader has",
                  "it would be killed with exit status 137 and no message",
                  "predict in batches and keep one view of one batch at a time"),
    "LIM08": Code(9, "error", "the submission was ended by a bus error at `{stage}` (exit status 135)",
                  "a file mapped from /dev/shm that outgrows its 64 MB ends in this way",
                  "use no shared memory, or less: no worker processes, or fewer images at a time"),
    "ENV01": Code(8, "warning", "the rehearsal ran under {here}",
                  "it would run under {there}, where files, layers and functions can differ",
                  "install requirements.txt, or name an interpreter that has these versions with --python"),
    "SCO01": Code(11, "error", "the scoring gave no score ({why})",
                  "it would show the submission as failed or without a score",
                  "write scores.json as one flat object of finite numbers under the leaderboard's keys"),
    "PRO01": Code(0, "error", "the same images got other labels on another run ({share} of them)",
                  "the score would change with every upload", "draw nothing at random in predict, or fix the seed"),
    "PRO02": Code(0, "error", "an image's label depends on the images beside it ({share} of them change)",
                  "the score would depend on how the grader batches and orders the images",
                  "use nothing but the image itself: no batch statistics, training=False"),
    "PRO03": Code(0, "error", "the same pixels as {dtype} get other labels ({share} of them change)",
                  "the score would depend on the dtype that the grader happens to use",
                  "convert to float32 first, whatever comes in"),
    "PRO04": Code(0, "error", "predict changes the images it is given",
                  "what the grader does with them afterwards would go wrong", "work on a copy"),
    "PRO05": Code(0, "error", "the model takes images in 0-1: {scaled} right when divided by 255, {plain} as they come",
                  "images come in 0-255, so it would score {plain}", "divide by 255 inside predict"),
    "PRO06": Code(0, "warning", "accuracy is {found} here, the manifest says {said}",
                  "it would score the same as here", "check that weights, preprocessing and manifest belong together"),
    "PRO07": Code(3, "error", "predict fails on {what}: {error}",
                  "a grader that asks in this way would give no score",
                  "treat any number of images and any dtype alike"),
    "PRO08": Code(0, "warning", "accuracy is {found}, no better than always answering {name} ({always})",
                  "it would score the same as here", "check the order of the classes and the preprocessing"),
    "PRO09": Code(0, "error", "{share} of the labels are shifted: class k is predicted as (k + {shift}) % {size}",
                  "it would score {accuracy}, as here",
                  "return (labels - {shift}) % {size}, or mend the order of the classes"),
    "SAF01": Code(0, "error", "the submission altered {name}, which it was given to read",
                  "graders may give it read-only or use it again", "write only below the system's temporary folder"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A code with its details; str() is the one plain sentence."""

    code: str
    level: str
    wrong: str
    platform: str
    change: str

    def __str__(self) -> str:
        wrong = f"T{self.wrong[1:]}" if self.wrong.startswith("the ") else self.wrong
        return f"{wrong}; on the platform, {self.platform}; {self.change}."

    def as_json(self) -> dict:
        return {**asdict(self), "message": str(self)}


def clean(value):
    """Text from a foreign zip, without control characters and not too long to read."""
    if isinstance(value, str):
        value = "".join(c if c.isprintable() else "?" for c in value[:301])
        value = value if len(value) <= 300 else value[:297] + "..."
    return value


def finding(code: str, level: str | None = None, **details) -> Finding:
    """The finding `code`, its sentence filled in with `details`; `level` only where the table leaves it open."""
    row, details = CODES[code], {key: clean(value) for key, value in details.items()}
    parts = [part.format(**details) for part in (row.wrong, row.platform, row.change)]
    return Finding(code, level or row.level, *parts)


def refused(findings: list[Finding]) -> bool:
    return any(f.level == "error" for f in findings)


def table() -> str:
    """The markdown of CODES.md."""
    rows = ["# Codes", "", "Written by `python -m grader.codes > grader/CODES.md`. Words in braces are filled in.", "",
            "| code | level | failure mode | what is wrong | what the platform would do | what to change |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    for code, row in CODES.items():
        mode = f"{row.mode}: {MODES[row.mode]}" if row.mode else MODES[0]
        cells = [code, row.level, mode, row.wrong, row.platform, row.change]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
