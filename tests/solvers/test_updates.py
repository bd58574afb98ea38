"""One update of each solver against the same formula in NumPy, double precision and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fpmtools_admm.solver import Admm
from fpmtools_ap.solver import AlternatingProjection
from fpmtools_epry.solver import Epry
from fpmtools_fd.solver import FeatureDomain
from fpmtools_lbfgs.solver import Lbfgs
from fpmtools_mpie.solver import MomentumPie

from fpmtools.dataset import Dataset
from fpmtools.options import make_options
from fpmtools.problem import prepare
from fpmtools.pupil import Pupil
from fpmtools.simulation import simulate
from fpmtools.stray import StrayLight

LEDS = np.array([[x, y] for y in (-1, 0, 1) for x in (-1, 0, 1)]) * 0.13


# Neighbours, whose pupils overlap, and one that is far off; LED 4, on the axis, alone with another weight than 1.
PATTERNS = np.array(
    [
        [0, 0, 0, 0, 0.8, 0, 0, 0, 0],
        [1, 0.6, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0.5, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 0, 0, 0.7],
        [0, 0.9, 0, 0, 0, 0, 1, 1, 0],
    ]
)


PICTURE = np.array([[[1.0, 0.5], [0.2, 2.0]]])


@pytest.fixture(
    scope="module",
    params=[("on the grid", None), ("off the grid", None), ("off the grid", PATTERNS)],
    ids=["on the grid", "off the grid", "several LEDs"],
)
def problem(request):
    """9 LEDs of 12 × 14 pixels, with gains, a background, stray light and a complex pupil."""
    where, patterns = request.param
    data = simulate("thin", image_shape=(12, 14), leds=LEDS, photons=500)
    background = np.full(9, 0.01 * float(data.images.means.max()))
    if patterns is not None:
        lit = np.tensordot(patterns, data.intensities, axes=1)
        data = Dataset.from_arrays(lit, data.na, data.optics, patterns=patterns)
        background = background[: len(patterns)]
    gain = 1 + 0.1 * np.sin(np.arange(9.0))
    levels = 2 * background[:, None] * (1 + 0.2 * np.cos(np.arange(len(background)))[:, None])
    pupil, stray = Pupil(np.array([0, 0, 0, 0.3, 0.2, 0.1])), StrayLight(levels, PICTURE, (0.0, 0.0, 12.0, 14.0))
    data = data.with_calibration(gain=gain, background=background, pupil=pupil, stray=stray)
    return prepare(data, z_um=2.0, device="cpu", dtype="complex128", subpixel=where == "off the grid")


class Oracle:
    """The forward model of a problem in NumPy; kernels and corners are given."""

    def __init__(self, problem):
        forward = problem.forward
        self.corners, self.object_shape = forward.corners, forward.object_shape
        self.kernels = np.broadcast_to(forward.kernel(problem.z_um)[0].numpy(), (len(forward.na), *forward.box_shape))
        known = problem.calibration.patterns
        self.lit = [
            [(led, w) for led, w in enumerate(weights) if w] for weights in (np.eye(9) if known is None else known)
        ]
        self.measured, self.shape = problem.amplitudes.numpy(), forward.image_shape
        stray, (h, w), (height, width) = problem.calibration.stray, self.shape, (12, 14)
        pixels = np.arange(h) * height / h, np.arange(w) * width / w
        # The middles of the picture's four cells lie at a quarter and three quarters of either side.
        columns = [np.interp(pixels[1], (3.0, 10.0), row) for row in PICTURE[0]]
        picture = np.stack([np.interp(pixels[0], (2.5, 8.5), column) for column in np.transpose(columns)], axis=1)
        self.background = forward.background.numpy() + stray.levels[:, :, None] * picture / problem.intensity_scale
        self.guess = problem.first_guess().numpy()

    def box(self, led):
        (y, x), (h, w) = self.corners[led], self.kernels.shape[1:]
        return np.s_[y : y + h, x : x + w]

    def image(self, piece):
        return np.fft.ifft2(piece, s=self.shape, axes=(0, 1))

    def piece(self, image):
        h, w = self.kernels.shape[1:]
        return np.fft.fft2(image, axes=(0, 1))[:h, :w]

    def size(self, waves, image):
        """Amplitude of an image of these waves, one of each LED that lights it."""
        light = sum(w * np.abs(wave) ** 2 for (_, w), wave in zip(self.lit[image], waves, strict=True))
        return np.sqrt(light + self.background[image])

    def pieces(self, spectrum, image, kernels=None):
        """Spectra of these waves."""
        kernels = self.kernels if kernels is None else kernels
        return [spectrum[self.box(led)] * kernels[led] for led, _ in self.lit[image]]

    def changes(self, spectrum, image, kernels=None):
        """(LED, weight, what its spectrum lacks to that of the measured amplitude) of the LEDs that light an image."""
        pieces = self.pieces(spectrum, image, kernels)
        waves = [self.image(piece) for piece in pieces]
        ratio = self.measured[image] / self.size(waves, image)
        return [
            (led, w, self.piece(wave * ratio) - piece)
            for (led, w), wave, piece in zip(self.lit[image], waves, pieces, strict=True)
        ]

    def coverage(self, images, kernels=None):
        """Σ w |P|² on the object's spectrum."""
        kernels, total = self.kernels if kernels is None else kernels, np.zeros(self.object_shape)
        for image in images:
            for led, w in self.lit[image]:
                total[self.box(led)] += w * np.abs(kernels[led]) ** 2
        return total

    def field(self, spectrum):
        return np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(0, 1)), axes=(0, 1))

    def cost(self, spectrum):
        """Mean of ½ e², and its gradient ∂/∂Re + i ∂/∂Im."""
        total, gradient = 0.0, np.zeros_like(spectrum)
        for image, lit in enumerate(self.lit):
            waves = [self.image(piece) for piece in self.pieces(spectrum, image)]
            size = self.size(waves, image)
            error = size - self.measured[image]
            assert np.abs(error).max() < 1
            total += (error**2).sum() / 2
            for (led, w), wave in zip(lit, waves, strict=True):
                gradient[self.box(led)] += self.kernels[led].conj() * self.piece(w * error * wave / size) / error.size
        return total / self.measured.size, gradient / self.measured.size


