"""Assemble RESULTS.md from the JSON records in results/ and the prose in notes.md.

python benchmarks/render.py
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import common

SECTIONS = {
    "speed": "Time to quality",
    "large": "A full-size stack",
    "slides": "Whole slides",
    "scaling": "How cost grows",
    "roofline": "How far from the FFTs",
    "peers": "Other packages",
    "families": "Families",
    "real": "What is wrong with a microscope",
    "mistakes": "Deliberate mistakes",
    "paper": "The paper's comparisons",
    "gpu": "On a GPU",
    "held_out": "Held-out LEDs against the truth",
}


def main() -> None:
    """Write ``RESULTS.md`` beside the results folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=common.RESULTS, help="folder of the JSON records")
    parser.add_argument("--out", type=Path, default=common.HERE / "RESULTS.md", help="file to write")
    args = parser.parse_args()
    parts = ["# Measured results", "Written by `python benchmarks/render.py` from the records in `results/`."]
    for name, title in SECTIONS.items():
        record = common.kept(args.results, name)
        if record is not None:
            section = importlib.import_module(name).section(record)
            parts += [f"## {title}", circumstances(record["about"]), section]
    parts.append((common.HERE / "notes.md").read_text(encoding="utf-8").strip())
    args.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def circumstances(about: common.Record) -> str:
    """One line: command, machine, threads, versions, date."""
    machine, versions = about["hardware"], about["versions"]
    return (
        f"`{about['command']}` on {common.hardware_name(machine)}, {machine['usable_cores']} cores, "
        f"{common.size(machine['memory_bytes'])} memory, {about['threads']} threads "
        f"(waiting: {about['wait_policy'].lower()}); torch {versions['torch']}, "
        f"Python {versions['python']}; {about['date']}."
    )


if __name__ == "__main__":
    common.to_the_end(main)
