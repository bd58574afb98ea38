"""
A first picture
===============
"""

import fpmtools

data = fpmtools.simulate("thin", image_shape=(64, 80))
result = fpmtools.reconstruct(data, "ap", options={"sweeps": 10})
result.plot()
