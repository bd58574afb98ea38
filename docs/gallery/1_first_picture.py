"""
A first picture
===============

A sample, a solver, a picture. The sample is a simulated blood smear behind a 10× objective, lit by 68 LEDs one after
the other: 68 small images, each with the detail of the objective, together with more than twice of it.
"""

import matplotlib.pyplot as plt

import fpmtools

data = fpmtools.simulate("thin", image_shape=(72, 96))
data

# %%
# ``data`` has 68 images. ``ap`` (alternating projections) makes one complex field of them:

result = fpmtools.reconstruct(data, "ap", z_um=0)
result

# %%
# On the left what the camera sees with the LED on the axis, then amplitude and phase of what was reconstructed. The
# phase is that of the light behind the cells: they are transparent, and slow it down.

figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
axes[0].imshow(data.intensities[0], cmap="gray")
axes[0].set_title("raw image of one LED")
axes[1].imshow(result.amplitude(), cmap="gray")
axes[1].set_title("amplitude")
shown = axes[2].imshow(result.phase(unwrap=True), cmap="magma")
axes[2].set_title("phase")
figure.colorbar(shown, ax=axes[2], label="rad")
for ax in axes:
    ax.axis("off")

# %%
# ``result.plot()`` draws the last two with scales in µm. The truth is known here, so there are numbers, too:

fpmtools.evaluate(result, data, ["psnr", "ssim", "residual"])
