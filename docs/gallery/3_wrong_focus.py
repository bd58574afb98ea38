"""
What a wrong focus does
=======================

A thin sample 6 µm off the focus, solved at depths around it. A wrong z does not merely blur: every image is explained
a little worse, and that is how the right one can be found without knowing the sample.
"""

import matplotlib.pyplot as plt
import numpy as np

import fpmtools

data = fpmtools.simulate("thin", image_shape=(64, 80), leds="grid", upsample=3, defocus_um=6, photons=2000)
depths = np.linspace(-6, 18, 13)
results = [fpmtools.reconstruct(data, "ap", z_um=z, options={"sweeps": 40}, progress=False) for z in depths]

# %%
# χ² is the squared error of the predicted images over what photon noise makes: 1 where the model is right.

chi2 = [fpmtools.evaluate(result, data, ["chi2"])["chi2"] for result in results]
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.semilogy(depths, chi2, "o-")
ax.axhline(1, color="0.5", linewidth=0.8)
ax.axvline(6, color="0.5", linewidth=0.8, linestyle=":")
ax.set(xlabel="z that is taken for the sample's, µm", ylabel="χ²")
plt.show()

# %%
# Half-way from the focus the cells have rings around them, which are no part of the sample.

figure, axes = plt.subplots(2, 3, figsize=(9, 5), layout="constrained")
for column, index in zip(axes.T, [0, 3, 6], strict=True):
    column[0].imshow(results[index].amplitude(), cmap="gray", vmin=0.2, vmax=1.3)
    column[1].imshow(results[index].phase(), cmap="magma", vmin=-1, vmax=2)
    column[0].set_title(f"z = {depths[index]:g} µm, χ² {chi2[index]:.2g}")
for ax in axes.flat:
    ax.axis("off")

# %%
# ``fpmtools run`` looks for the focus by itself where neither ``--z`` nor the data say it: see :doc:`/calibrate`.
