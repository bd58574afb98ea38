"""The paper's comparisons, on this machine: Zhou, Feng et al., Optica 10, 1679 (2023), doi:10.1364/OPTICA.505283.

    python benchmarks/paper.py            # the published patch sizes; solved to the end at 256²
    python benchmarks/paper.py --quick    # patches of 128² and 256², solved to the end at 128²: minutes

Minutes against patch size (its Fig. 3), bytes stored, all-in-focus images, and an example in 2-D and in 3-D; the
published numbers beside the measured ones. On the published files where they are in ``--data`` or where
``fpmtools data fetch`` puts them, on their simulated twins otherwise. Ctrl-C keeps what was measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import common

from fpmtools.runs.folder import RESULT_FILE
from fpmtools.runs.spec import RunSpec

# What is compared: row label → solver and options.
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ap:preset=paper": ("ap", {"preset": "paper"}),
    "inr:preset=paper": ("inr", {"preset": "paper"}),
    "ap": ("ap", {}),
    "inr": ("inr", {}),
}
FPM, INR = "ap:preset=paper", "inr:preset=paper"
BRIEF: dict[str, dict[str, Any]] = {INR: {"epochs": 1, "led_batch": 16}, "inr": {"steps": 5}}

SIZES, QUICK_SIZES = (128, 256, 512, 1024), (128, 256)
SOLVED, QUICK_SOLVED = 256, 128
Z_UM = (-20.0, 20.0)
PLANES = 161  # of the published stack
FOCUS_PLANES = 41  # 1 µm apart, half the recovered depth of field: what lies between is interpolated
METHODS: dict[str, dict[str, Any]] = {
    "normal variance": {},
    "normal variance, clipped": {"clip": True},
    "light field": {"method": "light-field"},
}
DRAWN = ("normal variance", "light field")
STEPS_S, BRIEF_S = 10.0, 0.05  # some steps, or one
SAMPLED_PLANES = 11  # of `ap` where only the time is wanted
SCALE = PLANES / SAMPLED_PLANES

PUBLISHED_HARDWARE = "RTX A6000"
PUBLISHED_MINUTES = {128: (10.4, 1.09), 256: (14.4, 1.22), 512: (19.1, 2.52), 1024: (40.3, 7.58)}  # FPM, INR
PUBLISHED_FOCUS_MSE = {"FPM, published": 2.34e-3, "FPM-INR, published": 1.41e-3, "FPM-INR, reproduced": 1.325e-3}


def main() -> None:
    """Measure, write ``paper.json`` and the figures, print the tables."""
    parser = common.parser(__doc__.splitlines()[0], repeats=2)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the published .mat files are")
    parser.add_argument("--sizes", type=_sides, metavar="N,…", help="patches to time (default: 128,256,512,1024)")
    parser.add_argument("--solved", type=int, metavar="N", help="patch that is solved to the end (default: 256)")
    parser.add_argument("--brief", action="store_true", help="a few steps only, to see that it runs: no results")
    args = parser.parse_args()
    args.sizes = args.sizes or (QUICK_SIZES if args.quick else SIZES)
    args.solved = args.solved or (QUICK_SOLVED if args.quick else SOLVED)

    import paper_data

    from fpmtools.errors import FpmError

    try:
        sources = paper_data.find_all(args.data)
    except FpmError as error:
        sys.exit(f"error: {error}")
    record: common.Record = {"times": [], "runs": {}, "focus": {}, "stored": {}, "figures": [], "brief": args.brief}
    record["data"] = {name: source.label for name, source in sources.items()}
    status = 0
    try:
        with tempfile.TemporaryDirectory(prefix="fpmtools-paper-") as folder:
            measure(args, sources, Path(folder), record)
    except (KeyboardInterrupt, SystemExit, FpmError) as reason:
        print(f"stopped: {str(reason) or 'Ctrl-C'}; what was measured is kept", file=sys.stderr)
        record["interrupted"] = True
        status = 130 if isinstance(reason, KeyboardInterrupt) else 1
    print(section(common.keep("paper", args, record)))
    if status:
        sys.exit(status)


def measure(args: argparse.Namespace, sources: dict[str, Any], folder: Path, record: common.Record) -> None:
    """Fill ``record``, stage by stage, so that an interrupted run has the stages before."""
    for side in args.sizes:
        record["times"] += time_patch(args, sources["volume"].patch(side, folder), record["times"])
    for name, source in sources.items():
        path = source.patch(args.solved, folder)
        solve_patch(args, name, path, folder, record)
        examine(args, name, path, folder, record)
    import paper_pictures

    published = {f"{name}, {PUBLISHED_HARDWARE}": _published_line(k) for k, name in enumerate(("FPM", "FPM-INR"))}
    lines = {label: _line(record, label) for label in SOLVERS}
    hardware = common.hardware_name(common.about(args.threads)["hardware"])
    _drawn(record, paper_pictures.minutes(published, lines, hardware, args.results / "paper_minutes.png"))


def time_patch(args: argparse.Namespace, path: Path, before: list[common.Record]) -> list[common.Record]:
    """A row per solver: what a whole run on 161 planes takes, from some of its steps, or from some of its planes."""
    shape = _shape(path)
    if before and shape == before[-1]["shape"]:
        return []  # the file has no more pixels
    print(f"timing {shape[0]}×{shape[1]}", file=sys.stderr, flush=True)
    budget_s = BRIEF_S if args.brief else STEPS_S
    specs = {label: common.briefly(_spec(args, label, path, PLANES), budget_s) for label in SOLVERS}
    specs["ap"] = _spec(args, "ap", path, SAMPLED_PLANES)  # it stops by itself, and planes are independent
    work = partial(common.work, args=args, alone=not args.brief, render=True)
    runs = common.interleaved({label: partial(work, spec) for label, spec in specs.items()}, args.repeats)
    rows = []
    for label, found in runs.items():
        times = (run["seconds"] * SCALE if label == "ap" else run["full_seconds"] for run in found)
        rows.append({"label": label, "shape": shape, "seconds": common.spread(times)})
        if label == "inr":
            rows[-1]["render_seconds"] = min(run["render_seconds"] for run in found)
    return rows


def solve_patch(args: argparse.Namespace, name: str, path: Path, folder: Path, record: common.Record) -> None:
    """Every solver to its end; its result stays in ``folder``."""
    shape = _shape(path)
    runs: common.Record = {}
    record["runs"][name] = {"shape": shape, "solvers": runs}
    for label in SOLVERS:
        print(f"solving {name} {shape[0]}×{shape[1]}: {label}", file=sys.stderr, flush=True)
        planes = FOCUS_PLANES if name == "volume" else 1
        result = _result(folder, name, label)
        runs[label] = common.run(_spec(args, label, path, planes), result, alone=not args.brief)
        runs[label]["file_bytes"] = (result / RESULT_FILE).stat().st_size
        print(f"  {common.show(runs[label]['seconds'])} s", file=sys.stderr, flush=True)


def examine(args: argparse.Namespace, name: str, path: Path, folder: Path, record: common.Record) -> None:
    """Bytes, all-in-focus quality and figures of the saved results."""
    import paper_pictures

    import fpmtools

    data, runs = fpmtools.load(path), record["runs"][name]["solvers"]
    results = {label: fpmtools.open_result(_result(folder, name, label)) for label in SOLVERS}
    arrays = results[INR].dump()[0]
    record["stored"][name] = {
        "dense": common.stack_bytes(path, PLANES if name == "volume" else 1),
        "amplitude_network": sum(array.nbytes for key, array in arrays.items() if key.startswith("branches.0.")),
        "files": {label: run["file_bytes"] for label, run in runs.items()},
    }
    if name == "volume":
        focus(args, data, results, record)
    drawn = {label: results[label] for label in ("ap", "inr", INR)}
    notes = {label: _note(runs[label]) for label in drawn}
    _drawn(record, paper_pictures.example(drawn, notes, data, args.results / f"paper_{name}.png"))


def focus(args: argparse.Namespace, data: Any, results: dict[str, Any], record: common.Record) -> None:
    """All-in-focus images by each of :data:`METHODS`, and where there is a truth how far they are from it."""
    import numpy as np
    import paper_pictures

    from fpmtools import evaluation, metrics
    from fpmtools.evaluation.measures import depth_error_um

    z_um = tuple(np.linspace(*Z_UM, FOCUS_PLANES))
    cases = {label: evaluation.Case(result, data, z_um=z_um) for label, result in results.items()}
    pictures: dict[str, dict[str, Any]] = {}
    for method, options in METHODS.items():
        images = {label: metrics.all_in_focus(result, z_um, **options) for label, result in results.items()}
        if data.truth is not None:
            truth = _in_focus_truth(cases[INR], **options)
            scores = record["focus"][method] = {}
            for label, image in images.items():
                gain = metrics.align(truth.amplitude, image.amplitude).real
                images[label] = metrics.AllInFocus(gain * image.amplitude, image.depth_um)
                quality = metrics.quality(truth.amplitude, images[label].amplitude, data_range="truth")
                scores[label] = {"mse": quality["rmse"] ** 2, "psnr": quality["psnr"], "ssim": quality["ssim"]}
                scores[label]["depth_um"] = depth_error_um(cases[label], image)
            images = {"truth": truth, **images}
        pictures[method] = images
    if data.truth is not None:
        record["depth_of_truth_um"] = float(np.sqrt(np.mean(data.truth.depth_um**2)))
    drawn = {method: pictures[method] for method in DRAWN}
    extent = results[INR].grid.extent_um
    _drawn(record, paper_pictures.in_focus(drawn, extent, Z_UM, args.results / "paper_focus.png"))


def _in_focus_truth(case: Any, *, clip: bool = False, **_: Any) -> Any:
    """The truth as the all-in-focus image of a stack of one plane: clipping treats it as it treats the others."""
    import numpy as np

    from fpmtools import Grid, PlaneStack, metrics

    field = case.matched.truth.astype(np.complex64)
    stack = PlaneStack(field[None], (0.0,), Grid(field.shape, case.reconstruction.grid.extent_um, (0.0, 0.0)))
    return metrics.AllInFocus(metrics.all_in_focus(stack, (0.0,), clip=clip).amplitude, case.truth.depth_um)


def _spec(args: argparse.Namespace, label: str, path: Path, planes: int) -> RunSpec:
    """``planes`` is 1 for the sample in one plane; an ``inr`` knows no planes, only their range."""
    import numpy as np

    solver, options = SOLVERS[label]
    small = BRIEF.get(label, {"sweeps": 2}) if args.brief else {}
    z_um = None if planes == 1 else Z_UM if solver == "inr" else tuple(np.linspace(*Z_UM, planes).tolist())
    return common.spec(args, path, solver, {**options, **small}, z_um)


def _shape(path: Path) -> list[int]:
    import fpmtools

    return list(fpmtools.load(path).image_shape)


def _result(folder: Path, name: str, label: str) -> Path:
    return folder / f"{name}-{list(SOLVERS).index(label)}"


def _note(run: common.Record) -> str:
    psnr = "" if run["quality"] is None else f"{run['quality']['psnr']:.1f} dB · "
    return f"{psnr}{common.show(run['seconds'])} s"


def _drawn(record: common.Record, path: Path) -> None:
    print(f"wrote {path.name}", file=sys.stderr)
    record["figures"].append(path.name)


def _sides(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(part) for part in text.split(",")))


def seconds(record: common.Record, row: common.Record) -> tuple[common.Record, bool]:
    """Time of the whole run of a row of ``times``, and whether it was run whole: an ``inr`` at the patch solved."""
    runs = record["runs"].get("volume", {"shape": None, "solvers": {}})
    run = runs["solvers"].get(row["label"])
    if run is not None and row["label"].startswith("inr") and runs["shape"] == row["shape"]:
        return common.spread([run["seconds"]]), True
    return row["seconds"], False


def _line(record: common.Record, label: str) -> list[tuple[float, float]]:
    """(side of the patch, minutes)."""
    rows = [row for row in record["times"] if row["label"] == label]
    return [(max(row["shape"]), seconds(record, row)[0]["median"] / 60) for row in rows]


def _published_line(column: int) -> list[tuple[float, float]]:
    return [(side, pair[column]) for side, pair in PUBLISHED_MINUTES.items()]


def section(record: common.Record) -> str:
    """The record as Markdown."""
    parts = [
        "Against Zhou, Feng et al., Optica 10, 1679 (2023). The stack is "
        f"{record['data']['volume']}, 68 LEDs, z {Z_UM[0]:g} … {Z_UM[1]:g} µm; the sample in one plane is "
        f"{record['data']['flat']}. A twin has the published optics, LEDs and sizes; any patch of the stack's reaches "
        "from −10 to 10 µm. `ap:preset=paper` is the classical baseline (25 sweeps), but in complex64 and with planes "
        "solved together; `inr:preset=paper` is the published network and schedule."
    ]
    if record["brief"]:
        parts.append("**A trial of the script with a few steps each: no number here means anything.**")
    if record.get("interrupted"):
        parts.append("The run was interrupted; what it had measured is here.")
    writers = {"times": _times_section, "stored": _stored_section, "focus": _focus_section, "runs": _runs_section}
    parts += [writer(record) for part, writer in writers.items() if record[part]]
    parts += [f"![{name.removesuffix('.png').replace('_', ' ')}](results/{name})" for name in record["figures"]]
    return "\n\n".join(parts)


def _times_section(record: common.Record) -> str:
    """Minutes, and ratios."""
    ours = common.hardware_name(record["about"]["hardware"])
    patches: dict[tuple[int, int], dict[str, common.Record]] = {}
    for row in record["times"]:
        patches.setdefault(tuple(row["shape"]), {})[row["label"]] = row
    minutes, ratios = [], []
    for (h, w), rows in patches.items():
        fpm, inr = PUBLISHED_MINUTES.get(h, (None, None)) if h == w else (None, None)
        found = {label: seconds(record, rows[label]) for label in SOLVERS}
        at = {label: time["median"] / 60 for label, (time, _) in found.items()}
        shown = [("" if whole else "≈ ") + common.show(_in_minutes(time)) for time, whole in found.values()]
        minutes.append((f"{h}×{w}", fpm, inr, *shown, PLANES * rows["inr"]["render_seconds"] / 60))
        pairs = [(fpm, inr), (at[FPM], at[INR]), (at[FPM], at["ap"]), (at[INR], at["inr"]), (inr, at["inr"])]
        ratios.append((f"{h}×{w}", *(a / b if a and b else None for a, b in pairs)))
    head = (
        "patch",
        "FPM, published",
        "FPM-INR, published",
        *(f"`{label}`" for label in SOLVERS),
        "161 planes of `inr`",
    )
    ratio_head = ("patch", "FPM / FPM-INR, published", "the same here", "FPM / `ap`", "FPM-INR / `inr`")
    return "\n\n".join(
        [
            f"**Minutes against patch size** (Fig. 3). Published: {PUBLISHED_HARDWARE}, read off the figure; measured: "
            f"{ours}, {record['about']['threads']} thread(s). `ap` solves {PLANES} planes; `inr` covers the range and "
            "renders any plane, and the last column is what rendering as many takes. ≈: not run whole; the cost of a "
            "step, measured in this run, × the number of steps, and for `ap`, which stops by itself, the time of "
            f"{SAMPLED_PLANES} planes over the whole range × {PLANES}/{SAMPLED_PLANES}.",
            common.table(head, minutes),
            f"Ratios of these; in the last column the published minutes on an {PUBLISHED_HARDWARE} are over ours on "
            "the processor named:",
            common.table((*ratio_head, f"{PUBLISHED_HARDWARE} / `inr` here"), ratios),
        ]
    )


def _in_minutes(time: common.Record) -> common.Record:
    return {key: value / 60 for key, value in time.items()}


def _stored_section(record: common.Record) -> str:
    """Files against dense stacks."""
    rows: list[tuple[Any, ...]] = [
        ("published: 1024², amplitude alone", "32 MiB network", "80 (of 2576 MiB)", None, None),
    ]
    for name, stored in record["stored"].items():
        dense, what = stored["dense"], f"{PLANES} planes" if name == "volume" else "one plane"
        h, w = record["runs"][name]["shape"]
        files = {f"`{label}`": size for label, size in stored["files"].items()}
        counted = {f"`{INR}`, its amplitude network alone": stored["amplitude_network"], **files}
        for label, size in counted.items():
            alone = size == stored["amplitude_network"]
            ratios = [dense[key] / size for key in ("amplitude", "complex", "band_limited_16_bit")]
            rows.append((f"{h}×{w}, {what}: {label}", common.size(size), *(ratios[:1] if alone else ratios)))
    rows = [(*row, *[None] * (5 - len(row))) for row in rows]
    return "\n\n".join(
        [
            f"**Stored**, the file on disk, and how many times smaller it is than {PLANES} planes (the sample in one "
            "plane: than that plane) as float32 amplitude, the paper's definition; as float32 amplitude and phase; and "
            "as 16-bit complex numbers inside the synthetic aperture, which is the fair one. Below 1 it is larger: in "
            f"2-D the published network is larger than the field. `ap` has stored {FOCUS_PLANES} planes, which lose "
            "nothing.",
            common.table(("what", "bytes", "amplitude", "with phase", "band-limited"), rows),
        ]
    )


def _focus_section(record: common.Record) -> str:
    """All-in-focus numbers."""
    rows: list[tuple[Any, ...]] = [(label, mse, None, None, None) for label, mse in PUBLISHED_FOCUS_MSE.items()]
    for method, found in record["focus"].items():
        for label, numbers in found.items():
            psnr, ssim, depth = (f"{numbers[name]:.{n}f}" for name, n in (("psnr", 2), ("ssim", 3), ("depth_um", 2)))
            rows.append((f"{method}: `{label}`", numbers["mse"], psnr, ssim, depth))
    return "\n\n".join(
        [
            f"**All in focus** from {FOCUS_PLANES} planes, by normal variance as published, and by light-field "
            "weighting; clipped: stack and truth cut off at their most frequent amplitude, as in the published script. "
            "Here against the twin's known amplitude in focus, band-limited, after one gain (clear sample = 1). The "
            "published errors, and the reproduction's (22.79 dB and SSIM 0.775 per slice), are against a stack taken "
            "in bright field, whose own blur, noise and scale are part of them, so only their order can be compared. "
            "Normal variance cannot tell the phase contrast beside the focus from detail in it. Depth is the map's rms "
            f"error where there is detail; a map of zeros would be off by {record['depth_of_truth_um']:.1f} µm over "
            "all pixels.",
            common.table(("", "MSE", "PSNR, dB", "SSIM", "depth, µm"), rows),
        ]
    )


def _runs_section(record: common.Record) -> str:
    """What the runs to the end took and gave."""
    rows = []
    for name, runs in record["runs"].items():
        h, w = runs["shape"]
        for label, run in runs["solvers"].items():
            found = run["quality"] or {}
            cells = (found.get("psnr"), found.get("ssim"), found.get("phase_rmse_rad"))
            shown = [value if value is None else f"{value:.{n}f}" for value, n in zip(cells, (2, 3, 3), strict=True)]
            rows.append((f"{name}, {h}×{w}: `{label}`", run["seconds"], *shown))
    return "\n\n".join(
        [
            f"**Solved to the end** (`ap` on {FOCUS_PLANES} planes of the stack): amplitude of the composite, every "
            "column at its own depth, and phase, against the band-limited truth where there is one.",
            common.table(("run", "s", "PSNR, dB", "SSIM", "phase, rad"), rows),
        ]
    )


if __name__ == "__main__":
    common.to_the_end(main)
