"""Measure weights and write the results into the pages.

    python -m evaluation NAME ...            run one command; NAME --help lists its options
    python -m evaluation all                 measure all again from weights/ and data/: about 40 minutes on two cores

`all` leaves out compare, which needs training runs, and setup, which needs internet. It runs
"""

import ast
import importlib
import shlex
import subprocess
import sys
from pathlib import Path

from training import shell

NAMES = ("card", "calibrate", "unforeseen", "laboratory", "compare", "pictures", "setup", "tables")
ALL = """build_submission.py --report results/report.json
-m evaluation calibrate results/ladder/*.json
-m evaluation card weights --json results/card.json --plots results/card
-m evaluation unforeseen weights --json results/unforeseen.json
-m evaluation laboratory data/jtsc.npz --json results/laboratory.json
-m evaluation pictures
-m tests.dirty --json results/audit_benchmark.json
-m evaluation tables"""  # the card needs the calibration


def listing() -> str:
    """Return the help text: each command with the first line of its module's docstring. Imports no module."""
    sources = {name: Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in NAMES}
    names = [f"  {name:12}{ast.get_docstring(ast.parse(text)).splitlines()[0]}" for name, text in sources.items()]
    return "\n".join([__doc__, *(f"    python {line}" for line in ALL.splitlines()), "\nNAME is one of", *names])


def make_all() -> None:
    """Run the commands in ALL, those of evaluation in this process. All results name the same commit."""
    from evaluation import cards

    if not Path("data/heldout.npz").exists():
        raise ValueError("data/heldout.npz does not exist: docs/DATA.md says where cells come from")
    cards.commit()  # cached before results change the working tree
    for line in ALL.splitlines():
        print(f"\n== python {line}", flush=True)
        words = [str(path) for word in line.split() for path in (sorted(Path().glob(word)) if "*" in word else [word])]
        if any(word.startswith("data/") and not Path(word).exists() for word in words):
            print("left out: its cells are not there (docs/DATA.md)")
        elif words[:2] == ["-m", "evaluation"]:
            main(words[2:])
        elif subprocess.run([sys.executable, *words]).returncode:
            sys.exit(f"error: python {shlex.join(words)} failed, see above")


def main(words: list[str] | None = None) -> None:
    """Run `python -m evaluation WORDS`. Exit status 2 for a wrong option, 1 for any other error, in one line."""
    name, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if name in ("-h", "--help"):
        return print(listing())
    parser = shell.parser(f"evaluation {name}", listing())
    if name not in (*NAMES, "all"):
        parser.error(f"there is no such command; choose from {', '.join(NAMES)} or all")
    with shell.plain_errors():
        if name == "all":
            parser.parse_args(rest)
            return make_all()
        module = importlib.import_module(f"evaluation.{name}")
        parser.description = module.__doc__
        module.options(parser)
        module.run(parser.parse_args(rest))


if __name__ == "__main__":
    main()
