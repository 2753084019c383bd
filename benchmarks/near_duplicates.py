"""False alarms of the near-duplicate check among pictures of different studies, and what it finds of changed copies.

python benchmarks/near_duplicates.py FOLDER [--images 5600] [--changed 300]

FOLDER holds radiographs by Open-i's names (``1_IM-0001-4001.dcm.jpg``), of which the first number is the study.
"""

from __future__ import annotations

import argparse
import io
import random
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from radpref.images import decode, near_hash, nearly_same
from radpref.images.near import near, words_of_hash


def changed(picture: Image.Image) -> dict[str, Image.Image]:
    width, height = picture.size
    across, down = width * 0.01, height * 0.01
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=75)
    return {
        "JPEG again (quality 75)": Image.open(packed).convert("RGB"),
        "+10 grey": picture.point(lambda value: min(value + 10, 255)),
        "half the size": picture.resize((width // 2, height // 2), Image.Resampling.BILINEAR),
        "2 % crop (1 % a side)": picture.crop(
            (round(across), round(down), round(width - across), round(height - down))
        ),
        "2 % crop (one corner)": picture.crop((0, 0, round(width - 2 * across), round(height - 2 * down))),
        "4 % crop (2 % a side)": picture.crop(
            (round(2 * across), round(2 * down), round(width - 2 * across), round(height - 2 * down))
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=5600)
    parser.add_argument("--changed", type=int, default=300)
    given = parser.parse_args()
    files = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    files = random.Random(0).sample(files, min(given.images, len(files)))
    hashes = [near_hash(decode(path)) for path in files]
    words = words_of_hash(hashes)
    studies = [path.name.split("_")[0] for path in files]
    pairs, by_hash, found = 0, 0, []
    for number in range(1, len(files)):
        others = np.array([study != studies[number] for study in studies[:number]])
        pairs += int(others.sum())
        for place in np.flatnonzero(near(words[number], words[:number]) & others):
            by_hash += 1
            if nearly_same(decode(files[number]), decode(files[place])):
                found.append((files[number].name, files[place].name))
    print(f"{len(files):,} pictures, {pairs:,} pairs of different studies")
    print(f"near by hash: {by_hash} ({by_hash / pairs:.1e} a pair); nearly the same: {len(found)}", end="")
    print(f" (0 among n pairs: under {3 / pairs:.1e} with 95 % confidence)" if not found else f": {found}")
    hits: Counter[str] = Counter()
    for path in files[: given.changed]:
        picture = decode(path)
        first = words_of_hash([near_hash(picture)])[0]
        for name, other in changed(picture).items():
            hits[name] += bool(near(first, words_of_hash([near_hash(other)]))[0]) and nearly_same(picture, other)
    for name, count in hits.items():
        print(f"{name}: {count} of {min(given.changed, len(files))} found")


if __name__ == "__main__":
    main()