def made(cls, problem, **options):
    solver = cls(make_options(cls, options))
    return solver, solver.start(problem)


def close(found, expected):
    return np.abs(found.numpy() - expected).max() < 1e-9 * np.abs(expected).max()


def test_ap_led_by_led(problem):
    solver, state = made(AlternatingProjection, problem, step=0.8, damping=0.1)
    oracle = Oracle(problem)
    spectrum, peak = oracle.guess.copy(), np.abs(oracle.kernels).max()
    for image in problem.order[:4]:
        most = oracle.coverage([image]).max() if problem.calibration.patterns is not None else peak**2
        for led, w, change in oracle.changes(spectrum, image):
            kernel, size = oracle.kernels[led], np.abs(oracle.kernels[led])
            share = size * kernel.conj() / (peak * (size**2 + 0.1 * peak**2)) * peak**2 / most
            spectrum[oracle.box(led)] += 0.8 * w * share * change
        solver.step(state)
    assert close(solver.spectra(state)[1][0], spectrum)


def test_mpie(problem):
    solver, state = made(MomentumPie, problem, step=0.7, regularisation=0.3, friction=0.6, every=2)
    oracle = Oracle(problem)
    spectrum, before, velocity = oracle.guess.copy(), oracle.guess.copy(), 0
    for visit in range(5):
        image = problem.led_batch(visit, 1)[0]
        power = oracle.coverage([image])
        for led, w, change in oracle.changes(spectrum, image):
            box = oracle.box(led)
            share = 0.7 * w * oracle.kernels[led].conj() / (0.7 * power[box] + 0.3 * power.max())
            spectrum[box] += share * change
        if visit % 2 == 1:
            velocity = 0.6 * velocity + (spectrum - before)
            spectrum = spectrum + 0.6 * velocity
            before = spectrum.copy()
        solver.step(state)
    assert close(solver.spectra(state)[1][0], spectrum)


