"""What a solver returns: a complex field at any z in range, with a size in bytes, that can be saved."""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fpmtools import clear, storage
from fpmtools.calibration import Calibration
from fpmtools.columns import size
from fpmtools.dataset import as_planes
from fpmtools.display import Shown, depths, drawn, number, span
from fpmtools.errors import DataError, OptionError, expect, printable
from fpmtools.optics import Box, Shape, resample, resample_inside, to_field
from fpmtools.unwrapping import unwrapped

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

RESULT_FILE = "reconstruction.safetensors"  # in the folder of a run
CALIBRATION = "calibration."  # before the names of its tensors


@dataclass(frozen=True)
class Grid:
    """Where a reconstruction lives.

    ``shape`` (y, x) is the size :meth:`Reconstruction.field` returns unless told otherwise, over a field of view of
    ``extent_um`` (y, x); ``z_range`` is (lowest, highest) z in µm. ``margin_um`` (y, x): what the solver has beyond
    that on each side, which is solved so that what crosses the border is explained, and not shown.
    """

    shape: Shape
    extent_um: tuple[float, float]
    z_range: tuple[float, float]
    margin_um: tuple[float, float] = (0.0, 0.0)

    @property
    def pixel_um(self) -> tuple[float, float]:
        """Pixel (y, x) of the default output, µm."""
        return self.extent_um[0] / self.shape[0], self.extent_um[1] / self.shape[1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Grid:
        """Inverse of :meth:`to_dict`; KeyError, TypeError or ValueError where something is missing."""
        (h, w), margin = values["shape"], values.get("margin_um", (0.0, 0.0))
        extent, z_range, margin = ((float(a), float(b)) for a, b in (values["extent_um"], values["z_range"], margin))
        return cls((int(h), int(w)), extent, z_range, margin)


class Reconstruction(Shown, ABC):
    """A complex sample field over a range of z.

    The amplitude is in units in which the mean bright-field image has intensity 1 (the data set's factor is kept as
    ``metadata["intensity_scale"]``); the phase is in radians, its global offset arbitrary.

    Subclasses give :meth:`native_field`, :meth:`dump` and :meth:`restore`, and set ``kind``, under which a solver
    record announces the class, so that saved results find it again.
    """

    kind: ClassVar[str]
    drawn_by = "fpmtools.report.notebook:reconstruction"
    calibration: Calibration | None = None  # the instrument as the solve has seen it

    def __init__(self, grid: Grid, metadata: Mapping[str, Any] | None = None) -> None:
        self.grid = grid
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._rendered: tuple[float, NDArray[np.complex64]] | None = None

    @abstractmethod
    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        """Field [y, x] complex64 at ``z_um`` (inside ``grid.z_range``) on the solver's own grid, margins included."""

    @abstractmethod
    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything needed to rebuild the object: named real arrays, and JSON-ready values. No larger than needed."""

    @classmethod
    @abstractmethod
    def restore(cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Reconstruction:
        """Inverse of :meth:`dump`."""

    def opened_from(self, folder: Path) -> None:
        """Told after :meth:`restore` where the file lay: for a result that has others beside it. Nothing to do else."""

    def heading(self) -> str:
        """With the kind of result that it is."""
        return f"Reconstruction ({self.kind})"

    def facts(self) -> dict[str, str]:
        """Size, depth, what the instrument was taken to be, and the bytes it takes."""
        (h, w), extent, pixel = self.grid.shape, self.grid.extent_um, self.grid.pixel_um
        pitch = number(pixel[0], 3) if abs(pixel[0] / pixel[1] - 1) < 1e-3 else " × ".join(number(p, 3) for p in pixel)
        known = {} if self.calibration is None else {"pupil": self.calibration.pupil.in_words()}
        return {
            "field": f"{h} × {w} pixels of {pitch} µm, {number(extent[0])} × {number(extent[1])} µm",
            "z": self._depths(),
            **known,
            "stored": size(self.stored_bytes),
        }

    def _depths(self) -> str:
        low, high = self.grid.z_range
        return span(low, high) if low == high else f"any, {span(low, high)}"

    def field(self, z_um: float | None = None, shape: Shape | None = None) -> NDArray[np.complex64]:
        """The complex field at any z in range.

        Parameters
        ----------
        z_um
            Where, µm; may be left out where there is one plane, and is 0 where there are several with 0 among them.
        shape
            Size (y, x), default ``grid.shape``; others are band-limited resamplings over the same field of view.

        Returns
        -------
        numpy.ndarray
            [y, x] complex64, the caller's own.

        Raises
        ------
        OptionError
            z is out of range.

        Examples
        --------
        >>> data = fpmtools.simulate("tilted", image_shape=(16, 24), tilt_um=2.0)
        >>> result = fpmtools.reconstruct(data, "ap", z_um=[-2.0, 0.0, 2.0], options={"sweeps": 2})
        >>> result.field(z_um=0.5).shape, result.field(0.5, shape=(64, 96)).dtype
        ((32, 48), dtype('complex64'))
        """
        native = self._native(z_um)
        shape = self.grid.shape if shape is None else shape
        expect(shape, (tuple, list), "shape", "two whole numbers (y, x)")
        if any(self.grid.margin_um):
            y, x = (m / (e + 2 * m) for m, e in zip(self.grid.margin_um, self.grid.extent_um, strict=True))
            return resample_inside(native, shape, (y, x))
        field = resample(native, shape)
        # The caller may write into what it gets: never what is stored, nor a view of it.
        return np.array(field, np.complex64, copy=True if field is native else None)

    def whole(self, z_um: float, shape: Shape) -> NDArray[np.complex64]:
        """:meth:`field` with the margins: [y, x] complex64 at ``shape`` over all that was solved."""
        return np.asarray(resample(self._native(z_um), shape), dtype=np.complex64)

    def part(self, z_um: float | None, box: Box) -> NDArray[np.complex64]:
        """The pixels of :meth:`field` in a ``box`` (y, x, height, width) of ``grid.shape``, complex64 [y, x].

        Raises :class:`OptionError` for a box that does not lie in the field, or z out of range.
        """
        self._check_box(box, 0)
        z = self._inside(z_um)
        if self._rendered is None or self._rendered[0] != z:  # parts of one plane are asked for one after the other
            self._rendered = z, self.field(z)
        y, x, height, width = box
        return self._rendered[1][y : y + height, x : x + width].copy()

    @property
    def part_shape(self) -> Shape:
        """About how many pixels (y, x) of ``grid.shape`` it makes at once: all, or of what is made of tiles, a tile."""
        return self.grid.shape

    def components(self) -> dict[str, Reconstruction]:
        """What it shows by name: itself, without one; of a sample in several colours each of them."""
        return {"": self}

    def amplitude(self, z_um: float | None = None, shape: Shape | None = None) -> NDArray[np.float32]:
        """The modulus of :meth:`field` [y, x] float32; 1 is that of an empty bright field."""
        return np.abs(self.field(z_um, shape))

    def phase(
        self,
        z_um: float | None = None,
        shape: Shape | None = None,
        *,
        unwrap: bool = False,
        flatten: bool = False,
    ) -> NDArray[np.float32]:
        """The phase of :meth:`field` [y, x] float32, rad, relative to that of the field's mean.

        It lies in (−π, π]. With ``unwrap`` it is continued over these ends (``fpmtools.unwrapping``), its median in
        that range; where the amplitude is near zero no phase can be told, and whole turns beyond such places may be
        wrong. With ``flatten`` it is continued too, and then the plane through the clear field is taken away
        (``fpmtools.clear``), which so has phase 0: what a tilt of the light, or a wedge of the slide, adds to all.
        """
        field = without_piston(self.field(z_um, shape))
        if flatten:
            return level_phase(field)
        phase = np.angle(field).astype(np.float32)
        return unwrapped(phase) if unwrap else phase

    def optical_path_nm(self, z_um: float | None = None, shape: Shape | None = None) -> NDArray[np.float32]:
        """How much longer light travels through the sample than beside it, nm [y, x] float32: phase · λ/2π.

        From :meth:`phase` with ``flatten``. Positive where the sample is thicker, or of higher index, than what is
        around it: ∫(n − n₀) dz. Raises :class:`OptionError` where the result does not know its wavelength.
        """
        return self.phase(z_um, shape, flatten=True) * nm_per_rad(self.metadata.get("wavelength_um"))

    def plot(
        self, z_um: float | None = None, *, unwrap: bool = False, axes: Sequence[Axes] | None = None
    ) -> list[Axes]:
        """Draw amplitude and phase at ``z_um`` with matplotlib, in µm.

        Parameters
        ----------
        z_um, unwrap
            As for :meth:`field` and :meth:`phase`.
        axes
            Two axes to draw into; default: those of a new figure of ``matplotlib.pyplot``.

        Returns
        -------
        list of matplotlib.axes.Axes
            The two; ``axes[0].figure`` is the figure, whose ``savefig`` writes it.
        """
        plotted: list[Axes] = drawn("fpmtools.report.notebook:plot", self, z_um, unwrap, axes)
        return plotted

    def to_xarray(self, z_um: Sequence[float] | float | None = None) -> xarray.DataArray:
        """The field as an ``xarray.DataArray`` complex64 [z, y, x], with coordinates in µm from its first pixel.

        ``z_um`` may be left out where the result has planes. Raises :class:`OptionError` where it has none, for a z out
        of range, and where xarray is not installed (``pip install 'fpmtools[xarray]'``).
        """
        try:
            import xarray
        except ImportError as error:
            raise OptionError("to_xarray needs xarray: pip install 'fpmtools[xarray]'") from error
        planes = self.planes_um if z_um is None else as_planes(z_um)
        if not planes:
            raise OptionError(f"this result is continuous in z ({self._depths()}): say which z_um")
        axes = [
            np.array(planes),
            *(np.arange(n) * pitch for n, pitch in zip(self.grid.shape, self.grid.pixel_um, strict=True)),
        ]
        coordinates = {name: (name, at, {"units": "µm"}) for name, at in zip("zyx", axes, strict=True)}
        return xarray.DataArray(np.stack([self.field(z) for z in planes]), coordinates, tuple("zyx"), "field")

    def to_tiff(self, path: str | Path, z_um: Sequence[float] | float | None = None, **how: Any) -> list[str]:
        """Write float32 channels into a TIFF, by :func:`fpmtools.export`, whose other arguments are ``how``.

        One that ends in ``.ome.tiff`` is an OME-TIFF, any other is for ImageJ; both have the pixel's size and z in µm.
        Returns, a line each, what the format could not say.

        Examples
        --------
        >>> data = fpmtools.simulate("thin", image_shape=(16, 24))
        >>> result = fpmtools.reconstruct(data, "ap", options={"sweeps": 2})
        >>> result.to_tiff("thin.ome.tiff", channels=["phase"], force=True)
        []
        """
        return self._exported("to_tiff", path, ("tiff", "tif", "btf"), z_um, **how)

    def to_zarr(self, path: str | Path, z_um: Sequence[float] | float | None = None, **how: Any) -> list[str]:
        """Write float32 channels into a folder of OME-Zarr 0.5, or 0.4 with ``format="ome-zarr-0.4"``.

        As :meth:`to_tiff`; needs zarr (``pip install 'fpmtools[zarr]'``).
        """
        return self._exported("to_zarr", path, ("zarr",), z_um, **how)

    def _exported(self, called: str, path: str | Path, ends: tuple[str, ...], z_um: Any, **how: Any) -> list[str]:
        expect(path, (str, Path), f"{called}: path", "a path")
        if not str(path).lower().endswith(tuple(f".{end}" for end in ends)):
            raise OptionError(f"{called}: {printable(path)}: give a name that ends in .{' or .'.join(ends)}")
        told: list[str] = drawn("fpmtools.formats.writing:export", self, path, z_um=z_um, **how)
        return told

    @property
    def planes_um(self) -> tuple[float, ...]:
        """The z that it was solved at; none where it was fitted to a whole range."""
        low, high = self.grid.z_range
        return (low,) if low == high else ()

    def _native(self, z_um: float | None) -> NDArray[np.complex64]:
        return self.native_field(self._inside(z_um))

    def _check_box(self, box: Box, level: int) -> None:
        (h, w), (y, x, height, width) = self.grid.shape, box
        if min(y, x, level) < 0 or min(height, width) < 1 or y + height > h or x + width > w:
            raise OptionError(f"region {box} does not lie in the field of {h} × {w} pixels")

    def _inside(self, z_um: float | None) -> float:
        """``z_um``, or what it is where it is left out; :class:`OptionError` if it is out of range."""
        low, high = self.grid.z_range
        if z_um is None:
            z_um = low if low == high else 0.0
        expect(z_um, numbers.Real, "z_um", "a number of µm")
        slack = 1e-6 * max(1.0, abs(low), abs(high))
        if not low - slack <= z_um <= high + slack:
            if low == high:
                raise OptionError(f"z = {float(z_um):g} µm: this result has one plane, at {low:g} µm")
            raise OptionError(f"z = {float(z_um):g} µm is outside the reconstructed range {low:g} … {high:g} µm")
        return min(max(float(z_um), low), high)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the arrays that :meth:`save` writes (the file adds a header of about a kilobyte)."""
        return sum(array.nbytes for array in self.dump()[0].values())

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically, with a checksum; the calibration goes with it."""
        expect(path, (str, Path), "save: path", "a path")
        tensors, config = self.dump()
        header: dict[str, Any] = {
            "kind": self.kind,
            "grid": self.grid.to_dict(),
            "config": config,
            "metadata": self.metadata,
        }
        if self.calibration is not None:
            known, header["calibration"] = self.calibration.dump()
            tensors = {**tensors, **{CALIBRATION + name: values for name, values in known.items()}}
        return storage.write_tensors(path, tensors, "reconstruction", header)


class Derived(Reconstruction):
    """What is shown of another reconstruction, which is where it is stored."""

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Raise :class:`OptionError`."""
        raise self._elsewhere()

    @classmethod
    def restore(cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Reconstruction:
        """Raise :class:`OptionError`."""
        raise cls._elsewhere()

    @classmethod
    def _elsewhere(cls) -> OptionError:
        return OptionError(f"a {cls.kind} is stored where it was solved; render writes it elsewhere")


class PlaneStack(Reconstruction):
    """A complex plane per z, stored on the solver's own grid.

    Between planes the field is interpolated linearly, so :meth:`from_spectra` first removes the arbitrary phase that
    each independently solved plane has. Propagating one plane to another z would be wrong: an FPM solution at the
    wrong focus is no defocused copy (Opt. Eng. 61, 073102, 2022).
    """

    kind = "planes"

    def __init__(
        self,
        planes: NDArray[np.complex64],
        z_um: tuple[float, ...],
        grid: Grid,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if planes.ndim != 3 or len(planes) != len(z_um):
            raise DataError(f"a plane stack needs one [y, x] plane per z, got {planes.shape} for {len(z_um)} z")
        super().__init__(grid, metadata)
        self.planes = planes
        self.z_um = z_um

    @classmethod
    def from_spectra(
        cls,
        spectra: Iterable[NDArray[Any]],
        z_um: tuple[float, ...],
        output_shape: Shape,
        extent_um: tuple[float, float],
    ) -> PlaneStack:
        """Planes from centred spectra, [z, y, x] or one [y, x] after the other.

        A constant field c has the spectrum c · y x at DC.
        """
        planes: NDArray[np.complex64] | None = None
        for i, spectrum in enumerate(spectra):
            plane = to_field(spectrum).astype(np.complex64)
            if planes is None:
                planes = storage.scratch((len(z_um), *plane.shape), np.complex64)
            elif overlap := complex(np.vdot(plane, planes[i - 1])):
                plane *= np.complex64(overlap / abs(overlap))
            planes[i] = plane
            storage.release(planes)
        if planes is None:
            raise DataError("a plane stack needs at least one plane")
        return cls(planes, tuple(z_um), Grid(output_shape, extent_um, (z_um[0], z_um[-1])))

    def _depths(self) -> str:
        return depths(self.z_um)

    @property
    def planes_um(self) -> tuple[float, ...]:
        """The z of its planes."""
        return self.z_um

    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        """Linear interpolation between the two neighbouring planes; exact on a plane."""
        upper = int(np.searchsorted(self.z_um, z_um))
        if upper < len(self.z_um) and self.z_um[upper] == z_um:
            return np.asarray(self.planes[upper])
        upper = min(max(upper, 1), len(self.z_um) - 1)
        low, high = self.z_um[upper - 1], self.z_um[upper]
        weight = np.float32((z_um - low) / (high - low))
        return np.asarray((1 - weight) * self.planes[upper - 1] + weight * self.planes[upper], dtype=np.complex64)

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The planes as float32 [z, y, x, (re, im)]."""
        return {"planes": self.planes.view(np.float32).reshape(*self.planes.shape, 2)}, {"z_um": list(self.z_um)}

    @classmethod
    def restore(cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> PlaneStack:
        """Inverse of :meth:`dump`."""
        planes = np.ascontiguousarray(tensors["planes"], dtype=np.float32).view(np.complex64)[..., 0]
        return cls(planes, tuple(float(z) for z in config["z_um"]), grid)


def mean_cells(values: NDArray[Any], cell: int) -> NDArray[Any]:
    """``values`` [y, x] with ``cell`` × ``cell`` pixels as their mean; at the far ends there may be fewer."""
    if cell == 1:
        return values
    for axis in (0, 1):
        n = values.shape[axis]
        counts = np.diff([*range(0, n, cell), n]).astype(np.float32)
        total = np.add.reduceat(values, np.arange(0, n, cell), axis=axis)
        values = total / (counts[:, None] if axis == 0 else counts)
    return values


def without_piston(field: NDArray[np.complexfloating[Any, Any]]) -> NDArray[np.complex64]:
    """``field`` [y, x] turned by one global phase so that its sum is real and positive.

    The global phase of a reconstruction is arbitrary; without this step it would decide the colours.
    """
    piston = np.angle(field.sum(dtype=np.complex128))
    return np.asarray(field * np.complex64(np.exp(-1j * piston)), dtype=np.complex64)


def level_phase(field: NDArray[np.complexfloating[Any, Any]]) -> NDArray[np.float32]:
    """The unwrapped phase of ``field`` [y, x], rad, and 0 in the clear field: what is as bright as that counts."""
    return clear.flattened(unwrapped(np.angle(field).astype(np.float32)), clear.likeness(np.abs(field)))


def nm_per_rad(wavelength_um: object) -> np.float32:
    """Optical path of a radian; :class:`OptionError` where the wavelength is not known."""
    if not isinstance(wavelength_um, int | float):
        raise OptionError("an optical path needs the wavelength, which this result does not tell: solve it again")
    return np.float32(1e3 * wavelength_um / (2 * np.pi))
