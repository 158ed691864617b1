"""Draw street scenes into the Cityscapes tree: pictures with exact labels, for ``make demo`` and the tests.

A scene follows from its seed: first light, street and camera, then what stands on the street, as coloured polygons in
metres. These are painted from far to near, each into the picture and, by the same corners, into the ids.
"""

import argparse
import json
import multiprocessing
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from densevision.errors import UserError

ROAD, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION, TERRAIN, SKY = 7, 8, 11, 17, 20, 21, 22, 23
PERSON, CAR = 24000, 26000  # as in Cityscapes' instance ids, the first of their kind
CITIES = {"train": ("alderstadt", "birchfeld", "cedarheim"), "val": ("dornhafen", "elmbruck"), "test": ("fichtwald",)}
STAMP, VERSION = "make_demo_data.json", 1  # raise the version when the pictures change
MOODS = (  # the sun's elevation; its light, the sky's, zenith and horizon: noon, evening, clouded, dusk
    (40, (0.75, 0.70, 0.60), (0.46, 0.50, 0.58), (0.22, 0.42, 0.74), (0.74, 0.83, 0.91)),
    (18, (0.95, 0.68, 0.38), (0.42, 0.43, 0.52), (0.32, 0.47, 0.70), (0.96, 0.82, 0.62)),
    (80, (0.08, 0.08, 0.08), (0.74, 0.76, 0.78), (0.60, 0.65, 0.71), (0.82, 0.84, 0.86)),
    (12, (0.30, 0.19, 0.16), (0.42, 0.42, 0.52), (0.17, 0.22, 0.42), (0.88, 0.58, 0.46)),
)
RED, BLUE, WHITE, DARK = np.array([(0.8, 0.06, 0.07), (0.05, 0.22, 0.66), (0.92, 0.92, 0.92), (0.06, 0.06, 0.06)])
CIRCLE = np.stack([np.sin(np.arange(48) * np.pi / 24), np.cos(np.arange(48) * np.pi / 24)], 1)
SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
SIGNS = (CIRCLE[::16], RED, WHITE), (CIRCLE[::2], RED, WHITE), (CIRCLE[3::6], WHITE, RED), (SQUARE, WHITE, BLUE)
FREQUENCY = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)) + 0.003
WHITE_NOISE = np.random.default_rng(7).permutation(np.linspace(-1000, 1000, 2**16)).reshape(256, 256)
GRAIN = np.float32(np.fft.irfft2(np.fft.rfft2(WHITE_NOISE) / (1000 * FREQUENCY) ** 1.3))  # a tile without seams
Thing = tuple[np.ndarray, list[tuple]]  # its place; polygons: corners (..., N, 3), albedo, label (0: only a detail)


def hull(put: np.ndarray, *profile: tuple[float, float, float]) -> list[np.ndarray]:
    """Both sides, then the strips across, of a body with a profile of (half width, up, along), put into the world."""
    left, right = (np.array(profile) * (side, 1, 1) for side in (-1, 1))
    strips = [np.concatenate([left[i : i + 2], right[i : i + 2][::-1]]) for i in range(len(profile) - 1)]
    return [points @ put[:3] + put[3] for points in (left, right, *strips)]


