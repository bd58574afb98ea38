"""
Any depth from one network
==========================

The sample lies on an inclined plane, from z = −5 µm at its left side to 5 µm at its right. ``inr`` fits
one small network to all depths together (FPM-INR, `Zhou et al., 2023 <https://doi.org/10.1364/OPTICA.505283>`_),
which then renders any z between them, without solving again.
"""

import matplotlib.pyplot as plt
import numpy as np

import fpmtools

data = fpmtools.simulate("tilted", image_shape=(64, 96), tilt_um=10)
result = fpmtools.reconstruct(data, "inr", z_um=np.linspace(-5, 5, 11))
result

# %%
# What is in focus moves from one side to the other:

figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
for ax, z_um in zip(axes, [-4.2, 0.3, 4.2], strict=True):
    ax.imshow(result.amplitude(z_um), cmap="gray", vmin=0.3, vmax=1.2)
    ax.set_title(f"z = {z_um:g} µm")
    ax.axis("off")

# %%
# No plane was solved at 0.3 µm. The file holds the network, not the planes:

planes = 11 * result.grid.shape[0] * result.grid.shape[1] * 8
print(f"{result.stored_bytes / 1e3:.0f} kB; 11 planes as complex numbers: {planes / 1e3:.0f} kB")

# %%
# A cut through the volume, z downwards, along the middle row:

z = np.linspace(-5, 5, 41)
cut = np.stack([result.amplitude(depth)[result.grid.shape[0] // 2] for depth in z])
figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
ax.imshow(cut, cmap="gray", extent=(0, result.grid.extent_um[1], 5, -5), aspect="auto")
ax.set(xlabel="x, µm", ylabel="z, µm", title="amplitude, one row at 41 depths")
plt.show()
