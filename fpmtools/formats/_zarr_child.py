"""Child process: read an array of a Zarr store that is not trusted, and leave it as a .npy file.

Whoever runs this has looked through the store's metadata: numbers only, known codecs, no links. What unpacks to more
than it declares ends at the limits that ``_limited.py`` has set.

Arguments: the array's folder, an empty folder for the results, the version of Zarr, 2 or 3. ``result.json`` is ``{}``,
or ``{"failed": "damaged" | "no room", "why": …}``. Nothing of fpmtools is imported.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import zarr


def main(source: str, folder: str, version: str) -> None:
    """Read plane by plane into ``images.npy``."""
    out = Path(folder)
    result: dict[str, Any] = {}
    try:
        array = zarr.open_array(source, mode="r", zarr_format=3 if version == "3" else 2)
        dtype = np.dtype(str(array.dtype)).newbyteorder("<")
        images = np.lib.format.open_memmap(out / "images.npy", mode="w+", dtype=dtype, shape=array.shape)
        for index in np.ndindex(*array.shape[:-2]):
            images[index] = array[index]
        images.flush()
    except MemoryError:
        result = {"failed": "damaged", "why": "it takes more memory than it declares"}
    except Exception as error:  # the libraries raise almost anything on damaged files
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        result = {"failed": "no room" if full else "damaged", "why": str(error) or type(error).__name__}
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:4])
