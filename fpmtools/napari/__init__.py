"""Results and measurements as layers of napari, which itself is not needed: the manifest names plain functions."""
