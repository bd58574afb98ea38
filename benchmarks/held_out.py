"""Does the error on LEDs that a solver has not seen rank solvers as the true error does?

On simulated data both are known. For each data set, every solver configuration is run twice: on all LEDs, for the true
error, and on nine LEDs of ten, for the error of the tenth's predicted amplitudes. Spearman's rank correlation of the
two says whether the second can stand for the first where there is no truth. The residual on LEDs that the solver *has*
seen is ranked as well, for comparison.

The true error is the relative error of the complex field against the truth, each pixel at its own depth, without a
constant and a linear phase, which no measurement tells, and without an eighth of the field at each side, where light
comes from outside.
"""

from __future__ import annotations

import itertools
import sys
from functools import partial
from typing import Any

import common
import numpy as np

SAMPLES = (
    "thin+noise",
    "thin+noise+tile",
    "phase+noise",
    "phase+noise+misaligned",
    "bars+noise",
    "siemens+noise+tile",
    "thin+noise+aberrated",
    "thin+noise+vignetted",
    "tilted+noise",
    "tilted+noise+tile",
    "layers+noise",
    "thick+noise+tile",
)
# Deliberately good and bad, so that there is something to rank.
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ap": ("ap", {}),
    "ap:preset=paper": ("ap", {"preset": "paper"}),
    "ap:sweeps=1": ("ap", {"sweeps": 1}),
    "adam": ("adam", {}),
    "adam:start=1:sweeps=1": ("adam", {"start": 1, "sweeps": 1}),
    "inr:steps=300": ("inr", {"steps": 300}),
}
TRUE, HELD_OUT, RESIDUAL = "true_error", "held_out", "residual"
DECISIVE = 1.05  # solvers whose true errors differ by more than this factor are not a tie


def measure(sample: str, size: str, seed: int) -> dict[str, dict[str, float]]:
    """True error, held-out-LED error and residual of every solver on one data set."""
    from fpmtools import catalogue, engine, evaluation

    dataset = catalogue.make(f"{sample}@{size}", seed=seed)
    found = {}
    for label, (solver, options) in SOLVERS.items():
        solve = partial(engine.reconstruct, solver=solver, options=options, z_um=dataset.planes_um, device="cpu")
        result = solve(dataset)
        numbers = evaluation.evaluate(result, dataset, (HELD_OUT, RESIDUAL), solver=solve, z_um=dataset.planes_um)
        found[label] = {TRUE: true_error(result, dataset), **numbers}
    return found


def true_error(result: Any, dataset: Any) -> float:
    """See the top of this file."""
    from fpmtools import metrics

    matched = metrics.match(result, dataset)
    field = metrics.remove_tilt_of(matched.field, matched.truth)
    middle = tuple(slice(n // 8, n - n // 8) for n in field.shape)
    return metrics.complex_nrmse(matched.truth[middle], field[middle])


def rank_correlation(found: dict[str, dict[str, float]], name: str) -> float:
    """Spearman's, over the solvers, of a number with the true error."""
    from scipy.stats import spearmanr

    columns = [[numbers[key] for numbers in found.values()] for key in (name, TRUE)]
    return float(spearmanr(*columns).statistic)


def picks_best(found: dict[str, dict[str, float]], name: str) -> float:
    """True error of the solver that a number would choose, over that of the best solver: 1 is the right choice."""
    chosen = min(found, key=lambda label: found[label][name])
    return found[chosen][TRUE] / min(numbers[TRUE] for numbers in found.values())


def decisive_pairs(found: dict[str, dict[str, float]], name: str) -> tuple[int, int]:
    """Pairs of solvers that are no tie: how many a number ranks rightly, and how many there are."""
    pairs = [
        (a, b)
        for a, b in itertools.combinations(found.values(), 2)
        if max(a[TRUE], b[TRUE]) > DECISIVE * min(a[TRUE], b[TRUE])
    ]
    return sum((a[name] < b[name]) == (a[TRUE] < b[TRUE]) for a, b in pairs), len(pairs)


def summary(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "median": float(np.median(values)), "min": min(values)}


def section(record: dict[str, Any]) -> str:
    """The part of the results page."""
    rows = []
    for sample, entry in record["data"].items():
        errors = [entry["solvers"][label] for label in record["solvers"]]
        rows.append(
            [
                sample,
                *(f"{100 * e[TRUE]:.3g} / {100 * e[HELD_OUT]:.3g}" for e in errors),
                f"{entry['rho']:.2f}",
                f"{entry['rho_residual']:.2f}",
                "{} of {}".format(*entry["pairs"]),
                f"{entry['choice']:.2f}",
            ]
        )
    header = ["data", *record["solvers"], "ρ held-out", "ρ residual", "pairs", "choice"]
    entries = record["data"].values()
    lines = [
        "True error of the complex field / error on held-out LEDs, in %; rank correlation ρ over the solvers; pairs of",
        f"solvers whose true errors differ by more than {DECISIVE - 1:.0%} that the held-out LEDs rank rightly; the",
        "true error of the solver that they choose over that of the best.\n",
        common.table(header, rows) + "\n",
    ]
    for name, rho, pairs in (("held-out LEDs", "rho", "pairs"), ("seen LEDs", "rho_residual", "pairs_residual")):
        right, of = (sum(entry[pairs][i] for entry in entries) for i in (0, 1))
        numbers = ", ".join(f"{kind} {value:.2f}" for kind, value in record[rho].items())
        lines.append(f"- {name}: ρ with the truth {numbers}; {right} of {of} pairs.")
    return "\n".join(lines)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0], repeats=1)
    parser.add_argument("--size", default="48x56", help="HEIGHTxWIDTH of one image in camera pixels")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    samples, size = (SAMPLES[:1], "24x28") if arguments.quick else (SAMPLES, arguments.size)
    data: dict[str, Any] = {}
    for sample in samples:
        for seed in range(arguments.repeats):
            print(sample, seed, file=sys.stderr, flush=True)
            found = measure(sample, size, seed)
            data[f"{sample} {seed}" if arguments.repeats > 1 else sample] = {
                "solvers": found,
                "rho": rank_correlation(found, HELD_OUT),
                "rho_residual": rank_correlation(found, RESIDUAL),
                "pairs": decisive_pairs(found, HELD_OUT),
                "pairs_residual": decisive_pairs(found, RESIDUAL),
                "choice": picks_best(found, HELD_OUT),
            }
    measured = {
        "size": size,
        "solvers": list(SOLVERS),
        "data": data,
        "rho": summary([entry["rho"] for entry in data.values()]),
        "rho_residual": summary([entry["rho_residual"] for entry in data.values()]),
    }
    print(section(common.keep("held_out", arguments, measured)))


if __name__ == "__main__":
    common.to_the_end(main)
