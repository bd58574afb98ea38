"""
Exporting to other programs
===========================

One call, and the end of the file's name says the format. Planes are rendered one at a time, so that a stack needs no
more memory than a plane.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import tifffile

import fpmtools

data = fpmtools.simulate("tilted", image_shape=(64, 96), tilt_um=10)
result = fpmtools.reconstruct(data, "lowrank", z_um=[-5, -2.5, 0, 2.5, 5])
folder = Path(tempfile.mkdtemp())
fpmtools.export(result, folder / "cells.ome.tiff", z_um=[-4, 0, 4])

# %%
# Another program's view of it: channels with names and units, pixels in µm, the z of each plane.

with tifffile.TiffFile(folder / "cells.ome.tiff") as file:
    series = file.series[0]
    print(series.axes, series.shape)
    print(file.ome_metadata[file.ome_metadata.index("<Pixels") :].split(">")[0].replace('" ', '"\n  '))
    stack = series.asarray()

figure, axes = plt.subplots(2, 3, figsize=(10, 4.6), layout="constrained")
for k, z_um in enumerate([-4, 0, 4]):
    axes[0, k].imshow(stack[0, k] if series.axes.startswith("CZ") else stack[k, 0], cmap="gray")
    axes[1, k].imshow(stack[1, k] if series.axes.startswith("CZ") else stack[k, 1], cmap="magma")
    axes[0, k].set_title(f"z = {z_um} µm")
for ax in axes.flat:
    ax.axis("off")

# %%
# The same for NumPy, for a figure, for a film through z:

for name, z in [("cells.npz", [-4, 0, 4]), ("cells.png", 0), ("cells.gif", [-4, -2, 0, 2, 4])]:
    fpmtools.export(result, folder / name, z_um=z)
    print(f"{name}: {(folder / name).stat().st_size / 1e3:.0f} kB")
