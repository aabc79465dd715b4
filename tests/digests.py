"""Prints the SHA-256 of the submission zip as each Python on this machine builds it; exit status 1 if two differ.

python tests/digests.py [FOLDER]        FOLDER holds model.py and weights/ (default: the project)
"""

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = (
    "import hashlib, pathlib, sys; sys.dont_write_bytecode = True; sys.path.insert(0, sys.argv[1]); "
    "import build_submission as b; "
    "data = b.pack(b.collect(pathlib.Path(sys.argv[2]))[0] | b.description('a description')); "
    "print('%d.%d' % sys.version_info[:2], hashlib.sha256(data).hexdigest())"
)


def digests(folder: Path) -> dict[str, str]:
    """{"3.11": hex digest} for every Python 3.10 to 3.13 that is on the PATH or among pyenv's."""
    found = {}
    for minor in range(10, 14):
        pyenv = glob.glob(os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/python"))
        for python in filter(None, [shutil.which(f"python3.{minor}"), *pyenv]):
            command = [python, "-c", SCRIPT, str(ROOT), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, cwd="/")
            if done.returncode == 0:  # else a pyenv shim without a version behind it
                version, digest = done.stdout.split()
                found[version] = digest
                break
    return found


if __name__ == "__main__":
    made = digests(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT)
    for version, digest in made.items():
        print(f"Python {version}  {digest}")
    if len(made) < 2:
        print("compared with nothing: no other Python from 3.10 to 3.13 is here")
    sys.exit(len(set(made.values())) != 1)
