"""Measure weights, and write what was measured into the pages.

    python -m evaluation NAME ...            python -m evaluation NAME --help
    python -m evaluation all                 every result anew from weights/ and data/: half an hour on two cores

`all` runs, each printed before it starts: build_submission.py, benchmark, calibrate, card, unforeseen, laboratory,
pictures, tests.dirty, tables. What needs training runs stays as it is: results/ladder/, compare and ledger; so does
setup, which needs internet.
"""

import ast
import importlib
import shlex
import subprocess
import sys
from pathlib import Path

from training import shell

NAMES = ("card", "calibrate", "unforeseen", "laboratory", "benchmark", "compare", "ledger", "pictures", "setup",
         "tables")  # fmt: skip
ALL = """build_submission.py --report results/report.json
-m evaluation benchmark submission.zip --json results/benchmark.json
-m evaluation calibrate results/ladder/*.json
-m evaluation card weights --json results/card.json --plots results/card
-m evaluation unforeseen weights --json results/unforeseen.json
-m evaluation laboratory data/jtsc.npz --json results/laboratory.json
-m evaluation pictures
-m tests.dirty --json results/audit_benchmark.json
-m evaluation tables"""  # calibrate before the card, which holds a predicted score; build before the benchmark


def listing() -> str:
    """The names, each with the first line of its module's docstring; nothing is imported."""
    sources = {name: Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in NAMES}
    lines = [f"  {name:12}{ast.get_docstring(ast.parse(text)).splitlines()[0]}" for name, text in sources.items()]
    return "\n".join([__doc__, "NAME is one of", *lines])


def make_all() -> None:
    """Runs ALL in this process where it can: all results name the commit as it was before the first of them."""
    from evaluation import cards

    if not Path("data/heldout.npz").exists():
        raise ValueError("data/heldout.npz does not exist: docs/DATA.md says where cells come from")
    cards.commit()
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
    """Run `python -m evaluation WORDS`. A wrong option ends with status 2, what cannot be done with 1, in one line."""
    name, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if name in ("-h", "--help"):
        return print(listing())
    parser = shell.parser(f"evaluation {name}")
    if name == "all":
        parser.description = __doc__
        parser.parse_args(rest)
        with shell.plain_errors():
            return make_all()
    if name not in NAMES:
        parser.error(f"there is no such command; choose from {', '.join(NAMES)} or all")
    with shell.plain_errors():
        module = importlib.import_module(f"evaluation.{name}")
        parser.description = module.__doc__
        module.options(parser)
        module.run(parser.parse_args(rest))


if __name__ == "__main__":
    main()
