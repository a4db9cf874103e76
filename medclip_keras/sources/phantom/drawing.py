"""Draw a frontal chest radiograph from a list of findings, with NumPy on one small canvas.

Coordinates of the drawing: x from -1 (the patient's right, at the image's left) to 1, y from -1 (top) to 1.
Intensities are film-like: 0 is air (black), 1 is metal or bone (white).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medclip_keras.sources.phantom.cohort import PhantomFinding, device_kinds

HILUM = (0.17, -0.02)  # |x|, y of the place where the vessels enter a lung
SIDES = (-1, 1)  # the patient's right, left


def draw_radiograph(
    findings: Sequence[PhantomFinding], rng: np.random.Generator, image_size: int
) -> np.ndarray:
    """Draw one image.

    Args:
        findings: to be shown; their order does not matter.
        rng: decides everything that the findings leave open.
        image_size: side in pixels.

    Returns:
        uint8 (image_size, image_size), 0 is black.
    """
    by_name = {finding.name: finding for finding in findings}
    canvas = _Canvas(rng, image_size)
    film = _Film(canvas, _Anatomy.draw(rng, by_name))
    film.draw_chest(by_name)
    for name, draw in _DRAWERS.items():
        if name in by_name:
            draw(film, by_name[name])
    return film.develop()


class _Canvas:
    """The pixel grid in patient coordinates: rotated, moved, scaled."""

    def __init__(self, rng: np.random.Generator, image_size: int):
        self.rng, self.size = rng, image_size
        line = (np.arange(image_size, dtype=np.float32) + 0.5) * (2.0 / image_size) - 1.0
        angle, zoom = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(0.94, 1.15)
        shift = rng.uniform(-0.11, 0.11, 2)
        aspect = rng.uniform(0.92, 1.08)
        cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
        u, v = (line - shift[0])[None, :], (line - shift[1])[:, None]
        self.x = ((cos * u + sin * v) * aspect).astype(np.float32)
        self.y = ((-sin * u + cos * v) / aspect).astype(np.float32)

    def smooth_noise(self, sigma: float) -> np.ndarray:
        """Noise of unit deviation whose grains are `sigma` wide, in patient units."""
        white = self.rng.standard_normal((self.size, self.size), dtype=np.float32)
        pixels = sigma * self.size / 2
        field = ndimage.gaussian_filter(white, pixels, mode="wrap", truncate=2.5)
        return field / (field.std() + 1e-6)

    def blob(self, x: float, y: float, width: float, height: float) -> np.ndarray:
        """A Gaussian hill of height 1."""
        return np.exp(-0.5 * (((self.x - x) / width) ** 2 + ((self.y - y) / height) ** 2))

    def disc(self, x: float, y: float, width: float, height: float, edge: float = 0.05) -> np.ndarray:
        """An ellipse with an edge `edge` wide."""
        radius = np.sqrt(((self.x - x) / width) ** 2 + ((self.y - y) / height) ** 2)
        return ramp((1 - radius) * min(width, height), edge)

    def stroke(self, x0: float, y0: float, x1: float, y1: float, width: float) -> np.ndarray:
        """A straight line with round ends."""
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        square = (self.x - x0 - along * dx) ** 2 + (self.y - y0 - along * dy) ** 2
        return np.exp(-0.5 * square / width**2)

    def path(self, points: Sequence[tuple[float, float]], width: float) -> np.ndarray:
        """A line through several points."""
        return np.maximum.reduce([self.stroke(*a, *b, width) for a, b in itertools.pairwise(points)])


def ramp(distance: np.ndarray, edge: float) -> np.ndarray:
    """0 outside, 1 inside, linear over an edge of the given width around distance 0."""
    return np.clip(distance / edge + 0.5, 0, 1)


@dataclass(frozen=True)
class _Anatomy:
    """The measures of one chest; by side, -1 is the patient's right, 1 the left."""

    lung_x: dict[int, float]
    lung_width: dict[int, float]
    apex: float
    base: dict[int, float]  # top of the dome of the diaphragm
    dome: float  # how much lower the diaphragm lies at its edges
    heart: tuple[float, float, float, float]  # x, y, half width, half height
    lung_darkness: float

    @classmethod
    def draw(cls, rng: np.random.Generator, by_name: dict[str, PhantomFinding]) -> "_Anatomy":
        width = rng.uniform(0.27, 0.34)
        base = rng.uniform(0.24, 0.5) + rng.uniform(-0.07, 0.07, 2)
        dome, dark = rng.uniform(0.1, 0.22), rng.uniform(0.3, 0.42)
        heart_half = rng.uniform(0.19, 0.26)
        heart_x = rng.uniform(0.03, 0.12)
        if "Emphysema" in by_name:
            base, dome, dark = base + 0.14, rng.uniform(0.0, 0.04), dark + 0.08
            width, heart_half = width * 1.08, heart_half * 0.85
        if "Cardiomegaly" in by_name:
            heart_half = rng.uniform(0.37, 0.41) + 0.1 * by_name["Cardiomegaly"].severity
            heart_x += 0.05
        if "Atelectasis" in by_name:  # the lung has lost volume
            for side in sides(by_name["Atelectasis"]):
                base[(side + 1) // 2] -= rng.uniform(0.02, 0.08)
        return cls(
            lung_x={side: side * rng.uniform(0.40, 0.46) for side in SIDES},
            lung_width={side: width * rng.uniform(0.95, 1.05) for side in SIDES},
            apex=rng.uniform(-0.82, -0.7),
            base=dict(zip(SIDES, base.tolist(), strict=True)),
            dome=dome,
            heart=(heart_x, float(base.mean()) - 0.14, heart_half, rng.uniform(0.24, 0.32)),
            lung_darkness=dark,
        )


def sides(finding: PhantomFinding) -> tuple[int, ...]:
    """The finding's sides: -1 for the patient's right, 1 for the left."""
    return {"right": SIDES[:1], "left": SIDES[1:], "bilateral": SIDES}[finding.side]


class _Film:
    """The layers of the picture: tissue, lungs, opacity, and bone or metal."""

    def __init__(self, canvas: _Canvas, body: _Anatomy):
        self.canvas, self.body, self.rng = canvas, body, canvas.rng
        self.lungs = {side: self._lung(side) for side in SIDES}
        self.lung = np.maximum(self.lungs[-1], self.lungs[1])
        self.opacity = np.zeros_like(canvas.x)  # 0 air, 1 as dense as soft tissue; in the lungs alone
        self.over = np.zeros_like(canvas.x)  # added on top of everything: bone, metal, skin

    def _lung(self, side: int) -> np.ndarray:
        c, b = self.canvas, self.body
        u = np.abs((c.x - b.lung_x[side]) / b.lung_width[side])
        above = np.maximum((0.05 - c.y) / (0.05 - b.apex), 0)
        inside = 1 - (u**2.2 + above**2.6)
        floor = b.base[side] + b.dome * u**2 - c.y
        return np.minimum(ramp(inside, 0.25), ramp(floor, 0.05))

    def draw_chest(self, by_name: dict[str, PhantomFinding]):
        """Draw a healthy chest, with its fractured ribs if any."""
        c, b, rng = self.canvas, self.body, self.rng
        arms = 0.35 * np.maximum(-0.5 - c.y, 0)  # the outline widens towards the shoulders
        torso = ramp(rng.uniform(0.84, 0.95) + arms - np.abs(c.x), 0.08)
        shoulders = ramp(c.y + 1.06 - 0.5 * np.maximum(np.abs(c.x) - 0.2, 0) ** 1.5, 0.1)
        neck = ramp(0.24 - np.abs(c.x), 0.1)
        self.tissue = np.minimum(torso, np.maximum(shoulders, neck)) * 0.52
        spine = ramp(0.09 - np.abs(c.x), 0.06) * (0.85 + 0.15 * np.sin(c.y * rng.uniform(26, 32)))
        trunk = ramp(0.15 + 0.05 * np.cos(3 * c.y) - np.abs(c.x - 0.02), 0.08)
        x, y, width, height = b.heart
        self.heart = c.disc(x, y, width, height, 0.07)
        self.tissue += 0.07 * spine + 0.07 * np.maximum(trunk, self.heart)
        vessels = sum(c.blob(side * HILUM[0], HILUM[1], 0.09, 0.14) for side in SIDES)
        grain = np.abs(c.smooth_noise(0.035))
        self.opacity += rng.uniform(0.15, 0.35) * vessels * (0.5 + 0.5 * grain)
        self._draw_bones(by_name)
        if rng.random() < 0.5:  # air in the stomach, under the left diaphragm
            bubble = c.disc(rng.uniform(0.28, 0.45), b.base[1] + 0.22, 0.13, 0.07)
            self.tissue -= 0.2 * bubble
        if rng.random() < 0.4:  # breast shadows
            for side in SIDES:
                self.over += 0.06 * c.disc(side * 0.48, 0.25, 0.34, 0.24, 0.1)

    def _draw_bones(self, by_name: dict[str, PhantomFinding]):
        c, rng = self.canvas, self.rng
        y = c.y
        breaks = []
        if "Fracture" in by_name:
            for side in sides(by_name["Fracture"]):
                place = (side * rng.uniform(0.42, 0.62), rng.uniform(-0.4, 0.25))
                breaks.append(place)
                window = (np.abs(c.x) > abs(place[0])) & (np.sign(c.x) == side)
                y = y + 0.09 * window * np.exp(-0.5 * ((c.y - place[1]) / 0.15) ** 2)
        spacing = rng.uniform(0.17, 0.22)
        slope = rng.uniform(0.45, 0.8)
        phase = (y + slope * (np.abs(c.x) - 0.4) ** 2 * np.sign(0.4 - np.abs(c.x)) + rng.random()) / spacing
        wave = np.maximum(np.cos(2 * np.pi * phase), 0) ** 3
        cage = ramp(0.82 - np.abs(c.x), 0.1) * ramp(0.5 - c.y, 0.2) * ramp(c.y + 0.8, 0.2)
        self.over += rng.uniform(0.05, 0.11) * wave * cage
        for side in SIDES:
            tip = rng.uniform(-0.84, -0.72)
            self.over += 0.16 * c.stroke(side * 0.08, -0.62, side * 0.72, tip, 0.03)
        for x0, y0 in breaks:
            tilt = rng.uniform(-0.04, 0.04)
            self.over += 0.45 * c.stroke(x0 - 0.07, y0 - 0.05, x0 - 0.01, y0 + tilt, 0.028)
            self.over += 0.45 * c.stroke(x0 + 0.04, y0 + 0.07, x0 + 0.1, y0 + 0.1, 0.028)
            self.over -= 0.3 * c.stroke(x0 + 0.01, y0 + 0.07, x0 + 0.02, y0 - 0.02, 0.014)

    def develop(self) -> np.ndarray:
        """Add up the layers, blur, expose, and add grain."""
        c, rng = self.canvas, self.rng
        air = self.lung * (1 - np.clip(self.opacity, -0.4, 1)) * (1 - 0.92 * self.heart)
        film = np.maximum(self.tissue - self.body.lung_darkness * air + self.over, 0)
        shade = rng.uniform(-0.1, 0.1, 2)
        film = film + shade[0] * c.x + shade[1] * c.y
        film = ndimage.gaussian_filter(film, rng.uniform(0.3, 0.75) * c.size / 80, truncate=3.0)
        film = np.clip(film, 0, 1.2) ** rng.uniform(0.85, 1.2)
        film = (film - 0.4) * rng.uniform(0.8, 1.3) + rng.uniform(0.32, 0.5)
        film = film + rng.uniform(0.008, 0.025) * rng.standard_normal(film.shape, dtype=np.float32)
        return (np.clip(film, 0, 1) * 255 + 0.5).astype(np.uint8)

    def place(self, side: int, zone: str) -> tuple[float, float]:
        """A point in the lung of that side, within the upper, mid or lower zone."""
        b = self.body
        top, bottom = b.apex + 0.15, b.base[side] - 0.04
        third = (bottom - top) / 3
        y = top + third * ({"upper": 0, "mid": 1, "lower": 2}[zone] + self.rng.uniform(0.15, 0.85))
        near = {"upper": 0.3, "mid": 0.45, "lower": 0.15}[zone]  # the heart hides more of the lower zone
        return b.lung_x[side] + side * self.rng.uniform(-near, 0.5) * b.lung_width[side], y

    def best_placed(self, side: int, finding: PhantomFinding, draw: Callable[..., np.ndarray]) -> np.ndarray:
        """The shadow by `draw` at the most visible of three random places."""
        lung = self.lungs[side] * (1 - self.heart)
        shadows = [draw(self, finding, *self.place(side, finding.zone)) for _ in range(3)]
        return max(shadows, key=lambda shadow: float((shadow * lung).sum()))


def _draw_atelectasis(film: _Film, finding: PhantomFinding):
    """Two or three dense bands across a lung, nearly level and parallel."""
    for side in sides(finding):
        bands = film.best_placed(side, finding, _bands)
        film.opacity += (1.15 + 0.3 * finding.severity) * bands


def _bands(film: _Film, finding: PhantomFinding, x: float, y: float) -> np.ndarray:
    rng = film.rng
    half, tilt = rng.uniform(0.22, 0.3), rng.uniform(-0.4, 0.4)
    thickness, gap = rng.uniform(0.038, 0.05), rng.uniform(0.16, 0.21)
    count = 2 + int(finding.severity > 0.5)
    middles = y + gap * (np.arange(count) - (count - 1) / 2)
    rise, c = half * tilt, film.canvas
    return np.maximum.reduce([c.stroke(x - half, m + rise, x + half, m - rise, thickness) for m in middles])


def _draw_consolidation(film: _Film, finding: PhantomFinding):
    """A cloud with ragged edges, and air-filled bronchi as dark lines in it."""
    for side in sides(finding):
        film.opacity += film.best_placed(side, finding, _cloud) * film.rng.uniform(0.95, 1.1)


def _cloud(film: _Film, finding: PhantomFinding, x: float, y: float) -> np.ndarray:
    c, rng = film.canvas, film.rng
    spread = 0.14 + 0.05 * finding.severity
    cloud = np.zeros_like(c.x)
    for dx, dy in rng.normal(0, 0.75 * spread, (6, 2)):
        cloud = np.maximum(cloud, c.blob(x + dx, y + dy, spread, spread))
    cloud = ramp(cloud + 0.14 * c.smooth_noise(0.045) - 0.45, 0.35)
    bronchi = np.zeros_like(c.x)
    outward = np.arctan2(y - HILUM[1], x - np.sign(x) * HILUM[0])
    root = (x - 0.2 * np.cos(outward), y - 0.2 * np.sin(outward))
    for angle in outward + rng.uniform(-0.15, 0.15) + np.array((-0.6, 0, 0.6)):
        tip = (root[0] + 0.45 * np.cos(angle), root[1] + 0.45 * np.sin(angle))
        bronchi = np.maximum(bronchi, c.stroke(*root, *tip, 0.018))
    return cloud * (1 - 0.65 * bronchi)


def _draw_edema(film: _Film, finding: PhantomFinding):
    """Mottled haze around both hila, and short level lines at the outer edges."""
    c, rng = film.canvas, film.rng
    strength = 0.28 + 0.25 * finding.severity
    mottle = 0.55 + 0.6 * c.smooth_noise(0.028)
    for side in SIDES:
        reach = rng.uniform(0.2, 0.32)
        wing = c.blob(side * (HILUM[0] + 0.12), HILUM[1] + rng.uniform(-0.1, 0.15), reach, 1.3 * reach)
        film.opacity += strength * (0.35 + wing) * mottle
        edge = film.body.lung_x[side] + side * film.body.lung_width[side] * 0.8
        for y in rng.uniform(-0.3, 0.25, 4):
            film.opacity += 0.5 * c.stroke(edge - side * 0.14, y, edge, y, 0.012)


def _draw_effusion(film: _Film, finding: PhantomFinding):
    """Fluid in the base of a hemithorax; its surface climbs along the outer wall."""
    c, b = film.canvas, film.body
    for side in sides(finding):
        outward = (c.x - b.lung_x[side]) * side / b.lung_width[side]  # -1 at the mediastinum, 1 at the wall
        level = b.base[side] - 0.1 - 0.38 * finding.severity - film.rng.uniform(0, 0.06)
        climb = film.rng.uniform(0.16, 0.26) * np.maximum(outward, -0.4) ** 2 * np.sign(outward)
        fluid = ramp(c.y - (level + b.dome * 0.5 - climb), 0.07)
        film.opacity += film.rng.uniform(1.1, 1.3) * fluid * (np.sign(c.x) == side)


def _draw_pneumothorax(film: _Film, finding: PhantomFinding):
    """Black space without vessels outside a thin white pleural line."""
    c, b = film.canvas, film.body
    for side in sides(finding):
        shrink = 0.82 - 0.3 * finding.severity
        x = b.lung_x[side] - side * b.lung_width[side] * (1 - shrink)
        top = b.apex + (1 - shrink) * 0.7
        u = np.abs((c.x - x) / (b.lung_width[side] * shrink * 0.95))
        above = np.maximum((0.05 - c.y) / (0.05 - top), 0)
        inside = 1 - np.sqrt(u**2.2 + above**2.6)
        free = film.lungs[side] * ramp(-inside, 0.06) * (side * (c.x - x) > -0.5 * b.lung_width[side])
        film.opacity = film.opacity * (1 - free) - 0.4 * free
        film.over -= 0.05 * free
        film.opacity += 0.7 * np.exp(-0.5 * (inside / 0.05) ** 2) * film.lungs[side]


def _draw_nodule(film: _Film, finding: PhantomFinding):
    """One to three small round shadows with a sharp edge."""
    for side in sides(finding):
        for _ in range(film.rng.integers(1, 4)):
            x, y = film.place(side, finding.zone)
            radius = 0.05 + 0.035 * finding.severity
            film.opacity += 1.4 * film.canvas.disc(x, y, radius, radius, 0.03)


def _draw_emphysema(film: _Film, finding: PhantomFinding):
    """Bullae, black with a thin wall; the anatomy is already overinflated."""
    for side in SIDES:
        for _ in range(film.rng.integers(2, 4)):
            x, y = film.place(side, film.rng.choice(("upper", "mid")))
            radius = film.rng.uniform(0.08, 0.13)
            bulla = film.canvas.disc(x, y, radius, radius, 0.03)
            wall = bulla - film.canvas.disc(x, y, radius - 0.03, radius - 0.03, 0.03)
            film.opacity = film.opacity * (1 - bulla) - 0.35 * bulla
            film.opacity += (0.45 + 0.2 * finding.severity) * np.maximum(wall, 0)


def _draw_devices(film: _Film, finding: PhantomFinding):
    """Metal and plastic."""
    c, rng = film.canvas, film.rng
    side = rng.choice((-1, 1))
    for kind in device_kinds(finding):
        if kind == "endotracheal tube":
            shape = c.path([(0.02, -1.05), (0.0, -0.6), (0.01, rng.uniform(-0.4, -0.25))], 0.016)
        elif kind == "venous line":
            shape = c.path([(side * 0.75, -0.75), (side * 0.3, -0.7), (-0.1, -0.45), (-0.13, -0.05)], 0.014)
        elif kind == "pacemaker":
            lead = [(side * 0.5, -0.5), (side * 0.2, -0.62), (-0.08, -0.3), (0.0, 0.12), (0.22, 0.25)]
            shape = np.maximum(c.disc(side * 0.58, -0.55, 0.13, 0.1, 0.03), c.path(lead, 0.014))
        else:
            shape = c.path([(0.03, -1.05), (0.0, -0.2), (0.06, 0.4), (0.3, 0.62)], 0.014)
        film.over += 0.5 * shape


_DRAWERS = {  # in the order in which they cover one another; Cardiomegaly and Fracture are in the anatomy
    "Edema": _draw_edema,
    "Emphysema": _draw_emphysema,
    "Consolidation": _draw_consolidation,
    "Nodule": _draw_nodule,
    "Atelectasis": _draw_atelectasis,
    "Pneumothorax": _draw_pneumothorax,
    "Pleural Effusion": _draw_effusion,
    "Support Devices": _draw_devices,
}