@pytest.mark.parametrize(
    "problem", [("on the grid", None), ("on the grid", PATTERNS)], indirect=True, ids=["one LED", "several LEDs"]
)
def test_epry_as_published(problem):
    solver, state = made(Epry, problem, step=0.9, pupil_step=0.8, modes=0, pupil_from=0)
    oracle = Oracle(problem)
    spectrum, factor = oracle.guess.copy(), np.ones(oracle.kernels.shape[1:], complex)
    for image in problem.order[:4]:
        kernels = oracle.kernels * factor
        changes, before = oracle.changes(spectrum, image, kernels), spectrum.copy()
        seen = {led: before[oracle.box(led)] * oracle.kernels[led] for led, _, _ in changes}
        peak = sum(w * np.abs(seen[led]) ** 2 for led, w, _ in changes).max()
        factor = factor + 0.8 * sum(w * seen[led].conj() * change for led, w, change in changes) / peak
        most = oracle.coverage([image], kernels).max()
        for led, w, change in changes:
            spectrum[oracle.box(led)] += 0.9 * w * kernels[led].conj() * change / most
        solver.step(state)
    assert close(solver.spectra(state)[1][0], spectrum)
    assert close(state.factor, factor)


def test_epry_turns_its_modes_the_way_the_error_falls(problem):
    solver, state = made(Epry, problem, modes=10, mode_step=0.01, pupil_from=0)
    oracle, image = Oracle(problem), problem.order[0]

    def error(coefficients):
        kernels = oracle.kernels * np.exp(1j * np.tensordot(coefficients, modes, axes=1))
        waves = [oracle.image(piece) for piece in oracle.pieces(oracle.guess, image, kernels)]
        return ((oracle.size(waves, image) - oracle.measured[image]) ** 2).sum()

    fy, fx = (axis / problem.forward.optics.cutoff for axis in problem.forward.box_frequencies)
    modes = Pupil.modes(10, fy[:, None], fx[None, :])
    steps = 1e-4 * np.eye(10)
    slope = np.array([error(step) - error(-step) for step in steps])
    solver.step(state)
    told = np.abs(slope[3:]) > 0.05 * np.abs(slope[3:]).max()
    assert told.sum() >= 2
    # Adam's first step has the full length in every coordinate.
    assert np.allclose(state.modes[0].numpy()[3:][told], -0.01 * np.sign(slope[3:][told]), rtol=1e-3)
    assert not state.modes[0][:3].any()


def test_admm(problem):
    solver, state = made(Admm, problem, penalty=0.4, prior=0.02, stop_below=0.0)
    oracle = Oracle(problem)
    spectrum, images = oracle.guess.copy(), range(len(oracle.lit))
    multipliers = [[np.zeros(oracle.kernels[0].shape, complex) for _ in lit] for lit in oracle.lit]
    coverage = oracle.coverage(images)
    rho = 0.02 * coverage.max()
    for sweep in (1, 2, 3):
        answer = rho * spectrum
        for image in images:
            pieces = [p + u for p, u in zip(oracle.pieces(spectrum, image), multipliers[image], strict=True)]
            waves = [oracle.image(piece) for piece in pieces]
            size = oracle.size(waves, image)
            for i, (led, w) in enumerate(oracle.lit[image]):
                own = oracle.piece(waves[i] / size * (oracle.measured[image] + 0.4 * size) / 1.4)
                multipliers[image][i] = pieces[i] - own
                answer[oracle.box(led)] += w * oracle.kernels[led].conj() * (own - multipliers[image][i])
        spectrum = answer / (coverage + rho)
        while state.sweep < sweep:
            solver.step(state)
    assert close(state.multipliers[0], np.array([u for own in multipliers for u in own]))
    assert close(solver.spectra(state)[1][0], spectrum)


