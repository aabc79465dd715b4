"""Make one submission of several training runs: a soup of their weights or an ensemble, and calibrate it.

    python -m training.soup runs/a runs/b runs/c --out runs/soup                   average of the weights
    python -m training.soup runs/a runs/b runs/c --out runs/soup --greedy          of those that help each other
    python -m training.soup runs/a runs/b --out runs/both --ensemble               average of the probabilities
    python -m training.soup runs/a --out runs/a-calibrated --calibrate             the temperature, with any of these
    python -m training.soup runs/c --out runs/c-calibrated --temperature-of runs/a-calibrated
    python -m training.soup runs/a runs/b --out runs/soup --views 4                flips, where it is unsure

Soups are Wortsman et al. 2022, the temperature is Guo et al. 2017. A soup costs at inference what one network does, an
ensemble the sum. Batch norm's running statistics are averaged like all other weights, not estimated anew. --greedy and
--calibrate choose on the runs' own validation cells, clean and augmented by the first run's policy, never on the report
card's corruptions; ingredients must have split the same data in the same way. A temperature they have is not taken
over. Runs that were trained on the validation cells too can be averaged, whatever their split, but nothing can be
chosen or fitted on those cells: the temperature is then that of the run which they continue.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from training import augment, data, networks, train
from training.files import ROOT, commit, write_json
from training.recipes import Recipe

KINDS = ("average", "greedy", "ensemble")
TEMPERATURES = (0.1, 10.0)
FIRST = "model.weights.h5"


def read_run(folder: Path) -> dict:
    """The manifest of a training run, or of a soup. ValueError where a file is missing, damaged or not whole."""
    import model

    try:
        manifest = model.read_manifest(folder)
        as_recipe(manifest["settings"])
        [manifest["settings"][key] for key in train.SPLIT], manifest["epochs_done"], manifest["scores"]
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is no training run: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'manifest.json'} is not one of training.train: {error!r}") from error
    for name, expected in files_of(manifest).items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{path} is not the file that its manifest.json names: truncated, or altered")
    return manifest


def files_of(manifest: dict) -> dict[str, str]:
    """Weights file to SHA-256, of all members."""
    return {FIRST: manifest["sha256"], **manifest.get("members", {})}


def as_recipe(settings: dict) -> Recipe:
    """The recipe in a run's settings."""
    return Recipe(**{f.name: settings[f.name] for f in dataclasses.fields(Recipe) if f.name in settings})


def check_alike(folders: list[Path], manifests: list[dict]) -> None:
    """Raises ValueError where networks, their input or the split into training and validation differ."""
    for folder, manifest in zip(folders, manifests, strict=True):
        for key, default in (("network", "EfficientNetV2B0"), ("enhance", [])):
            ours, theirs = (m.get(key, default) for m in (manifests[0], manifest))
            if ours != theirs:
                raise ValueError(f"{key} of {folders[0]} is {ours!r}, of {folder} {theirs!r}: they must be the same")
        settings = [m["settings"] for m in (manifests[0], manifest)]
        unsplit = any(each.get("validation_too") for each in settings)  # a run on all cells has no split of its own
        for key in ("data",) if unsplit else train.SPLIT:
            if settings[0][key] != settings[1][key]:
                raise ValueError(
                    f"{folders[0]} and {folder} differ in {key}, so that cells one was trained on are among the "
                    f"other's validation cells: take runs of the same split"
                )


