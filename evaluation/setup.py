"""Measure the download, disk space and time that the README's first commands need.

    python -m evaluation setup --json results/setup.json

Clones the last commit, links this data/, installs a new virtual environment from PyPI and runs the commands in it. Run
it on an idle machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evaluation import cards, markdown
from training import shell
from training.files import ROOT, write_json

TRIAL = "--limit 400 --epochs 3 --out runs/trial"


def seconds(command: str, folder: Path, python: Path | str = sys.executable) -> float:
    """Run `python COMMAND` in a folder and return the seconds that it took. Raises ValueError if it fails."""
    print(f"python {command}", flush=True)
    started = time.monotonic()
    done = subprocess.run([python, *command.split()], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"python {command} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return round(time.monotonic() - started, 1)


def megabytes(folder: Path) -> int:
    """Return the size of all files below a folder; links are not followed."""
    return round(sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6)


def measure(folder: Path) -> dict:
    """Measure everything in an empty folder: clone, download, virtual environment, commands."""
    clone, python, commit = folder / "clone", folder / "venv/bin/python", cards.commit()
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    (clone / "data").symlink_to(ROOT / "data")
    seconds(f"-m venv {folder / 'venv'}", folder)
    pip = "-m pip --quiet --disable-pip-version-check"
    install = seconds(f"{pip} download --dest {folder / 'wheels'} -r requirements.txt", clone, python)
    wheels = f"--no-index --find-links {folder / 'wheels'}"
    install += seconds(f"{pip} install {wheels} -r requirements.txt", clone, python)
    return {
        "commit": commit, "cores": os.cpu_count(),
        "download_mb": megabytes(folder / "wheels"), "disk_mb": megabytes(folder / "venv") + megabytes(clone),
        "seconds": {
            "install": round(install, 1), "build": seconds("build_submission.py", clone, python),
            "pytest": seconds("-m pytest", clone, python),
            "trial": seconds(f"-m training.train {TRIAL}", clone, python),
        },
    }  # fmt: skip


def minutes(taken: float) -> str:
    return f"{taken / 60:.1f} minutes"


def commands(found: dict) -> str:
    """The README's first commands, with sizes and times."""
    took = {name: minutes(taken) for name, taken in found["seconds"].items()}
    return (
        f"Python 3.11, {found['disk_mb'] / 1e3:.1f} GB of disk, {found['download_mb']} MB to download, of which "
        f"TensorFlow is most. Times are of {found['cores']} cores (`python -m evaluation setup`).\n\n```sh\n"
        "python3.11 -m venv .venv && . .venv/bin/activate\n"
        f"python -m pip install -r requirements.txt     # {took['install']}; the grader's TensorFlow and Keras\n"
        f"python build_submission.py                    # {took['build']}\n"
        f"python -m pytest                              # {took['pytest']}\n```"
    )


def trial(found: dict) -> str:
    """The README's sentence on a trial of the training."""
    return f"A trial takes {minutes(found['seconds']['trial'])} on {found['cores']} cores: `{TRIAL}`."


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=shell.new_file, metavar="OUT", help="write the figures there")


def run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    if args.json:
        write_json(args.json, found)
    markdown.show(f"{commands(found)}\n\n{trial(found)}")
