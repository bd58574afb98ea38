"""The formats that fpmtools itself reads and writes, as records; pictures are announced by :mod:`fpmtools.report`.

They come through the same door as anyone's, the entry point ``formats``. Nothing here imports a format's module.
"""

from __future__ import annotations

from fpmtools.records import ReaderRecord, WriterRecord
from fpmtools.registry import hookimpl

_VARIABLES = "fpmtools.formats.variables:read"
_ZARR = ("zarr.json", ".zgroup")  # in each group
_KEY, _CHANNEL = frozenset({"key"}), frozenset({"channel"})

READERS = (
    ReaderRecord(
        name="native",
        summary="the project's own .safetensors file",
        read="fpmtools.formats.native:read_recording",
    ),
    ReaderRecord(
        name="fpm_inr",
        summary="MATLAB with I_low and na_calib or freqXY_calib, or with I alone (FPM-INR, APIC)",
        read=_VARIABLES,
        takes=_KEY,
    ),
    ReaderRecord(
        name="uconn",
        summary="MATLAB with imlow_HDR, the amplitude, and the LED board's offsets (UConn)",
        read=_VARIABLES,
        takes=_KEY,
    ),
    ReaderRecord(
        name="fpm_software",
        summary="MATLAB with imlow, NA_list, NA (FPM_software)",
        read=_VARIABLES,
        takes=_KEY,
    ),
    ReaderRecord(
        name="ptylab",
        summary="HDF5 with ptychogram and encoder, or with sections (PtyLab)",
        read=_VARIABLES,
        takes=_KEY,
    ),
    ReaderRecord(
        name="array",
        summary="any .mat, HDF5, .npy or .npz with a 3-D array of intensities",
        read="fpmtools.formats.variables:read_array",
        takes=_KEY,
    ),
    ReaderRecord(
        name="images",
        summary="a folder of TIFF, PNG, BMP or JPEG images in natural order, or one file with a page per LED",
        read="fpmtools.formats.images:read_recording",
        takes=_CHANNEL,
    ),
    ReaderRecord(
        name="ome-tiff",
        summary="one OME-TIFF with all images, its pixel size, and what it says of objective and light",
        read="fpmtools.formats.ome_tiff:read",
        takes=_CHANNEL,
    ),
    ReaderRecord(
        name="ome-zarr",
        summary="an OME-Zarr folder, version 0.4 or 0.5, with its pixel size; needs fpmtools[zarr]",
        read="fpmtools.formats.ome_zarr_reader:read",
        takes=_KEY | _CHANNEL,
    ),
)

WRITERS = (
    WriterRecord(
        name="npy",
        summary="NumPy: complex64 [y, x], or [z, y, x] of several planes; nothing else",
        write="fpmtools.formats.npy:write_npy",
        suffixes=(".npy",),
        holds="complex",
    ),
    WriterRecord(
        name="npz",
        summary="NumPy: field complex64 [z, y, x], z_um, pixel_um (y, x), wavelength_um",
        write="fpmtools.formats.npy:write_npz",
        suffixes=(".npz",),
        holds="complex",
    ),
    WriterRecord(
        name="imagej",
        summary="TIFF for ImageJ: float32 channels, with pixel size, z spacing and labels",
        write="fpmtools.formats.imagej:write",
        suffixes=(".tiff", ".tif"),
    ),
    WriterRecord(
        name="ome-tiff",
        summary="OME-TIFF: float32 channels with units, pixels in µm, the z of each plane, a pyramid",
        write="fpmtools.formats.ome_tiff:write",
        suffixes=(".ome.tiff", ".ome.tif", ".ome.btf"),
    ),
    WriterRecord(
        name="ome-zarr",
        summary="OME-Zarr 0.5 (Zarr 3): float32 channels with windows, pixels in µm, a pyramid; needs fpmtools[zarr]",
        write="fpmtools.formats.ome_zarr:write",
        suffixes=(".ome.zarr", ".zarr"),
        folder=_ZARR,
    ),
    WriterRecord(
        name="ome-zarr-0.4",
        summary="the same as OME-Zarr 0.4 (Zarr 2), which more programs read so far, those in Java among them",
        write="fpmtools.formats.ome_zarr:write_0_4",
        folder=_ZARR,
    ),
)


@hookimpl
def fpmtools_readers() -> list[ReaderRecord]:
    """Announce the built-in formats of measurements."""
    return list(READERS)


@hookimpl
def fpmtools_writers() -> list[WriterRecord]:
    """Announce the built-in formats of results."""
    return list(WRITERS)