def test_fd(problem):
    solver, state = made(FeatureDomain, problem, lr=0.05, led_batch=9)
    oracle, before = Oracle(problem), state.field[0].numpy().copy()
    gradient = np.zeros(oracle.object_shape, complex)
    for image, lit in enumerate(oracle.lit):
        waves = [oracle.image(piece) for piece in oracle.pieces(oracle.guess, image)]
        size = oracle.size(waves, image)
        error = size - oracle.measured[image]
        slope = np.zeros_like(error)
        for y, x in np.ndindex(error.shape):
            down = error[y + 1, x] - error[y, x] if y + 1 < error.shape[0] else 0
            right = error[y, x + 1] - error[y, x] if x + 1 < error.shape[1] else 0
            norm = math.sqrt(down**2 + right**2 + 1e-6)
            slope[y, x] -= (down + right) / norm
            if down:
                slope[y + 1, x] += down / norm
            if right:
                slope[y, x + 1] += right / norm
        for (led, w), wave in zip(lit, waves, strict=True):
            gradient[oracle.box(led)] += w * oracle.kernels[led].conj() * oracle.piece(slope * wave / size)
    gradient = oracle.field(gradient)
    solver.step(state)
    change = state.field[0].numpy() - before
    for part, slope in ((change.real, gradient.real), (change.imag, gradient.imag)):
        told = np.abs(slope) > 1e-6 * np.abs(gradient).max()
        assert np.allclose(part[told], -0.05 * np.sign(slope[told]), rtol=1e-3)


def test_lbfgs_is_bfgs_while_it_remembers_all(problem):
    solver, state = made(Lbfgs, problem, tv=1e-3, memory=20, stop_below=0.0)
    oracle, shape = Oracle(problem), problem.forward.object_shape

    def value(x):
        spectrum = (x[0::2] + 1j * x[1::2]).reshape(shape)
        cost, gradient = oracle.cost(spectrum)
        field = oracle.field(spectrum)
        right, lower = np.roll(field, -1, 1) - field, np.roll(field, -1, 0) - field
        size = np.sqrt(np.abs(right) ** 2 + np.abs(lower) ** 2 + 1e-4)
        right, lower = right / size, lower / size
        slope = np.roll(right, 1, 1) - right + np.roll(lower, 1, 0) - lower
        gradient = gradient + 1e-3 * np.fft.fftshift(np.fft.fft2(slope, axes=(0, 1)), axes=(0, 1)) / field.size**2
        return cost + 1e-3 * (size - 0.01).mean(), gradient.ravel().view(float)

    x = state.spectra[0].numpy().astype(complex).ravel().view(float)
    first = np.repeat(state.inverse[0].numpy().ravel(), 2)
    (f, g), pairs = value(x), []
    for _ in range(5):
        inverse = np.diag(first)
        if pairs:
            step, change = pairs[-1]
            inverse = inverse * (step @ change) / (change @ (first * change))
        for step, change in pairs:
            turn = np.eye(len(x)) - np.outer(step, change) / (step @ change)
            inverse = turn @ inverse @ turn.T + np.outer(step, step) / (step @ change)
        direction, length = -inverse @ g, 1.0
        while value(x + length * direction)[0] > f + 1e-4 * length * (g @ direction):
            length *= 0.3
        new, (f, g_new) = x + length * direction, value(x + length * direction)
        pairs.append((new - x, g_new - g))
        x, g = new, g_new
    while len(state.pairs) < 6:
        solver.step(state)
    assert float(state.value[0]) == pytest.approx(f, rel=1e-9)
    assert close(solver.spectra(state)[1][0], (x[0::2] + 1j * x[1::2]).reshape(shape))
