"""
Comparing solvers
=================

The same images for each, a process of its own for each, the same clock. See :doc:`/comparing` for what makes a
comparison fair.
"""

import matplotlib.pyplot as plt

import fpmtools

data = fpmtools.simulate("thin", image_shape=(48, 64), leds="grid", upsample=3, photons=500)
compared = fpmtools.compare(data, ["ap", "adam", "inr"], z_um=0, calibrate="none")
compared.to_pandas()[["solver", "seconds", "psnr", "ssim", "chi2", "stored_bytes"]].round(3)

# %%
# Every result can be rendered:

figure, axes = plt.subplots(1, len(compared.reconstructions), figsize=(10, 2.8), layout="constrained")
for ax, name in zip(axes, compared.reconstructions, strict=True):
    ax.imshow(compared.reconstructions[name].amplitude(), cmap="gray", vmin=0.3, vmax=1.2)
    ax.set_title(name)
    ax.axis("off")

# %%
# Quality was measured on the way, with the clock standing still:

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for run in compared.runs:
    looks = run["quality_over_time"]
    ax.plot([look["seconds"] for look in looks], [look["psnr"] for look in looks], "o-", label=run["solver"])
ax.set(xlabel="seconds of solving", ylabel="PSNR of the amplitude, dB", xscale="log")
ax.legend()
plt.show()
