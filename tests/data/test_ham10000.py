"""No lesion lies in two splits, labels are the table's, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunescope.core.errors import PrunescopeError
from prunescope.data import ham10000 as module
from prunescope.data import load_data
from prunescope.data.descriptors import NAMES
from prunescope.data.ham10000 import DIAGNOSES

LESIONS = 6  # of every diagnosis; every second one was photographed twice


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    root = tmp_path / "ham"
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    y, x = np.indices((40, 50)) - np.array([20, 25])[:, None, None]
    for number in range(len(DIAGNOSES) * LESIONS * 3 // 2):
        lesion, again = divmod(number, 3)
        lesion = 2 * lesion + (again == 2)
        dx = DIAGNOSES[lesion % len(DIAGNOSES)]
        name = f"ISIC_{number:07}"
        rows.append(f"HAM_{lesion:07},{name},{dx},histo,{random.integers(20, 80)},male,back")
        folder = root / f"HAM10000_images_part_{1 + number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        radii = random.uniform(6, 16, 2)
        lesion_here = ((y / radii[0]) ** 2 + (x / radii[1]) ** 2 < 1)[..., None]
        image = np.where(lesion_here, random.integers(30, 130, 3), (225, 175, 160)) + random.normal(0, 3, (40, 50, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.jpg", quality=95)
    (root / "HAM10000_metadata.csv").write_text("\n".join(rows) + "\n")
    return root


def table(root: Path) -> dict[str, dict[str, str]]:
    return {row["image_id"]: row for row in module.metadata(root)}


def test_no_lesion_lies_in_two_splits_and_every_image_in_one(root: Path) -> None:
    rows = table(root)
    for seed in range(3):
        data = load_data({"name": "ham10000", "root": root, "size": 16, "seed": seed})
        ids = {name: data[name].ids.tolist() for name in ("train", "val", "test")}
        assert sorted(name for here in ids.values() for name in here) == sorted(rows)
        lesions = {name: {rows[i]["lesion_id"] for i in here} for name, here in ids.items()}
        assert not lesions["train"] & lesions["val"]
        assert not lesions["train"] & lesions["test"]
        assert not lesions["val"] & lesions["test"]
        assert data.test.labels.unique().tolist() == list(range(len(DIAGNOSES)))


def test_labels_are_those_of_the_table(root: Path) -> None:
    rows = table(root)
    data = load_data({"name": "ham10000", "root": root, "size": 16})
    assert [data.classes[i] for i in data.train.labels] == [rows[name]["dx"] for name in data.train.ids]
    binary = load_data({"name": "ham10000", "root": root, "size": 16, "target": "malignant"})
    assert binary.classes == ("benign", "malignant")
    assert binary.train.ids.tolist() == data.train.ids.tolist()
    assert binary.train.labels.tolist() == [int(rows[name]["dx"] in ("mel", "bcc")) for name in binary.train.ids]


def test_concepts_are_of_the_image_and_half_of_the_training_images_have_them(root: Path) -> None:
    split = load_data({"name": "ham10000", "root": root, "size": 16}).train
    assert split.concept_names == NAMES
    assert split.concept_level == "image"
    assert all(name.endswith("(descriptor)") for name in NAMES)
    large = split.concepts[:, NAMES.index("lesion large (descriptor)")]
    assert int((large == 1).sum()) == pytest.approx(len(split) / 2, abs=1)


def test_concepts_do_not_depend_on_the_size_that_the_network_sees(root: Path) -> None:
    small, large = (load_data({"name": "ham10000", "root": root, "size": size}) for size in (16, 24))
    assert torch.equal(small.test.concepts, large.test.concepts)


def test_physicians_concepts_of_derm7pt_replace_the_computed_ones(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "derm7pt"
    (other / "meta").mkdir(parents=True)
    columns = "derm,diagnosis,pigment_network,streaks,regression_structures,dots_and_globules,blue_whitish_veil\n"
    rows = [f"{i}.jpg,melanoma,typical,absent,absent,regular,{'present' if i else 'absent'}\n" for i in range(3)]
    (other / "meta" / "meta.csv").write_text(columns + "".join(rows))
    (other / "images").mkdir()
    for i, name in enumerate(("train", "valid", "test")):
        (other / "meta" / f"{name}_indexes.csv").write_text(f"indexes\n{i}\n")
        Image.fromarray(np.full((20, 20, 3), 80 * i, np.uint8)).save(other / "images" / f"{i}.jpg")
    data = load_data({"name": "ham10000", "root": root, "size": 16, "concepts": other})
    assert data.train.concepts is None
    assert data.concept_bank.ids.tolist() == ["0.jpg", "1.jpg"]
    assert data.concept_bank.concepts[:, 0].tolist() == [0, 1]
    assert data.concept_bank.normalisation == data.train.normalisation
    assert data.concept_bank.shape == data.train.shape


def test_descriptors_are_computed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_data({"name": "ham10000", "root": root, "size": 16})
    fresh = load_data({"name": "ham10000", "root": root, "size": 16, "cache": False})
    monkeypatch.setattr(module, "describe_images", lambda images: pytest.fail("described twice"))
    again = load_data({"name": "ham10000", "root": root, "size": 16, "storage": "stream"})
    assert first.fingerprint == again.fingerprint == fresh.fingerprint


def test_missing_images_are_named(root: Path) -> None:
    (root / "HAM10000_images_part_2" / "ISIC_0000003.jpg").unlink()
    with pytest.raises(PrunescopeError, match=r"1 of 63 images are missing in .*ISIC_0000003"):
        load_data(f"ham10000:{root}")


def test_a_wrong_table_is_named(root: Path) -> None:
    path = root / "HAM10000_metadata.csv"
    text = path.read_text()
    path.write_text(text.replace(",mel,", ",melanoma,"))
    with pytest.raises(PrunescopeError, match="unknown diagnosis 'melanoma'"):
        load_data(f"ham10000:{root}")
    path.write_text(text.replace("lesion_id", "lesion"))
    with pytest.raises(PrunescopeError, match="'lesion_id'"):
        load_data(f"ham10000:{root}")
    path.unlink()
    with pytest.raises(PrunescopeError, match=r"no HAM10000_metadata\.csv"):
        load_data(f"ham10000:{root}")


def test_a_table_that_is_no_text_is_named(root: Path) -> None:
    (root / "HAM10000_metadata.csv").write_bytes(b"\x1f\x8b\x08 still zipped")
    with pytest.raises(PrunescopeError, match=r"HAM10000_metadata\.csv is damaged: no UTF-8"):
        load_data({"name": "ham10000", "root": str(root)})


def test_unknown_targets_are_refused(root: Path) -> None:
    with pytest.raises(PrunescopeError, match="target"):
        load_data({"name": "ham10000", "root": root, "target": "malign"})