class Scene:
    """Light, street and camera of a seed, and the canvas. World metres: x across the street, y up, z along it."""

    def __init__(self, seed: int | tuple[int, ...], size: tuple[int, int]) -> None:
        self.rng, self.ids = np.random.default_rng(seed), np.zeros(size, np.uint16)
        uniform, mood = self.rng.uniform, self.rng.choice(4, p=[0.4, 0.25, 0.2, 0.15])
        self.direct, self.ambient, self.zenith, self.haze = np.float32(MOODS[mood][1:] * uniform(0.93, 1.07, (4, 3)))
        up, around = np.radians(MOODS[mood][0]) * uniform(0.9, 1.1), uniform(-1.1, 1.1) + np.pi * self.rng.integers(2)
        self.sun = np.array([np.cos(up) * np.sin(around), np.sin(up), np.cos(up) * np.cos(around)])
        self.fog, self.clouds, self.dusk = 0.0015 * 8 ** uniform(), uniform(-0.35, 0) + 0.3 * (mood == 2), mood == 3
        self.half, self.bend, self.cross, self.crossing = uniform((3.4, -0.004, 3.5, 16), (7.0, 0.004, 6.0, 90))
        self.verge = uniform(1.2, 2.6, 2) * self.rng.integers(2, size=2)  # where it ends, from the kerb, left and right
        self.paved = self.verge + uniform(2.2, 4.5, 2)
        self.front = self.paved + self.rng.permutation([0, 4.5, 25])[:2]  # a block, houses with gardens, or a park
        self.eye = np.array([self.half * uniform(-0.75, 0.75), uniform(1.35, 2.6), 0])
        self.focal = np.float32(np.sqrt(2 * size[0] * size[1]) * uniform(0.55, 0.85))
        self.centre = np.float32(size[::-1] * uniform((0.42, 0.32), (0.58, 0.56)))  # uprights stay upright
        (c, s), (i, j) = ((np.cos(t), np.sin(t)) for t in uniform((-0.3, -0.02), (0.3, 0.02)))
        self.axes = np.array([(i, j, 0), (-j, i, 0), (0, 0, 1)]) @ [(c, 0, -s), (0, 1, 0), (s, 0, c)]

    def project(self, polygons: list[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        """For each (..., N, 3) of the world, (..., N, 2) sixteenths of a pixel, for OpenCV, and the least depth."""
        view = (np.concatenate([points.reshape(-1, 3) for points in polygons]) - self.eye) @ self.axes.T
        pixels = self.centre + self.focal * view[:, :2] / np.maximum(view[:, 2:], 0.5) * (1, -1)
        pixels = np.rint(pixels.clip(-9e3, 9e3) * 16).astype(np.int32)
        starts = [0, *np.cumsum([points.size // 3 for points in polygons]).tolist()]
        spans = zip(polygons, starts, starts[1:], strict=False)
        corners = [pixels[start:end].reshape(-1, *points.shape[-2:-1], 2) for points, start, end in spans]
        return list(zip(corners, np.minimum.reduceat(view[:, 2], starts[:-1]).tolist(), strict=True))

    def shade(self, albedo: np.ndarray, lit: np.ndarray, depth: np.ndarray | float) -> np.ndarray:
        """Colour 0..255 of (..., 3) surfaces by the cosine of the sun on them, seen through haze."""
        clear = 255 * np.exp(-self.fog * np.float32(depth))[..., None]
        colour = np.float32(albedo) * (self.ambient + self.direct * np.maximum(np.float32(lit), 0)[..., None])
        return np.clip(colour * clear + self.haze * (255 - clear), 0, 255)

    def paint(self, number: int, place: np.ndarray, faces: list[tuple]) -> None:
        """The faces of a convex body that show, or all of a flat figure, in their order."""
        world, albedo, labels = zip(*faces, strict=True)
        first = np.stack([points.reshape(-1, 3)[:3] for points in world])
        normal = np.cross(first[:, 1] - first[:, 0], first[:, 2] - first[:, 0])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        out = ((first[:, 0] - first.mean((0, 1))) * normal).sum(1)  # 0 in a figure
        seen = ((self.eye - first[:, 0]) * normal).sum(1) * out > -1e-6
        lit = np.where(np.abs(out) < 1e-6, 0.5, normal @ self.sun * np.sign(out))
        colours = self.shade(np.array(albedo), lit, self.project([place])[0][1]).tolist()
        for (corners, depth), colour, label, visible in zip(self.project(world), colours, labels, seen, strict=True):
            if visible and depth > 0.5:
                cv2.fillPoly(self.image, corners, colour, cv2.LINE_AA, 4)
                if label:
                    cv2.fillPoly(self.ids, corners, label + number * (label > 999), cv2.LINE_8, 4)

    def tone(self, *albedo: float) -> np.ndarray:
        return np.clip(np.array(albedo) * self.rng.uniform(0.55, 1.25) * self.rng.uniform(0.9, 1.1, 3), 0, 1)

    def tube(self, ends: tuple[float, ...], start: float, end: float, albedo: np.ndarray, label: int) -> list[tuple]:
        """Parts of a figure: a rounded bar between two points, with its half widths there, and its highlight."""
        turn = np.linspace(0.5, 1.5, 7) * np.pi + np.arctan2(ends[2] - ends[0], ends[3] - ends[1])
        arc, glint = np.stack([np.sin(turn), np.cos(turn)], 1), (0.25 * start * np.sign(self.axes[0] @ self.sun), 0)
        outer, inner = (np.concatenate([ends[:2] + k * start * arc, ends[2:] - k * end * arc]) for k in (1, 0.6))
        return [(outer, 0.85 * albedo, label), (inner + glint, 1.1 * albedo, 0)]

    def figure(self, place: np.ndarray, tall: float, parts: list[tuple]) -> Thing:
        """A flat thing that faces the camera; the parts' corners are (right, up)."""
        frame = tall * np.array([self.axes[0], (0, 1, 0)])
        return place, [(place + points @ frame, *rest) for points, *rest in parts]

    def person(self, place: np.ndarray, side: int) -> Thing:
        coat, (tall, stride, hem) = self.rng.uniform(0, 0.8, 3), self.rng.uniform((1.5, -0.13, 0.4), (2, 0.13, 0.55))
        skin, legs, parts = self.tone(0.75, 0.53, 0.42), self.tone(0.3, 0.28, 0.32), []
        for s in (-1, 1):
            foot, hand = s * (0.055 + stride), s * (0.15 + 0.4 * stride)
            parts += self.tube((0.045 * s, 0.5, 0.7 * foot, 0.27), 0.062, 0.045, legs, PERSON)
            parts += self.tube((0.7 * foot, 0.27, foot, 0.02), 0.045, 0.032, legs, PERSON)
            parts += self.tube((0.115 * s, 0.785, hand, 0.48), 0.042, 0.028, coat * 0.8, PERSON)
        parts += self.tube((0, hem, 0, 0.77), 0.11, 0.115, coat, PERSON)
        parts += self.tube((0, 0.86, 0, 0.935), 0.05, 0.058, skin, PERSON)
        return self.figure(place, tall, parts + self.tube((-0.01, 0.945, 0.01, 0.95), 0.055, 0.055, 0.3 * skin, PERSON))

    def car(self, place: np.ndarray, side: int) -> Thing:
        a, w, high, belt, nose, tail = self.rng.uniform((1.8, 0.86, 1.4, 0.9, 0.4, -1), (2.4, 0.95, 1.9, 1, 0.75, -0.6))
        coat = self.rng.uniform(0, 0.8, 3) if self.rng.random() < 0.5 else np.full(3, self.rng.choice([0.1, 0.5, 0.9]))
        ahead = side * np.array([2 * self.bend * place[2], 0, 1])
        put = np.array([(ahead[2], 0, -ahead[0]), (0, 1, 0), ahead, place])
        front = (w, belt, nose * a), (w, 0.78, 0.9 * a), (w, 0.6, a), (w, 0.25, a)
        roof = (0.78 * w, high, tail * a + 0.3), (0.78 * w, high, (nose - 0.4) * a), (0.95 * w, belt, nose * a)
        faces = [(face, coat, CAR) for face in hull(put, (w, 0.25, -a), (w, 0.7, -a), (w, belt, -0.96 * a), *front)]
        for x, (end, lamp) in product((-0.78 * w, 0.78 * w), ((-a, RED), (a, WHITE * (1 + self.dusk)))):
            faces.append((np.insert((0.15, 0.08) * SQUARE + (x, 0.6), 2, end, 1) @ put[:3] + place, lamp, 0))
        for k, hub, (r, albedo, label) in product((-w, w), (-0.6, 0.6), ((0.34, DARK, CAR), (0.2, WHITE / 2, 0))):
            faces.append((np.insert(r * CIRCLE[::4] + (0.34, hub * a), 0, k, 1) @ put[:3] + place, albedo, label))
        cabin = hull(put, (0.95 * w, belt, 0.96 * tail * a), *roof)
        panes = [(0.85 * cabin[i] + 0.15 * cabin[i].mean(0), DARK * (2, 2.5, 3), 0) for i in (0, 1, 2, 4)]
        return place, [*faces, *((face, coat, CAR) for face in cabin), *panes]

    def post(self, place: np.ndarray, side: int) -> Thing:
        (thick, r, high), lamp = self.rng.uniform((0.11, 0.5, 2.9), (0.17, 0.72, 3.6)), self.rng.integers(2)
        steel, top, (plate, rim, ground) = self.tone(0.5, 0.52, 0.53), high * (1 + lamp), SIGNS[self.rng.integers(4)]
        arm = self.tube((0, top, -2 * side * lamp, top + 0.4 * lamp), thick, thick, steel, POLE)
        pole = arm + self.tube((0, 0, 0, top), thick, thick, steel, POLE)
        marks = (plate, rim, SIGN), (0.8 * plate, ground, 0), (SQUARE * (0.45, 0.13), rim, 0)
        return self.figure(place, 1, pole + [(r * mark + (0, high - 0.7 * r), *rest) for mark, *rest in marks])

    def tree(self, place: np.ndarray, side: int) -> Thing:
        (tall, slim), green = self.rng.uniform((4, 0.15), (10, 0.4)), self.tone(0.3, 0.42, 0.14)
        parts = self.tube((0, 0, 0, 0.5), 0.025, 0.015, self.tone(0.32, 0.25, 0.2), VEGETATION)
        spots = np.linspace(0.75, 0.1, 32)[:, None] * self.rng.choice(CIRCLE, 32)
        bright = 1 + 0.5 * spots @ (self.axes[0] @ self.sun, max(self.sun[1], 0.3)) + self.rng.uniform(-0.1, 0.1, 32)
        leaves = (spots[:, None] + self.rng.uniform(0.16, 0.4, (32, 16, 1)) * CIRCLE[::3]) * (slim, 0.34) + (0, 0.66)
        parts += [(leaf, green * gain, VEGETATION) for leaf, gain in zip(leaves, bright, strict=True)]
        return self.figure(place, tall, parts)

    def building(self, place: np.ndarray, back: np.ndarray, half: float, house: bool) -> Thing:
        """The place is below the middle of its front; ``back`` points away from the street."""
        storey, bay, trim, deep = self.rng.uniform((2.9, 1.9, 0.7, 7), (3.6, 3.3, 1.3, 12))
        floors, ridge, rise = (self.rng.integers(1, 3), deep / 2, 4) if house else (self.rng.integers(3, 8), 1, 2)
        high, wall, roof = floors * storey, self.tone(0.8, 0.68, 0.55), self.tone(0.5, 0.3, 0.25)
        put = np.array([(back[2], 0, -back[0]), (0, 1, 0), back, place])
        top = (half, high + rise, ridge), (half, high + rise, deep - ridge), (half, high, deep), (half, 0, deep)
        body = hull(put, (half, 0, 0), (half, high, 0), *top)
        faces = [(face, roof if 2 < i < 6 else wall, BUILDING) for i, face in enumerate(body)]
        for x, axis, length in ((-half, put[0], 2 * half), (-half, back, deep), (half, back, deep)):
            bays, start = max(1, round(length / bay)), place + x * put[0]
            axes = np.array([axis * length / bays, (0, storey, 0)])
            cells = self.rng.permutation(list(product(np.arange(bays) + 0.5, np.arange(floors) + 0.5)))[:, None]
            faces.append(((cells + SQUARE * (0.3, 0.31)) @ axes + start, trim * wall, 0))
            for k in range(min(3, len(cells))):
                glass = (1.4, 1.1, 0.6) if self.dusk and k == 2 else np.array((0.8, 1.0, 1.15)) * (0.08 + 0.1 * k)
                faces.append(((cells[k::3] + SQUARE * (0.24, 0.26)) @ axes + start, glass, 0))
        return np.add(place, (0, 0, half)), faces

    def backdrop(self, shadow: np.ndarray) -> None:
        """The sky, with a plane of clouds, and the ground: each pixel by where its ray ends."""

        def line(distance: np.ndarray, half: float, pixel: np.ndarray) -> np.ndarray:
            return np.clip((half - np.abs(distance)) / pixel + 0.5, 0, 1) * np.minimum(1, 2 * half / pixel)

        v, u = (np.arange(n, dtype=np.float32) - k for n, k in zip(self.ids.shape, self.centre[::-1], strict=True))
        rays = np.dstack(np.broadcast_arrays(u, -v[:, None], self.focal)) @ np.float32(self.axes) / self.focal
        up, climb = rays[..., 1], np.maximum(rays[..., 1], 0.015)
        x, z = rays[..., 0] / climb, rays[..., 2] / climb
        colour = self.zenith + (self.haze - self.zenith) * np.exp(-3.5 * climb)[..., None]
        billows = cv2.remap(GRAIN, 14 * x, 14 * z, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        cover = (np.clip(0.6 * billows + self.clouds, 0, 0.95) * np.clip(5 * climb - 0.1, 0, 1))[..., None]
        glow = np.maximum(rays @ np.float32(self.sun) / np.linalg.norm(rays, axis=-1), 0)[..., None] ** 30
        colour += (np.minimum(self.haze + 0.2, 1) * (1 - 0.25 * cover) - colour) * cover + 0.5 * glow * self.direct
        self.image, self.ids[:] = np.uint8(np.clip(255 * colour, 0, 255)), SKY
        top = int(np.argmax((up < -0.004).any(1)))
        seen, shadow = up[top:] < -0.004, shadow[top:]
        depth = np.float32(self.eye[1]) / np.maximum(-up[top:], 0.004)
        x, z = np.float32(self.eye[0]) + depth * rays[top:, :, 0], depth * rays[top:, :, 2]
        across, ahead = x - np.float32(self.bend) * z * z, z - np.float32(self.crossing)
        kerb = np.minimum(np.abs(across) - np.float32(self.half), np.abs(ahead) - np.float32(self.cross))
        verge, paved = (np.where(across < 0, *sides) for sides in (self.verge, self.paved))
        surface = np.select([kerb < 0, kerb < 0.22, (kerb >= verge) & (kerb < paved)], [0, 1, 2], 3)
        pixel, along = (depth / self.focal * stretch for stretch in (1, np.maximum(depth / np.float32(self.eye[1]), 1)))
        joints = np.maximum(line(x % 0.9 - 0.45, 0.025, pixel), line(z % 0.9 - 0.45, 0.025, along)) * (surface == 2)
        rough = cv2.remap(GRAIN, 9 * x, 9 * z, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        rough = 1 - 0.3 * joints + np.float32([0.09, 0.05, 0.05, 0.2])[surface] * rough
        dashes = line(across, 0.08, pixel) * line(z % 8 - 4, 2, along) * (np.abs(ahead) > self.cross + 5)
        zebra = line(x % 1.1 - 0.55, 0.28, pixel) * line(ahead + self.cross + 2.6, 1.5, along)
        tar, stone, grass = self.tone(0.32, 0.32, 0.33), self.tone(0.6, 0.56, 0.54), self.tone(0.3, 0.38, 0.14)
        albedo = np.float32([tar, 1.15 * stone, stone, grass])[surface] * (rough - 0.35 * shadow)[..., None]
        albedo += (0.8 - albedo) * (np.maximum(dashes, zebra) * (surface == 0))[..., None]
        self.image[top:][seen] = self.shade(albedo, np.float32(self.sun[1]) * (1 - shadow), depth)[seen]
        self.ids[top:][seen] = np.uint16([ROAD, SIDEWALK, SIDEWALK, TERRAIN])[surface[seen]]

    def things(self) -> list[Thing]:
        """Buildings; then cars, posts, people and trees, rather near, in view, none in the way of another."""
        uniform, things, taken = self.rng.uniform, [], []
        for side, paved, front in zip((-1, 1), self.paved, self.front, strict=True):
            half, gap = uniform(4, 9), uniform(2, 8) * (front > paved)
            start = half + (0.7 - self.axes[2, 0] * (side * (self.half + front) - self.eye[0])) / self.axes[2, 2]
            for z in np.arange(start, 110, 2 * half + gap) if front < paved + 10 else ():
                if abs(z - self.crossing) > self.cross + half + paved:
                    place = np.array([self.bend * z * z + side * (self.half + front), 0, z])
                    things.append(self.building(place, side * np.array([1, 0, -2 * self.bend * z]), half, gap > 0))
        plans = (14, 2.6, 60, self.car), (12, 0.5, 35, self.post), (24, 0.4, 30, self.person), (50, 1, 120, self.tree)
        for tries, room, far, make in plans:
            for k in self.rng.integers(2, size=tries).tolist():
                lane, walk = self.rng.choice([-1.05, -self.half / 2]), uniform(self.verge[k] + 0.4, self.paved[k] - 0.4)
                lawn = uniform(self.paved[k], self.front[k]) if self.front[k] > self.paved[k] else self.verge[k] / 2
                metres = {self.car: lane, self.post: 0.6, self.person: walk, self.tree: lawn}[make]
                side, z = 2 * k - 1, far ** uniform(0.42, 1)
                place = np.array([self.bend * z * z + side * (self.half + metres), 0, z])
                [(pixel, depth)] = self.project([place[None]])
                shown = depth > 4 and 0.02 < pixel[0, 0, 0] / 16 / self.ids.shape[1] < 0.98
                shown &= metres < 0 or abs(z - self.crossing) > self.cross + room
                if shown and all(np.linalg.norm(place - p) > room + r for p, r in taken):
                    taken.append((place, room))
                    things.append(make(place, side))
        return things


def draw_scene(seed: int | tuple[int, ...], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 RGB, label ids (H, W) uint8 and instance ids (H, W) uint16 of the scene of a seed."""
    scene, shadow = Scene(seed, size), np.zeros(size, np.uint8)
    things = scene.things()
    hulls = [points for _, faces in things for points, _, label in faces if label]
    for corners, _ in scene.project([points - points[..., 1:2] * scene.sun / scene.sun[1] for points in hulls]):
        cv2.fillPoly(shadow, corners, 255, cv2.LINE_8, 4)
    scene.backdrop(cv2.GaussianBlur(shadow, (0, 0), max(size[0] / 250, 0.6)) / np.float32(255))
    for number, thing in sorted(enumerate(things), key=lambda thing: -scene.project([thing[1][0]])[0][1]):
        scene.paint(number, *thing)
    image = cv2.GaussianBlur(scene.image, (3, 3), 0.6) * scene.rng.uniform(0.9, 1.1, 3)  # the lens and the sensor
    image += scene.rng.normal(0, 3, (*size, 1))
    return np.uint8(np.clip(image, 0, 255)), np.uint8(scene.ids // np.where(scene.ids < 1000, 1, 1000)), scene.ids


def write_scene(job: tuple[Path, str, int, int, tuple[int, int]]) -> None:
    root, split, index, seed, size = job
    city = CITIES[split][index % len(CITIES[split])]
    pictures = draw_scene((seed, list(CITIES).index(split), index), size)
    for kind, picture in zip(("leftImg8bit", "gtFine_labelIds", "gtFine_instanceIds"), pictures, strict=True):
        file = root / kind.split("_")[0] / split / city / f"{city}_{index:06d}_000019_{kind}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)[1])


def write_tree(root: Path, counts: dict[str, int], size: tuple[int, int], seed: int = 0) -> bool:
    """Draw so many scenes per split under root, on all cores; False if just these are there already."""
    if not (32 <= size[0] <= 1024 and 32 <= size[1] <= 2048):
        raise UserError(f"--size {size[0]} {size[1]} is out of range: height 32 to 1024, width 32 to 2048.")
    arguments = {"version": VERSION, "seed": seed, "size": [*size], **{split: counts.get(split, 0) for split in CITIES}}
    stamp, begun = root / STAMP, root / f"{STAMP}.unfinished"  # the latter lets an interrupted run start again
    found = [json.loads(file.read_text()) for file in (stamp, begun) if file.is_file()]
    if found != [arguments] and (root.is_file() or any(root.glob("*"))):
        raise UserError(f"{root} holds something other than this demo data; name another --output, or remove it.")
    if stamp.is_file():
        return False
    root.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(arguments))
    jobs = [(root, split, index, seed, size) for split in CITIES for index in range(arguments[split])]
    with multiprocessing.get_context("spawn").Pool(min(8, multiprocessing.cpu_count())) as pool:
        list(track(pool.imap_unordered(write_scene, jobs), "drawing", len(jobs)))
    begun.replace(stamp)
    return True


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw street scenes with exact labels into the Cityscapes tree.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"), help="default 256 512")
    for name, value in (("train", 200), ("val", 50), ("test", 10), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"default {value}")
    args = parser.parse_args(argv)
    try:
        drawn = write_tree(args.output, {split: getattr(args, split) for split in CITIES}, tuple(args.size), args.seed)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{args.output}: {'drawn' if drawn else 'complete already'}")


if __name__ == "__main__":
    main()
