"""MATLAB and HDF5 files, by the layout that their variables' names tell, and arrays of which nobody knows more."""

from __future__ import annotations

from pathlib import Path

from fpmtools.formats import arrays, fpm_inr, fpm_software, matfile, ptylab, uconn
from fpmtools.formats.recording import Recording, Wanted


def read(path: Path, wanted: Wanted) -> Recording:
    """A MATLAB or HDF5 file, in the layout ``wanted.format``, or in the one that its variables tell."""
    keys = dict.fromkeys((*fpm_inr.KEYS, *uconn.KEYS, *fpm_software.KEYS, *ptylab.KEYS))
    mat = matfile.read(path, keys if wanted.format != "array" else ())
    layouts = {
        "uconn": uconn.IMAGES in mat.names,
        "fpm_software": fpm_software.IMAGES in mat.names,
        "ptylab": ptylab.IMAGES in mat.names or bool(ptylab.sections(mat)),
        "fpm_inr": bool({fpm_inr.IMAGES, fpm_inr.BARE_IMAGES} & {*mat.names}),
    }
    found = next((layout for layout, there in layouts.items() if there), "array")
    if wanted.key is not None and found != "ptylab":
        found = "array"
    match wanted.format or found:
        case "uconn":
            return uconn.interpret(mat)
        case "fpm_software":
            return fpm_software.interpret(mat)
        case "ptylab":
            return ptylab.interpret(mat, wanted.key)
        case "fpm_inr":
            return fpm_inr.interpret(mat)
        case _:
            return arrays.read_mat(mat, wanted.key, wanted.images)


def read_array(path: Path, wanted: Wanted) -> Recording:
    """Any file of arrays: NumPy's, or what :func:`read` takes."""
    with path.open("rb") as file:
        head = file.read(1024)
    return arrays.read_numpy(path, wanted.key, wanted.images) if arrays.is_numpy(head) else read(path, wanted)
