"""Pictures: what is chosen and why, and what the images hold."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunescope.report.chosen import SHOWN, Seen, choose, excess
from prunescope.report.gallery import galleries
from prunescope.report.pictures import heat_uri, picture_uri
from prunescope.study.results import results


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_small_pictures_are_kept_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    assert (np.asarray(opened(picture_uri(image))) == image.transpose(1, 2, 0)).all()
    assert (np.asarray(opened(picture_uri(image[:1]))) == image[0]).all()


def test_large_pictures_are_made_smaller() -> None:
    shown = opened(picture_uri(np.zeros((3, 600, 300), dtype=np.uint8)))
    assert shown.size == (112, 224)
    assert shown.format == "JPEG"


def test_heat_is_opaque_where_it_is_strong() -> None:
    alpha = np.asarray(opened(heat_uri(np.array([[0.0, 0.4], [0.8, 2.0]], dtype=np.float16))))[..., 3]
    assert alpha[0, 0] == 0
    assert alpha[1, 1] == 255
    assert alpha[0, 1] < alpha[1, 0] < 255
    assert heat_uri(np.full((2, 2), np.nan)) == heat_uri(np.zeros((2, 2))) == ""


def seen(predicted: list[int]) -> Seen:
    return Seen(np.array(predicted), np.ones(len(predicted)), np.ones((len(predicted), 2, 2)))


def test_choices() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    dense, ticket = seen([0, 0, 0, 1, 1, 0]), seen([0, 0, 1, 1, 1, 0])
    similarity = np.array([0.5, -0.5, -1.0, np.nan, 0.9, -0.9])
    beyond = np.array([0.0, 0.1, 0.6, -0.2, 0.0, 0.0])
    chosen = choose([dense, ticket], labels, similarity, beyond)
    assert sorted(chosen["random"].tolist()) == [0, 1, 2, 3, 4, 5]
    assert chosen["drift"].tolist() == [1, 0, 4]  # both right and a map on both sides, least alike first
    assert chosen["flips"].tolist() == [2]
    assert chosen["hit"].tolist() == [2, 1]
    again = choose([dense, ticket], labels, similarity, beyond)
    assert chosen["random"].tolist() == again["random"].tolist()


def test_galleries_tell_what_the_records_say(finished: Path) -> None:
    found = results(finished)
    shown = galleries(found)
    assert [gallery.key.rpartition("/")[2] for gallery in shown] == ["0", "1", "0", "1"]  # of two recipes
    first = shown[0]
    assert first.columns == ("dense", "50\u00a0%", "25\u00a0%")
    assert len(first.groups["random"]) == SHOWN
    dense = next(point for point in found.points if point.role == "dense" and point.seed == 0)
    record = found.record(dense, "performance")
    assert record.ids is not None
    for row in first.groups["random"]:
        place = record.ids.tolist().index(row.image)
        assert row.truth == found.data["classes"][record.arrays["image.label"][place]]
        assert row.tiles[0].predicted == found.data["classes"][record.arrays["image.predicted"][place]]
        assert row.tiles[0].right == (row.tiles[0].predicted == row.truth)
        assert row.tiles[0].similarity == ""
    for row in first.groups["drift"]:
        assert row.tiles[0].right
        assert row.tiles[-1].right
    for row in first.groups["flips"]:
        assert any(tile.changed for tile in row.tiles)


def test_excess_is_flips_beyond_other_seeds(finished: Path) -> None:
    found = results(finished)
    recipe, ids = found.study.recipes[0].name, found.pictures()["ids"]

    def predicted(role: str) -> dict[tuple[int, int], np.ndarray]:
        points = [p for p in found.points if p.role == role]
        return {(p.seed, p.round): found.record(p, "performance").arrays["image.predicted"] for p in points}

    dense, own = predicted("dense"), predicted("ticket")
    order = found.record(found.points[0], "performance").ids
    assert order is not None
    i = order.tolist().index(ids[0])
    flipped = np.mean([one[i] != dense[seed, 0][i] for (seed, _), one in own.items()])
    assert excess(found, recipe, ids)[0] == pytest.approx(flipped - (dense[0, 0][i] != dense[1, 0][i]))