def validation_cells(folders: list[Path], settings: dict, cells: data.Cells) -> tuple[data.Cells, data.Cells]:
    """The runs' own validation cells, clean and augmented.

    Raises ValueError where `cells` are not the runs' data, or where an audit of them, from which the split follows, no
    longer removes what the runs' audit.json says (it was another version's).
    """
    if data.digest(cells) != settings["data"]:
        raise ValueError("--data holds other cells than the runs were trained on")
    recipe = as_recipe(settings)
    _, clean, audit = train.prepare(cells, recipe, settings["limit"])
    for path in (folder / "audit.json" for folder in folders):
        try:
            removed = [entry["index"] for entry in json.loads(path.read_text(encoding="utf-8"))["removed"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is missing or damaged, the validation cells are unknown: {error}") from error
        if removed != [entry["index"] for entry in audit["removed"]]:
            raise ValueError(
                f"{path} removes other cells than the audit does now: cells the run was trained on would be among the "
                "validation cells; train it again, or use the version that trained it"
            )
    rng = np.random.default_rng((recipe.seed, 2))  # the draws of training.train
    policy = augment.POLICIES[recipe.policy]
    return clean, data.Cells(np.stack([augment.apply(policy, i, rng) for i in clean.images]), clean.labels)


def stir(folders: list[Path], manifests: list[dict], greedy: bool, parts: tuple[data.Cells, data.Cells]):
    """(the averaged network, which of the folders are in it); `greedy`: see Wortsman et al. 2022, Recipe 1."""
    import model

    network = networks.described(manifests[0])

    def weights_of(place: int) -> list[np.ndarray]:
        model.load_weights(network, folders[place] / FIRST, manifests[place]["sha256"])
        return network.get_weights()

    steps = tuple(manifests[0].get("enhance", ()))
    both = data.Cells(*(np.concatenate(arrays) for arrays in zip(*((p.images, p.labels) for p in parts), strict=True)))
    order, best = list(range(len(folders))), -1.0
    if greedy:
        alone = []
        for place in order:
            weights_of(place)
            alone.append(train.score_network(network, both, steps)["accuracy"])
            print(f"{folders[place]}: {alone[-1]:.4f}")
        order.sort(key=lambda place: -alone[place])
    used, total = [], None
    for place in order:
        more = weights_of(place)
        tried = more if total is None else [a + b for a, b in zip(total, more, strict=True)]
        if greedy:
            network.set_weights([w / (len(used) + 1) for w in tried])
            accuracy = train.score_network(network, both, steps)["accuracy"]
            print(f"with {folders[place]}: {accuracy:.4f}{'' if accuracy >= best else ', left out'}")
            if accuracy < best:
                continue
            best = accuracy
        used, total = [*used, place], tried
    network.set_weights([w / len(used) for w in total])
    return network, used


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """p^(1/T), scaled to sum to 1, in float64, as model.Model applies it: probabilities (n, 8) -> (n, 8)."""
    scaled = np.clip(probabilities, 1e-30, None).astype(np.float64) ** (1 / temperature)
    return scaled / scaled.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The T in TEMPERATURES that gives probabilities (n, 8) the lowest negative log-likelihood of labels (n,).

    Guo et al. 2017, On calibration of modern neural networks, 4.2.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        likelihood = at_temperature(probabilities, np.exp(log_temperature))[np.arange(len(labels)), labels]
        return -np.log(np.clip(likelihood, 1e-300, None)).mean()

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def combine(
    folders: list[Path],
    cells: data.Cells,
    out: Path,
    kind: str = "average",
    calibrate: bool = False,
    temperature_of: Path | None = None,
    views: int = 1,
) -> dict:
    """Write folder `out` with weights, manifest.json, run.json and audit.json; returns the manifest.

    kind: one of KINDS; an ensemble that is made part of another counts with each of its networks. The manifest has the
    first run's settings, and under "soup" or "ensemble" those of all, their SHA-256 and scores. One folder alone is
    copied, to be calibrated. calibrate: fit the temperature; temperature_of: take that of this run; views: how many of
    model.VIEWS an unsure image gets. Raises ValueError for runs that cannot be combined, FileExistsError where `out` is
    there.
    """
    if out.exists():
        raise FileExistsError(f"{out} is already there: choose another --out")
    if len(folders) < 2 and not ((calibrate or temperature_of or views > 1) and folders):
        raise ValueError("name at least two runs, or one with --calibrate, --temperature-of or --views")
    started = time.monotonic()
    manifests = [read_run(folder) for folder in folders]
    check_alike(folders, manifests)
    if len(pixels := {manifest.get("pixels") for manifest in manifests}) > 1:
        raise ValueError(f"the runs see images at other sizes ({pixels} pixels): they must be the same")
    for folder, manifest in zip(folders, manifests, strict=True):
        if train.saw_validation(manifest) and (calibrate or kind == "greedy"):
            raise ValueError(
                f"{folder} was trained on the validation cells too, so nothing can be chosen or fitted on them: leave "
                "out --greedy, and use --temperature-of in place of --calibrate"
            )
    taken = read_run(temperature_of) if temperature_of else {}
    if temperature_of:
        check_alike([*folders, temperature_of], [*manifests, taken])
        if "temperature" not in taken:
            raise ValueError(f"{temperature_of} has no temperature: make one of it with --calibrate first")
    copied = kind == "ensemble" or len(folders) == 1
    for folder, manifest in zip(folders, manifests, strict=True):
        if not copied and manifest.get("members"):
            raise ValueError(f"{folder} is an ensemble: its networks' weights cannot be averaged with others'")
    parts = validation_cells(folders, manifests[0]["settings"], cells)
    temporary = out.with_name(f".{os.getpid()}-{out.name}")
    temporary.mkdir(parents=True)
    try:
        used = list(range(len(folders)))
        if copied:
            files = copy_members(folders, manifests, temporary)
        else:
            network, used = stir(folders, manifests, kind == "greedy", parts)
            train.save_half(network, temporary / FIRST)
            files = {"sha256": hashlib.sha256((temporary / FIRST).read_bytes()).hexdigest()}
        dropped = ("sha256", "members", "temperature", "calibration") + ("soup", "ensemble") * (len(folders) > 1)
        manifest = {key: value for key, value in manifests[used[0]].items() if key not in dropped} | files
        manifest["views"], made = views, None
        if len(folders) > 1:
            manifest["epochs_done"] = sum(manifests[place]["epochs_done"] for place in used)
            manifest["commit"] = commit()
            kept = ("sha256", "members", "settings", "scores", "epochs_done", "commit", "versions", "started_from",
                    "soup", "ensemble")  # fmt: skip
            made = manifest["ensemble" if copied else "soup"] = {
                "kind": kind,
                "ingredients": [
                    {"run": folder.name, "used": place in used, **{key: m[key] for key in kept if key in m}}
                    for place, (folder, m) in enumerate(zip(folders, manifests, strict=True))
                ],
            }
        manifest = train.brief(manifest)
        write_json(temporary / "manifest.json", manifest)
        whole = networks.open_run(temporary)
        answers, labels = [whole.predict_proba(part.images) for part in parts], parts[0].labels
        if calibrate:
            temperature = fit_temperature(np.concatenate(answers), np.tile(labels, len(parts)))
            manifest["temperature"] = temperature
            manifest["calibration"] = {"loss_before": [train.score(p, labels)["loss"] for p in answers]}
            answers = [at_temperature(p, temperature) for p in answers]
            manifest["calibration"]["loss_after"] = [train.score(p, labels)["loss"] for p in answers]
        elif taken:
            manifest["temperature"] = taken["temperature"]
            manifest["calibration"] = {"temperature_of": taken["sha256"]}
            answers = [at_temperature(p, taken["temperature"]) for p in answers]
        seen = any(map(train.saw_validation, manifests))
        manifest["scores"] = train.name_scores([train.score(p, labels) for p in answers], seen)
        write_json(temporary / "manifest.json", manifest)
        shutil.copyfile(folders[0] / "audit.json", temporary / "audit.json")
        write_run(temporary, [folders[place] for place in used], manifest, made, whole, time.monotonic() - started)
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def copy_members(folders: list[Path], manifests: list[dict], out: Path) -> dict:
    """Copy the weights of all; returns the manifest's "sha256" and, where there are several, "members"."""
    files = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        for name, sha256 in files_of(manifest).items():
            new = f"member-{len(files) + 1}.weights.h5" if files else FIRST
            shutil.copyfile(folder / name, out / new)
            files[new] = sha256
    first = files.pop(FIRST)
    return {"sha256": first, "members": files} if files else {"sha256": first}


def write_run(temporary: Path, folders: list[Path], manifest: dict, made: dict | None, whole, spent: float) -> None:
    """run.json, for training.compare: of a copy (nothing `made`) its own, else that of the whole, without a history."""
    runs = []
    for folder in folders:
        try:
            runs.append(json.loads((folder / "run.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):  # a run of which nothing but the weights is left can still be combined
            runs.append(None)
    if made is None:
        if runs[0] is not None:
            write_json(temporary / "run.json", runs[0])
        return
    times = len(whole.networks)
    run = {
        "recipe": f"{made['kind']} of {', '.join(folder.name for folder in folders)}",
        "network": manifest.get("network", "EfficientNetV2B0"),
        "weights": manifest["settings"].get("weights"),
        "parameters": times * networks.parameters(whole.networks[0]),
        "flops": times * networks.flops(whole.networks[0], data.IMAGE_SIZE),
        "file_mb": round(sum((temporary / name).stat().st_size for name in files_of(manifest)) / 1e6, 2),
        "seconds": None if None in runs else round(sum(run["seconds"] or 0 for run in runs) + spent, 1),
        "commit": commit(),
        "settings": manifest["settings"],
        "epochs_done": manifest["epochs_done"],
        "saw_validation": train.saw_validation(manifest),
        "scores": manifest["scores"],
        "history": [],
    }
    write_json(temporary / "run.json", run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of training runs")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "training_set.npz", help="what they trained on")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--greedy", action="store_true", help="average only those that do not lower the accuracy")
    way.add_argument("--ensemble", action="store_true", help="average probabilities in place of weights")
    heat = parser.add_mutually_exclusive_group()
    heat.add_argument("--calibrate", action="store_true", help="fit the temperature on the validation cells")
    heat.add_argument("--temperature-of", type=Path, metavar="RUN", help="take the temperature of this run")
    parser.add_argument("--views", type=int, default=1, choices=range(1, 5), help="flips averaged for unsure images")
    args = parser.parse_args()
    kind = "greedy" if args.greedy else "ensemble" if args.ensemble else "average"
    try:
        cells = data.read(args.data)
        manifest = combine(args.runs, cells, args.out, kind, args.calibrate, args.temperature_of, args.views)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for name, part in manifest["scores"].items():
        print(f"{name.replace('_', ' ')}: accuracy {part['accuracy']:.4f}, loss {part['loss']:.4f}")
    if "temperature" in manifest:
        print(f"temperature {manifest['temperature']:.3f}")


if __name__ == "__main__":
    main()
