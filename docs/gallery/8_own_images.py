"""
From TIFF files to a picture: a notebook
========================================

Some twenty lines from a folder of one's own images to a calibrated comparison. It can be downloaded as a notebook
below. The first cell only stands in for a microscope: leave it out, and name your own folder.
"""

from pathlib import Path

import pandas
import tifffile

import fpmtools
from fpmtools.leds import direction_sines, raster

na = direction_sines(raster(9, 9, 5.0), 74.0)
light = fpmtools.simulate("thin", image_shape=(72, 96), leds=na, photons=2000, aberration_rad=0.6)
Path("my_images").mkdir(exist_ok=True)
for i, image in enumerate(light.intensities):
    tifffile.imwrite(f"my_images/led_{i:02}.tif", (4000 * image + 100).astype("uint16"))

# %%
# Load, with the numbers of the microscope and of its LED board:

optics = {"wavelength_um": 0.5226, "na": 0.256, "magnification": 10, "camera_pixel_um": 3.45}
board = {"rule": "raster", "ny": 9, "nx": 9, "pitch_mm": 5, "height_mm": 74}
data = fpmtools.load("my_images", optics=optics, leds=board, dark_level=100)
fpmtools.inspect(data)

# %%
# Crop to a part of the field, and let the images say what the instrument is:

part = data.crop(12, 16, 48, 64)
found = fpmtools.calibrate(part, "pupil", z_um=0)
found

# %%
# Three solvers, with one calibration:

solvers = ("ap", "adam", "lbfgs")
results = {name: fpmtools.reconstruct(part, name, z_um=0, calibration=found) for name in solvers}
scores = {name: fpmtools.evaluate(results[name], part, ["chi2", "residual"]) for name in solvers}
pandas.DataFrame(scores)

# %%
# Look, and keep:

axes = results["ap"].plot()
fpmtools.export(results["ap"], "cells.ome.tiff", force=True)
results["ap"].save("cells.safetensors")
