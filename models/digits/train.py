#!/usr/bin/env python3
"""Train the digit reader of Oscine's demo and export it as ONNX.

The pictures are rendered here, from fonts: nothing is downloaded. Fonts below
--test-fonts are never used for training. See README.md for the command and
the font packages that made digits.onnx.
"""
import argparse
import math
import os
import random

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import nn

SIDE = 28    # of the model's input
CANVAS = 112 # of the picture that is distorted and then reduced


def fonts_below(directory):
    """Every font file below a directory that has ten different digits, with
    the name of the folder, one for each package, that it came in."""
    found = []
    for root, _, files in sorted(os.walk(directory)):
        for name in sorted(files):
            path = os.path.join(root, name)
            if name.lower().endswith((".ttf", ".otf")) and has_digits(path):
                found.append((path, os.path.relpath(path, directory).split(os.sep)[0]))
    return found


def has_digits(path):
    try:
        font = ImageFont.truetype(path, 40)
        missing = glyph(font, "\uffff")
        seen = {missing}
        for digit in "0123456789":
            box = font.getbbox(digit)
            if box is None or not 4 < box[3] - box[1] < 60 or not 2 < box[2] - box[0] < 60:
                return False
            seen.add(glyph(font, digit))
        return len(seen) == 11
    except Exception:
        return False


def glyph(font, text):
    image = Image.new("L", (64, 64))
    ImageDraw.Draw(image).text((4, 4), text, 255, font=font)
    return image.tobytes()


class Renderer:
    """Draws a digit as a camera may see it: light ink on dark ground."""

    def __init__(self, paths, rng):
        self.rng = rng
        # One package, one vote: some hold a single face, others thirty.
        packages = {}
        for path, package in paths:
            packages.setdefault(package, []).append(ImageFont.truetype(path, 64))
        self.packages = list(packages.values())

    def draw(self, digit):
        r = self.rng
        font = r.choice(r.choice(self.packages))
        image = Image.new("L", (CANVAS, CANVAS))
        box = font.getbbox(str(digit))
        w, h = box[2] - box[0], box[3] - box[1]
        draw = ImageDraw.Draw(image)
        heavier = r.choice([0, 0, 0, 0, 1, 2])
        draw.text(((CANVAS - w) / 2 - box[0], (CANVAS - h) / 2 - box[1]), str(digit), 255, font=font, stroke_width=heavier, stroke_fill=255)
        # The ink's larger side becomes 15 to 25 of the 28 pixels.
        scale = r.uniform(15, 25) / SIDE * CANVAS / max(w, h)
        wide = scale * r.uniform(0.8, 1.2)
        angle, shear = math.radians(r.uniform(-14, 14)), r.uniform(-0.25, 0.25)
        c, s = math.cos(angle), math.sin(angle)
        matrix = np.array([[c, -s], [s, c]]) @ np.array([[1, shear], [0, 1]]) @ np.diag([wide, scale])
        inverse = np.linalg.inv(matrix)
        centre = CANVAS / 2
        move = np.array([r.uniform(-9, 9), r.uniform(-9, 9)])
        offset = centre - inverse @ (np.array([centre, centre]) + move)
        image = image.transform((CANVAS, CANVAS), Image.AFFINE,
                                (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1]), Image.BILINEAR)
        if r.random() < 0.3:
            image = image.filter(ImageFilter.MinFilter(3) if r.random() < 0.5 else ImageFilter.MaxFilter(5))
        if r.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(r.uniform(0.5, 4)))
        x = np.asarray(image.resize((SIDE, SIDE), Image.BOX), dtype=np.float32) / 255
        return self.spoil(x)

    def spoil(self, x):
        r = self.rng
        if r.random() < 0.5:
            x = x * r.uniform(0.5, 1.0) + r.uniform(0, 0.15)
        if r.random() < 0.3:  # uneven light
            ramp = np.linspace(-1, 1, SIDE, dtype=np.float32)
            x = x + r.uniform(-0.15, 0.15) * ramp[:, None] + r.uniform(-0.15, 0.15) * ramp[None, :]
        noise = np.random.default_rng(r.getrandbits(32))
        if r.random() < 0.7:
            x = x + noise.normal(0, r.uniform(0.01, 0.14), x.shape).astype(np.float32)
        if r.random() < 0.15:  # specks
            dots = noise.random(x.shape) < r.uniform(0, 0.03)
            x = np.where(dots, noise.random(x.shape).astype(np.float32), x)
        return np.clip(x, 0, 1)


def pictures(paths, count, seed):
    rng = random.Random(seed)
    renderer = Renderer(paths, rng)
    x = np.empty((count, 1, SIDE, SIDE), dtype=np.float32)
    y = np.empty(count, dtype=np.int64)
    for i in range(count):
        y[i] = i % 10
        x[i, 0] = renderer.draw(int(y[i]))
    return torch.from_numpy(x), torch.from_numpy(y)


class Reader(nn.Module):
    """Three small convolutions, 16,000 parameters: 0.8 million
    multiplications, so that it answers soon in an emulated machine too."""

    def __init__(self):
        super().__init__()
        def block(i, o, stride):
            return [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        self.layers = nn.Sequential(
            *block(1, 12, 2), *block(12, 28, 2), *block(28, 48, 1),
            nn.AvgPool2d(7), nn.Flatten(), nn.Linear(48, 10))

    def forward(self, x):
        return self.layers((x - 0.2) / 0.35)


def accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        right = sum((model(x[i:i + 500]).argmax(1) == y[i:i + 500]).sum().item() for i in range(0, len(x), 500))
    return right / len(x)


def train(model, x, y, epochs, seed, test):
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    batch, steps = 128, len(x) // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.03)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(x), generator=generator)
        for i in range(steps):
            pick = order[i * batch:(i + 1) * batch]
            optimiser.zero_grad()
            loss = loss_of(model(x[pick]), y[pick])
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs} loss {total / steps:.4f} unseen fonts {accuracy(model, *test):.4f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-fonts", required=True, help="folder of fonts to train with")
    parser.add_argument("--test-fonts", required=True, help="folder of fonts to test with")
    parser.add_argument("--count", type=int, default=40000, help="pictures to train with")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--out", default="digits.onnx")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # the order of sums is part of the result
    train_fonts, test_fonts = fonts_below(args.train_fonts), fonts_below(args.test_fonts)
    shared = {os.path.basename(p) for p, _ in train_fonts} & {os.path.basename(p) for p, _ in test_fonts}
    if shared or not train_fonts or not test_fonts:
        raise SystemExit(f"train and test fonts must exist and be disjoint; in both: {sorted(shared)}")
    print(f"{len(train_fonts)} fonts to train with, {len(test_fonts)} to test with", flush=True)
    test = pictures(test_fonts, 5000, args.seed + 1)
    x, y = pictures(train_fonts, args.count, args.seed)
    print("pictures rendered", flush=True)

    model = Reader()
    train(model, x, y, args.epochs, args.seed, test)
    model.eval()
    torch.onnx.export(model, torch.zeros(1, 1, SIDE, SIDE), args.out, opset_version=13,
                      input_names=["image"], output_names=["scores"],
                      dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}})
    print(f"accuracy on unseen fonts {accuracy(model, *test):.4f}, {os.path.getsize(args.out)} bytes")


if __name__ == "__main__":
    main()
