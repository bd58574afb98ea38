"""
Calibrating a board that is off
===============================

Here the LEDs do not stand where the data say (0.012 NA off), and the objective has aberrations of 0.7 rad. Both are
found together with the object, and kept because images that the fit has not seen are predicted better with them.
"""

import matplotlib.pyplot as plt

import fpmtools

data = fpmtools.simulate(
    "thin", image_shape=(48, 64), photons=2000, misaligned_na=0.012, aberration_rad=0.7, surround=2
)
as_given = fpmtools.reconstruct(data, "ap", z_um=0, calibration="nominal")
found = fpmtools.calibrate(data, "board,jitter,pupil", z_um=0)
found

# %%
# The same solver, the same images:

result = fpmtools.reconstruct(data, "ap", z_um=0, calibration=found)
figure, axes = plt.subplots(2, 2, figsize=(8, 6.4), layout="constrained")
for row, (one, title) in zip(axes, [(as_given, "as given"), (result, "calibrated")], strict=True):
    psnr = fpmtools.evaluate(one, data, ["psnr"])["psnr"]
    row[0].imshow(one.amplitude(), cmap="gray", vmin=0.2, vmax=1.2)
    row[0].set_title(f"{title}: amplitude, {psnr:.1f} dB")
    row[1].imshow(one.phase(), cmap="magma", vmin=-1, vmax=2)
    row[1].set_title("phase")
for ax in axes.flat:
    ax.axis("off")

# %%
# Where the LEDs are said to stand, where they were found, and where they truly were:

actual = data.provenance["actual"]["na"]
figure, ax = plt.subplots(figsize=(6.2, 4.6), layout="constrained")
ax.plot(*data.na.T, "o", markersize=3, color="0.6", label="as given")
ax.plot(*found.na.T, "x", color="C0", label="found")
ax.plot(*zip(*actual, strict=True), "+", color="C3", label="true")
ax.set(xlabel="na x", ylabel="na y", aspect="equal")
ax.invert_yaxis()
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %%
# A calibration can be kept for other samples on the same microscope: ``found.save("microscope.safetensors",
# data.optics)``.
