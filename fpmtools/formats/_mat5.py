"""Child process: parse a MATLAB v5 file with SciPy and leave its numeric arrays as .npy files.

SciPy's reader can crash the interpreter on a damaged file, so :mod:`fpmtools.formats.matfile` runs it here. Arguments:
the file, an empty folder for the results, the limit in bytes, the names wanted. The file
``result.json`` is either ``{"error": …}`` or ``{"names": [all names], "arrays": {name: file}}``.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat, whosmat

STRUCT = "saved_data"
_BYTES = {"single": 4, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2, "int8": 1, "uint8": 1, "logical": 1, "char": 2}


def main(source: str, folder: str, limit_bytes: int, wanted: list[str]) -> None:
    """Read ``wanted`` (also inside a struct ``saved_data``) from ``source``."""
    _limit_memory(limit_bytes)
    out = Path(folder)
    result: dict[str, Any]
    try:
        variables = whosmat(source)
        names = [name for name, _, _ in variables]
        declared = sum(math.prod(shape) * _BYTES.get(kind, 8) for name, shape, kind in variables if name in wanted)
        if declared > limit_bytes:
            raise MemoryError
        found = loadmat(source, variable_names=[*wanted, STRUCT])
        struct = found.pop(STRUCT, None)
        if struct is not None and struct.dtype.names and struct.size == 1:
            names += struct.dtype.names
            found = {**{name: struct[name].item() for name in struct.dtype.names}, **found}
        files = {}
        for i, name in enumerate(name for name in wanted if isinstance(found.get(name), np.ndarray)):
            if found[name].dtype.kind in "biufc":
                files[name] = f"{i}.npy"
                np.save(out / files[name], found[name], allow_pickle=False)
        result = {"names": names, "arrays": files}
    except MemoryError:
        result = {"error": f"it declares more than the limit of {limit_bytes / 1e9:.3g} GB"}
    except Exception as error:  # SciPy raises almost anything on a damaged file
        result = {"error": str(error) or type(error).__name__}
    (out / "result.json").write_text(json.dumps(result))


def _limit_memory(limit_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    # A compressed file can unpack to more than it declares; the interpreter and the copies take their part too.
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = 2 * limit_bytes + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
