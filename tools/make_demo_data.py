"""Draw street scenes into the Cityscapes tree: pictures with exact labels, for ``make demo`` and the tests.

    python tools/make_demo_data.py --output data/demo --train 200 --val 50 --test 10 --size 256 512 --seed 0

A scene follows from its seed alone: camera, light and street are drawn first, then the things on the street, as coloured
polygons in metres. They are painted from far to near, each polygon into the picture and, by the same corners, into the
ids. Other programs put this folder on ``sys.path`` and import ``make_demo_data``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.progress import track

from densevision.errors import UserError

EGO, ROAD, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION, TERRAIN, SKY, PERSON, CAR = 1, 7, 8, 11, 17, 20, 21, 22, 23, 24, 26
CITIES = {"train": ("alderstadt", "birchfeld", "cedarheim"), "val": ("dornhafen", "elmbruck"), "test": ("fichtwald",)}
STAMP, VERSION = "make_demo_data.json", 1  # raise the version when the pictures change
MOODS = (  # elevation of the sun in degrees; its light, the sky's, zenith, horizon: noon, evening, clouded, dusk
    ((35, 60), ((0.75, 0.70, 0.60), (0.46, 0.50, 0.58), (0.22, 0.42, 0.74), (0.74, 0.83, 0.91))),
    ((14, 26), ((0.95, 0.68, 0.38), (0.42, 0.43, 0.52), (0.32, 0.47, 0.70), (0.96, 0.82, 0.62))),
    ((75, 85), ((0.08, 0.08, 0.08), (0.74, 0.76, 0.78), (0.60, 0.65, 0.71), (0.82, 0.84, 0.86))),
    ((10, 16), ((0.30, 0.19, 0.16), (0.42, 0.42, 0.52), (0.17, 0.22, 0.42), (0.88, 0.58, 0.46))),
)
CIRCLE = np.stack([np.sin(np.arange(48) * np.pi / 24), np.cos(np.arange(48) * np.pi / 24)], 1)


class Thing(NamedTuple):
    """Polygons (corners, albedo, label or 0 for a detail) in painting order: of a convex body, corners (N, 3) or
    (P, N, 3) in the world; or of a flat figure at (x, z) that faces the camera, corners (N, 2) right and up."""

    x: float
    z: float
    faces: list[tuple[np.ndarray, np.ndarray, int]]


@cache
def grain(roughness: float) -> np.ndarray:
    """A tile of noise with spectrum 1 / f**roughness, mean 0 and deviation 1, that repeats without seams."""
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(np.random.default_rng(7).standard_normal((256, 256))) / frequency**roughness)
    return np.float32(noise / noise.std())


def sample(roughness: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return cv2.remap(grain(roughness), np.float32(x), np.float32(y), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def line(distance: np.ndarray, half: float, pixel: np.ndarray) -> np.ndarray:
    """The share of each pixel that a line of this half width covers."""
    return np.clip((half - np.abs(distance)) / pixel + 0.5, 0, 1) * np.minimum(1, 2 * half / pixel)


def bar(left: float, right: float, low: float, high: float) -> np.ndarray:
    return np.array([(left, low), (right, low), (right, high), (left, high)])


def limb(x0: float, y0: float, x1: float, y1: float, r0: float, r1: float) -> np.ndarray:
    """The outline of a rounded bar between two points, with its half widths there."""
    turn = np.linspace(0.5, 1.5, 7) * np.pi + np.arctan2(y1 - y0, x1 - x0)
    arc = np.stack([np.cos(turn), np.sin(turn)], 1)
    return np.concatenate([(x0, y0) + r0 * arc, (x1, y1) - r1 * arc])


class Scene:
    """Camera, light and street of a seed, and the canvas. World metres: x across the street, y up, z along it."""

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self.rng, self.size, self.counts = np.random.default_rng(seed), size, Counter[int]()
        uniform, (height, width) = self.rng.uniform, size
        self.image, self.shadow = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
        self.ids = np.zeros(size, np.uint16)  # as in Cityscapes: the label, or for things label * 1000 + number
        mood = self.rng.choice(4, p=[0.4, 0.25, 0.2, 0.15])
        self.direct, self.ambient, self.zenith, self.haze = np.float32(MOODS[mood][1] * uniform(0.93, 1.07, (4, 3)))
        up, around = np.radians(uniform(*MOODS[mood][0])), uniform(0, 2 * np.pi)
        self.sun = np.array([np.cos(up) * np.sin(around), np.sin(up), np.cos(up) * np.cos(around)])
        self.fog, self.clouds, self.dusk = 0.0015 * 8 ** uniform(), uniform(0, 0.7) + 0.6 * (mood == 2), mood == 3
        self.half, self.bend = uniform(3.4, 7.0), uniform(-0.004, 0.004)
        self.crossing, self.cross = (uniform(16, 50) if uniform() < 0.5 else 1e4), uniform(3.5, 6)
        kinds = (("block", "park"), ("houses", "block"), ("houses", "houses"), ("park", "houses"), ("block", "block"))
        self.sides = {}  # -1 left, 1 right: its kind, and from the kerb the ends of verge, pavement and front gardens
        for side, kind in zip((-1, 1), self.rng.permutation(kinds[self.rng.integers(5)]), strict=True):
            verge = uniform(1.2, 2.6) * (uniform() < 0.5)
            paved = verge + uniform(2.2, 4.5)
            self.sides[side] = kind, verge, paved, paved + {"block": 0, "houses": uniform(3, 6), "park": 25}[kind]
        self.eye = np.array([self.half * uniform(-0.75, 0.75), uniform(1.35, 2.6), 0])
        self.focal = np.sqrt(2 * height * width) * uniform(0.55, 0.85)
        self.centre = (width, height) * uniform((0.42, 0.32), (0.58, 0.56))  # it pitches, and uprights stay upright
        (c, s), (i, j) = ((np.cos(t), np.sin(t)) for t in uniform((-0.3, -0.02), (0.3, 0.02)))
        self.turn = np.array([(i, j, 0), (-j, i, 0), (0, 0, 1)]) @ [(c, 0, -s), (0, 1, 0), (s, 0, c)]

    def view(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) world -> right, up and forward of the camera."""
        return (points - self.eye) @ self.turn.T

    def pixels(self, points: np.ndarray) -> np.ndarray:
        view = self.view(points)
        return self.centre + self.focal * view[..., :2] / np.maximum(view[..., 2:], 0.5) * (1, -1)

    def rays(self) -> np.ndarray:
        """(H, W, 3) world direction of each pixel, 1 metre forward."""
        v, u = ((np.arange(n, dtype=np.float32) - np.float32(c)) for n, c in zip(self.size, self.centre[::-1], strict=True))
        right, up, forward = np.float32(self.turn)
        return u[:, None] * (right / self.focal) - v[:, None, None] * (up / self.focal) + forward

    def shade(self, albedo: np.ndarray, lit: np.ndarray | float, depth: np.ndarray | float) -> np.ndarray:
        """Colour 0..255 of (..., 3) surfaces by the cosine of the sun on them, seen through haze."""
        clear = 255 * np.exp(-self.fog * np.float32(depth))[..., None]
        colour = np.float32(albedo) * (self.ambient + self.direct * np.maximum(np.float32(lit), 0)[..., None])
        return np.clip(colour * clear + self.haze * (255 - clear), 0, 255)

    def fill(self, canvas: np.ndarray, points: np.ndarray, colour: float | list[float], how: int = cv2.LINE_8) -> None:
        """Fill polygons (N, 3) or (P, N, 3) of the world."""
        corners = np.rint(self.pixels(points).clip(-9e3, 9e3) * 16).astype(np.int32)
        cv2.fillPoly(canvas, corners.reshape(-1, *corners.shape[-2:]), colour, how, 4)

    def stand(self, thing: Thing, right: np.ndarray) -> list[np.ndarray]:
        """The corners in the world; a flat figure turns to the given side."""
        if thing.faces[0][0].shape[-1] == 3:
            return [points for points, _, _ in thing.faces]
        return [(thing.x, 0, thing.z) + p[:, :1] * right + p[:, 1:] * (0, 1, 0) for p, _, _ in thing.faces]

    def cast(self, thing: Thing) -> None:
        """Paint its shadow on the ground."""
        world = self.stand(thing, np.array([self.sun[2], 0, -self.sun[0]]) / np.hypot(*self.sun[::2]))
        for points, (_, _, label) in zip(world, thing.faces, strict=True):
            if label:
                self.fill(self.shadow, points - points[..., 1:2] * self.sun / self.sun[1], 255)

    def paint(self, thing: Thing) -> None:
        world, (_, albedo, labels) = self.stand(thing, self.turn[0]), zip(*thing.faces, strict=True)
        x, y = self.pixels(np.array([thing.x, 0, thing.z])).clip(0, np.subtract(self.size[::-1], 1)).astype(int)
        lit = 1 - self.shadow[y, x] / 255 * (BUILDING not in labels)
        if thing.faces[0][0].shape[-1] == 3:
            p, q, r = np.stack([points.reshape(-1, 3)[:3] for points in world], 1)
            normal = np.cross(q - p, r - p)
            inside = np.concatenate([points.reshape(-1, 3) for points in world]).mean(0)
            normal *= (np.sign(((p - inside) * normal).sum(1)) / np.linalg.norm(normal, axis=1))[:, None]
            seen, lit = ((self.eye - p) * normal).sum(1) > 0, lit * (normal @ self.sun)
        else:
            seen, lit = np.ones(len(world), bool), 0.5 * lit
        colours = self.shade(np.array(albedo), lit, max(self.view(np.array([thing.x, 0, thing.z]))[2], 0)).tolist()
        number = {label: label * 1000 + self.counts[label] for label in {PERSON, CAR}.intersection(labels)}
        self.counts.update(number.keys())
        for points, colour, label, visible in zip(world, colours, labels, seen, strict=True):
            if visible and self.view(points)[..., 2].min() > 0.5:
                self.fill(self.image, points, colour, cv2.LINE_AA)
                if label:
                    self.fill(self.ids, points, number.get(label, label))

    def tone(self, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
        """An albedo between two colours, a little off the line between them."""
        return np.clip(low + (self.rng.uniform() + self.rng.uniform(-0.08, 0.08, 3)) * np.subtract(high, low), 0.02, 1)

    def person(self, x: float, z: float) -> Thing:
        tall, stride, lean = self.rng.uniform(1.5, 1.95), self.rng.uniform(-0.13, 0.13), self.rng.choice([-1, 1])
        skin, hair = self.tone((0.36, 0.22, 0.15), (0.9, 0.68, 0.55)), self.tone((0.05, 0.04, 0.04), (0.55, 0.4, 0.2))
        coat, legs, hem = self.rng.uniform(0.03, 0.8, 3), self.tone((0.08, 0.09, 0.14), (0.45, 0.42, 0.45)), self.rng.uniform(0.4, 0.55)
        limbs = []  # for a height of 1, as in limb()
        for s in (-1, 1):
            foot, hand = s * (0.055 + stride), s * (0.13 - stride)
            limbs.append((0.045 * s, 0.5, 0.7 * foot, 0.27, 0.062, 0.045, legs * (0.9 + 0.1 * s)))
            limbs.append((0.7 * foot, 0.27, foot, 0.03, 0.045, 0.03, legs * (0.9 + 0.1 * s)))
            limbs.append((foot, 0.025, foot + 0.05 * lean, 0.02, 0.028, 0.02, legs * 0.3))
            limbs.append((0.115 * s, 0.785, hand, 0.48, 0.042, 0.028, coat * 0.8))
            limbs.append((hand, 0.47, hand, 0.46, 0.027, 0.027, skin))
        limbs += [(0, hem, 0, 0.77, 0.11, 0.115, coat), (0, 0.83, 0, 0.88, 0.035, 0.035, skin * 0.8)]
        limbs += [(0, 0.9, 0, 0.935, 0.052, 0.058, skin), (-0.01 * lean, 0.945, -0.02 * lean, 0.95, 0.06, 0.05, hair)]
        faces, glint = [], 0.25 * np.sign(self.turn[0] @ self.sun)
        for x0, y0, x1, y1, r0, r1, albedo in limbs:
            inner = limb(x0 + glint * r0, y0, x1 + glint * r1, y1, 0.65 * r0, 0.65 * r1)
            faces += [(tall * limb(x0, y0, x1, y1, r0, r1), albedo * 0.85, PERSON), (tall * inner, albedo * 1.1, 0)]
        return Thing(x, z, faces)

    def car(self, x: float, z: float, turn: float) -> Thing:
        uniform, van = self.rng.uniform, self.rng.random() < 0.25
        length, w, high, belt = uniform((3.7, 0.86, 1.42, 0.88), (4.8, 0.95, 1.6, 1.0)) + (0, 0, 0.4 * van, 0)
        nose, tail = (0.38, -0.48) if van else (uniform(0.2, 0.26), self.rng.choice([-0.47, -0.4, -0.3]))
        coat = uniform(0.03, 0.8, 3) if self.rng.random() < 0.5 else np.full(3, self.rng.choice([0.07, 0.2, 0.5, 0.8, 0.9]))
        turned = np.array([(np.cos(turn), 0, -np.sin(turn)), (0, 1, 0), (np.sin(turn) * length, 0, np.cos(turn) * length)])

        def put(points: Sequence[tuple[float, float, float]]) -> np.ndarray:
            """(across, up, share of the length) -> world."""
            return (x, 0, z) + np.array(points) @ turned

        def hull(*profile: tuple[float, float, float]) -> list[np.ndarray]:
            """Both sides, then the strips across, of a profile of (share of the length, up, half width)."""
            left, right = ([(k * half, up, along) for along, up, half in profile] for k in (-1, 1))
            strips = [put([*left[i : i + 2], *right[i : i + 2][::-1]]) for i in range(len(profile) - 1)]
            return [put(left), put(right), *strips]

        body = hull((-0.5, 0.25, w), (-0.5, 0.7, w), (-0.48, belt, w), (nose, belt, w), (0.45, 0.78, w), (0.5, 0.6, w), (0.5, 0.25, w))
        panes = hull((max(tail - 0.06, -0.48), belt, 0.95 * w), (tail + 0.06, high - 0.04, 0.78 * w), (nose - 0.2, high, 0.78 * w), (nose, belt, 0.95 * w))
        faces = [(face, coat, CAR) for face in body]
        for end, lamp in ((-0.5, (0.75, 0.05, 0.05)), (0.5, (0.95, 0.93, 0.8))):
            patches = [((-w, w, 0.25, 0.42), 0.06), ((-0.28, 0.28, 0.46, 0.58), 0.85)]
            patches += [((k * 0.95 * w, k * 0.6 * w, 0.52, 0.68), np.multiply(lamp, 1 + self.dusk)) for k in (-1, 1)]
            faces += [(put([(*p, end) for p in bar(*patch)]), np.ones(3) * albedo, 0) for patch, albedo in patches]
        for k, hub, (radius, albedo, label) in product((-w, w), (-0.31, 0.31), ((0.34, 0.04, CAR), (0.2, 0.5, 0))):
            wheel = put([(k, 0.34 + radius * u, hub + radius * v / length) for u, v in CIRCLE[::4]])
            faces.append((wheel, np.full(3, albedo), label))
        faces += [(pane, coat, CAR) for pane in panes]
        for pane, glass in zip((panes[i] for i in (0, 1, 2, 4)), (0.2, 0.2, 0.15, 0.25), strict=True):
            faces.append((pane.mean(0) + (pane - pane.mean(0)) * (0.88, 0.8, 0.88), np.array((0.7, 0.9, 1.1)) * glass, 0))
        return Thing(x, z, faces)

    def post(self, x: float, z: float, inwards: int, corners: int) -> Thing:
        """A lamp post, or a sign with so many corners; four are a board on two posts."""
        thick, r, steel = self.rng.uniform(0.11, 0.17), self.rng.uniform(0.5, 0.72), self.tone((0.16, 0.18, 0.17), (0.6, 0.62, 0.63))
        high = self.rng.uniform(5.5, 8.5) if not corners else self.rng.uniform(2.9, 3.6)
        faces = []
        for at in (-r, r) if corners == 4 else (0,):
            for left, right, gain, label in ((-1, 1, 0.8, POLE), (-0.7, 0.4, 1.1, 0), (-0.4, -0.1, 1.35, 0)):
                faces.append((bar(at + thick * left, at + thick * right, 0, high), steel * gain, label))
        if not corners:
            arm = limb(0, high, 1.6 * inwards, high + 0.35, 0.7 * thick, 0.7 * thick)
            return Thing(x, z, [*faces, (arm, steel, POLE), (limb(1.3 * inwards, high + 0.3, 2.2 * inwards, high + 0.36, 0.16, 0.12), steel * 0.7, POLE)])
        red, blue, white, green = np.array([(0.8, 0.06, 0.07), (0.05, 0.22, 0.66), (0.92, 0.92, 0.92), (0.05, 0.36, 0.2)])
        shape = bar(-1.9, 1.9, -1, 1) if corners == 4 else CIRCLE[3 * (corners == 8) :: 48 // corners]
        edge, plate = (red, white) if corners in (3, 24) else (white, red if corners == 8 else (blue, green)[int(thick * 1e6) % 2])
        for size, albedo, label in ((1.0, edge, SIGN), (0.75 if edge is red else 0.92, plate, 0)):
            faces.append((r * size * shape + (0, high - 0.7 * r), albedo, label))
        for row in (0.45, 0, -0.45) if corners == 4 else (0,):
            width = self.rng.uniform(0.2, 1.5) if corners == 4 else 0.4
            faces.append((r * bar(-width, width, row - 0.13, row + 0.13) + (0, high - 0.7 * r), (white - edge) + 0.08 if 0 else 1 - plate * 0.9, 0))
        return Thing(x, z, faces)

    def tree(self, x: float, z: float, tall: float, slim: float) -> Thing:
        green = self.tone((0.10, 0.22, 0.07), (0.34, 0.42, 0.12)) if self.rng.random() < 0.9 else self.tone((0.5, 0.24, 0.07), (0.6, 0.45, 0.1))
        bark, crown = self.tone((0.2, 0.15, 0.11), (0.36, 0.3, 0.26)), tall * np.array([slim, 0.34])
        faces = [(tall * limb(0, 0, 0, 0.5, 0.025, 0.015), bark, VEGETATION)]
        sun = np.array([self.turn[0] @ self.sun, max(self.sun[1], 0.3)])
        turn, reach = self.rng.uniform(0, 2 * np.pi, 40), np.sqrt(np.linspace(1, 0.02, 40))[:, None] 
        spots = np.stack([np.cos(turn), np.sin(turn)], 1) * reach * 0.75
        for spot in spots:
            leaf = CIRCLE[::3] * self.rng.uniform(0.2, 0.36) * self.rng.uniform(0.75, 1.2, (16, 1))
            faces.append(((spot + leaf) * crown + (0, 0.66 * tall), green * (0.8 + 0.5 * spot @ sun + self.rng.uniform(-0.1, 0.1)), VEGETATION))
        return Thing(x, z, faces)

    def building(self, p: np.ndarray, q: np.ndarray, out: np.ndarray, house: bool) -> Thing:
        """Its front goes from p to q, (x, z) left and right seen from the street; it reaches back by out."""
        floors, storey, bay = self.rng.integers(*((1, 3) if house else (3, 8))), self.rng.uniform(2.9, 3.6), self.rng.uniform(1.9, 3.3)
        wall = self.tone((0.45, 0.23, 0.17), (0.8, 0.7, 0.55)) if self.rng.random() < 0.6 else self.tone((0.48, 0.5, 0.52), (0.85, 0.84, 0.8))
        roof, trim, high = self.tone((0.18, 0.19, 0.22), (0.5, 0.22, 0.15)), wall * self.rng.uniform(0.7, 1.3), floors * storey
        ridge = np.array([0.5, 0.4 * np.hypot(*out)]) if house else np.array([0.15, 2.4])
        faces = []
        for start, end in ((p, q), (p + out, p), (q, q + out)):
            along, bays = end - start, max(1, round(np.hypot(*(end - start)) / bay))

            def put(corners: np.ndarray, start=start, along=along) -> np.ndarray:
                return np.stack([start[0] + corners[..., 0] * along[0], corners[..., 1], start[1] + corners[..., 0] * along[1]], -1)

            cells = np.stack(np.meshgrid(np.arange(bays) / bays, np.arange(floors) * storey), -1).reshape(-1, 1, 2)
            faces.append((put(bar(0, 1, 0, high)), wall, BUILDING))
            faces.append((put(cells + bar(0.2, 0.8, 0.24, 0.86) * (1 / bays, storey)), trim, 0))
            kind = self.rng.integers(4, size=len(cells))
            for k in range(4):
                if (kind == k).any():
                    glass = np.array((1.6, 1.25, 0.7)) if self.dusk and k == 0 else np.array((0.8, 1.0, 1.15)) * (0.08 + 0.08 * k)
                    faces.append((put(cells[kind == k] + bar(0.26, 0.74, 0.28, 0.82) * (1 / bays, storey)), glass, 0))
        up = lambda e, h: (e[0], h, e[1])
        top = high + ridge[1]
        faces.append((np.array([up(p, high), up(q, high), up(q + ridge[0] * out, top), up(p + ridge[0] * out, top)]), roof, BUILDING))
        for e in (p, q):
            faces.append((np.array([up(e, high), up(e + out, high), up(e + (1 - ridge[0]) * out, top), up(e + ridge[0] * out, top)]), wall if house else roof, BUILDING))
        far = max((p, q), key=lambda e: e[1])
        return Thing(*far, faces)

    def paint_sky(self) -> None:
        """Sky with clouds on a plane overhead, and a far skyline of towers and trees."""
        ray = self.rays()
        up = np.maximum(ray[..., 1], 0.015)
        colour = self.zenith + (self.haze - self.zenith) * np.exp(-3.5 * up)[..., None]
        clouds = 0.6 * sample(1.7, 14 * ray[..., 0] / up + self.rng.uniform(0, 256), 14 * ray[..., 2] / up) + 0.5 * self.clouds - 0.35
        cover = (np.clip(clouds, 0, 0.95) * np.clip(5 * up - 0.1, 0, 1))[..., None]
        white = np.clip(0.35 * self.haze + 0.45 * self.ambient + 0.45 * self.direct, 0, 1)
        colour += (white * (1.1 - 0.25 * cover) - colour) * cover
        glow = np.maximum(ray @ np.float32(self.sun) / np.linalg.norm(ray, axis=-1), 0) ** 30
        self.image[:] = np.clip(255 * (colour + 0.5 * glow[..., None] * self.direct), 0, 255)
        self.ids[:] = SKY
        angle = np.linspace(-1.2, 1.2, 121)
        for label, albedo, high in ((BUILDING, (0.45, 0.44, 0.45), 30), (VEGETATION, (0.14, 0.24, 0.12), 16)):
            tops = self.rng.uniform(0.2, 1) * high * np.maximum(0.8 + 0.5 * grain(1.3)[self.rng.integers(256), :121], 0)
            turn, tops = (angle, tops) if label == VEGETATION else (np.repeat(angle[::4], 2)[1:], np.repeat(tops[::4], 2)[:-1])
            edge = 300 * np.stack([np.sin(turn), tops / 300, np.cos(turn)], 1)
            self.fill(self.image, np.concatenate([edge, edge[::-1] * (1, 0, 1)]), self.shade(np.array(albedo), 0.5, 140).tolist(), cv2.LINE_AA)
            self.fill(self.ids, np.concatenate([edge, edge[::-1] * (1, 0, 1)]), label)

    def paint_ground(self) -> None:
        """Every pixel below the horizon by where its ray meets the ground."""
        ray, uniform = self.rays(), self.rng.uniform
        top = int(np.argmax((ray[..., 1] < -0.004).any(1)))
        ray = ray[top:]
        seen, depth = ray[..., 1] < -0.004, np.float32(self.eye[1]) / np.maximum(-ray[..., 1], 0.004)
        x, z = np.float32(self.eye[0]) + depth * ray[..., 0], depth * ray[..., 2]
        across, ahead = x - np.float32(self.bend) * z * z, z - np.float32(self.crossing)
        kerb = np.minimum(np.abs(across) - np.float32(self.half), np.abs(ahead) - np.float32(self.cross))
        _, verge, paved, _ = (np.where(across < 0, l, r) for l, r in zip(*self.sides.values(), strict=True))
        surface = np.select([kerb < 0, kerb < 0.22, (kerb >= verge) & (kerb < paved)], [0, 1, 2], 3)
        stone = self.tone((0.42, 0.40, 0.42), (0.68, 0.62, 0.56))
        grounds = self.tone((0.17, 0.17, 0.19), (0.4, 0.39, 0.38)), 1.15 * stone, stone, self.tone((0.15, 0.25, 0.08), (0.42, 0.42, 0.16))
        pixel = depth / np.float32(self.focal)  # metres across one, and along one
        far = pixel * np.maximum(depth / np.float32(self.eye[1]), 1)
        fine, coarse = sample(0.6, 23 * x, 23 * z) * np.clip(0.05 / pixel, 0, 1), sample(1.4, 5 * x, 5 * z)
        slab, gap = uniform(0.6, 1.2), uniform(6, 9)
        joints = np.maximum(line(x % slab - slab / 2, 0.025, pixel), line(z % slab - slab / 2, 0.025, far))
        tint = 1 + fine * np.float32([0.07, 0.04, 0.04, 0.16])[surface] + coarse * np.float32([0.06, 0.03, 0.04, 0.14])[surface]
        tint -= 0.3 * joints * (surface == 2) + 0.35 * self.shadow[top:] / np.float32(255)
        dashes = np.maximum(line(across, 0.08, pixel) * line(z % gap - gap / 2, 0.25 * gap, far), line(np.abs(across) - self.half + 0.35, 0.07, pixel))
        zebra = line(x % 1.1 - 0.55, 0.28, pixel) * line(ahead + self.cross + 2.6, 1.5, far)
        marks = np.maximum(dashes * (np.abs(ahead) > self.cross + 5), zebra) * (surface == 0) * (0.85 + 0.1 * coarse)
        albedo = np.float32(grounds)[surface] * tint[..., None]
        albedo += (0.88 - albedo) * np.clip(marks, 0, 1)[..., None]
        lit = np.float32(self.sun[1]) * (1 - self.shadow[top:] / np.float32(255))
        self.image[top:][seen] = self.shade(albedo, lit, depth)[seen]
        self.ids[top:][seen] = np.uint16([ROAD, SIDEWALK, SIDEWALK, TERRAIN])[surface[seen]]

    def at(self, side: int, metres: float, z: float) -> np.ndarray:
        """(x, z) of the point so many metres off the kerb."""
        return np.array([self.bend * z * z + side * (self.half + metres), z])

    def things(self) -> list[Thing]:
        """Everything that stands on the street."""
        uniform, chosen, taken = self.rng.uniform, [], []

        def place(near: float, far: float, room: float, low, high) -> tuple[int, np.ndarray] | None:
            for _ in range(12):
                side = int(self.rng.choice([-1, 1]))
                x, z = spot = self.at(side, uniform(low(side), high(side)), uniform(near, far))
                u = self.pixels(np.array([x, 0, z]))[0] / self.size[1]
                if 0.03 < u < 0.97 and self.view(np.array([x, 0, z]))[2] > 3 and all(np.hypot(*(spot - s)) > room + r for s, r in taken):
                    taken.append((spot, room))
                    return side, spot
            return None

        c, s = self.turn[2, 2], self.turn[2, 0]
        for side, (kind, verge, paved, setback) in self.sides.items():
            z = (0.7 - s * (side * (self.half + setback) - self.eye[0])) / c
            while z < 110 and kind != "park":
                width = uniform(8, 13) if kind == "houses" else uniform(9, 20)
                if abs(z + width / 2 - self.crossing) < self.cross + width / 2 + paved:
                    z = self.crossing + self.cross + paved + 0.1
                near, far = self.at(side, setback, z), self.at(side, setback, z + width)
                p, q = (near, far) if side < 0 else (far, near)
                chosen.append(self.building(p, q, np.array([side * uniform(8, 12), 0.0]), kind == "houses"))
                z += width + (uniform(2, 8) if kind == "houses" else 4 * (uniform() < 0.2))
            for z in np.arange(uniform(6, 12), 80, uniform(7, 11)) if verge else ():
                chosen.append(self.tree(*self.at(side, verge / 2, z), uniform(5, 8), 0.2))
            for _ in range({"park": 16, "houses": 5, "block": 0}[kind]):
                z = uniform(7, 70)
                chosen.append(self.tree(*self.at(side, uniform(paved + 1, setback), z), uniform(4, 10), uniform(0.15, 0.4)))
        if self.crossing < 1e3 and uniform() < 0.4:  # the street ends there
            for x in np.arange(-60, 60, 15.0):
                p = np.array([x, self.crossing + self.cross + 4])
                chosen.append(self.building(p, p + (15, 0), np.array([0, 9.0]), False))
        for i in range(self.rng.integers(5, 11)):
            lane = self.rng.choice([-1.05, -0.5 * self.half])
            if spot := place(*((7, 15) if i < 2 else (9, 60)), 2.6, lambda _: lane, lambda _: lane):
                side, (x, z) = spot
                chosen.append(self.car(x, z, np.arctan(2 * self.bend * z) + np.pi * (side < 0)))
        for i in range(self.rng.integers(4, 8)):
            if spot := place(*((6, 12) if i < 2 else (9, 35)), 0.5, lambda _: 0.45, lambda _: 0.8):
                chosen.append(self.post(*spot[1], -spot[0], int(self.rng.choice([3, 4, 8, 24] if i < 2 else [0, 3, 8, 24]))))
        for i in range(self.rng.integers(6, 13)):
            if spot := place(*((4.5, 9) if i < 3 else (6, 30)), 0.35, lambda k: self.sides[k][1] + 0.4, lambda k: self.sides[k][2] - 0.4):
                chosen.append(self.person(*spot[1]))
        return chosen


def draw_scene(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 RGB, label ids (H, W) uint8 and instance ids (H, W) uint16 of the scene of a seed."""
    scene = Scene(seed, size)
    things = scene.things()
    for thing in things:
        scene.cast(thing)
    scene.shadow = cv2.GaussianBlur(scene.shadow, (0, 0), max(size[0] / 250, 0.6))
    scene.paint_sky()
    scene.paint_ground()
    for thing in sorted(things, key=lambda t: -scene.view(np.array([t.x, 0, t.z]))[2]):
        scene.paint(thing)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    noise = scene.rng.standard_normal(size, np.float32) * np.float32(scene.rng.uniform(1, 5))
    gain = np.float32(scene.rng.uniform(0.85, 1.15) * scene.rng.uniform(0.95, 1.05, 3))
    vignette = 1 - np.float32(scene.rng.uniform(0, 0.14)) * (x**2 + y[:, None] ** 2)
    image = cv2.GaussianBlur(scene.image, (3, 3), 0.55) * gain * vignette[..., None] + noise[..., None]
    labels = np.where(scene.ids >= 1000, scene.ids // 1000, scene.ids)
    return np.clip(image, 0, 255).astype(np.uint8), labels.astype(np.uint8), scene.ids


def write_scene(job: tuple[Path, str, str, int, int, tuple[int, int]]) -> None:
    root, split, city, index, seed, size = job
    number = np.random.SeedSequence((seed, list(CITIES).index(split), index)).generate_state(1)[0]
    image, labels, ids = draw_scene(int(number), size)
    pictures = {"leftImg8bit": image[..., ::-1], "gtFine_labelIds": labels, "gtFine_instanceIds": ids}
    for kind, picture in pictures.items():
        file = root / kind.split("_")[0] / split / city / f"{city}_{index:06d}_000019_{kind}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def write_tree(
    root: Path, counts: Mapping[str, int], size: tuple[int, int], seed: int = 0, processes: int | None = None
) -> bool:
    """Draw so many scenes per split under root; False if just these are there already."""
    if not (32 <= size[0] <= 1024 and 32 <= size[1] <= 2048):
        raise UserError(f"--size {size[0]} {size[1]} is out of range: height 32 to 1024, width 32 to 2048.")
    if min(counts.values()) < 0 or sum(counts.values()) == 0:
        raise UserError("There is nothing to draw: --train, --val and --test are counts, and one must be above 0.")
    arguments = {"version": VERSION, **{split: counts.get(split, 0) for split in CITIES}, "size": [*size], "seed": seed}
    stamp, begun = root / STAMP, root / f"{STAMP}.unfinished"  # the second one lets an interrupted run start again
    found = [json.loads(file.read_text()) for file in (stamp, begun) if file.is_file()]
    if found == [arguments] and stamp.is_file():
        return False
    if found != [arguments] and root.exists() and any(root.iterdir()):
        raise UserError(f"{root} holds something else than this demo data; name another --output, or remove it first.")
    root.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(arguments))
    jobs = [
        (root, split, cities[i * len(cities) // counts[split]], i, seed, size)
        for split, cities in CITIES.items()
        for i in range(counts.get(split, 0))
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for _ in track(pool.imap_unordered(write_scene, jobs), "drawing", len(jobs)):
            pass
    begun.replace(stamp)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw street scenes with exact labels into the Cityscapes tree.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    for split, count in (("train", 200), ("val", 50), ("test", 10)):
        parser.add_argument(f"--{split}", type=int, default=count, metavar="N", help=f"scenes (default {count})")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        drawn = write_tree(args.output, {split: getattr(args, split) for split in CITIES}, tuple(args.size), args.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: {'drawn' if drawn else 'complete already, nothing to do'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
