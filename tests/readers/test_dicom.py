"""DICOM: fields of view and whole slides in, patients' data out, all else refused by its name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from millie.config import Config
from millie.errors import (
    DataError,
    ImageError,
    ImageTooLargeError,
    ManifestError,
    MissingPackageError,
)
from millie.readers.cohort import read_folders
from millie.readers.dicom import head_of, is_dicom, once_a_slide, read_dicom
from millie.readers.fields import read_fields
from millie.readers.images import find_images
from millie.readers.manifest import read_manifest
from millie.synthetic import draw_field
from millie.synthetic.film import FilmConfig
from millie.types import Field, ImageSource, PixelSize

pydicom = pytest.importorskip("pydicom", reason="pip install 'millie[slides]'")
pytest.importorskip("openslide", reason="pip install 'millie[slides]'")

READING = Config().reading
PRIVATE = {
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19700101",
    "InstitutionName": "Hidden Hospital",
}
TILE_PX = 256


@pytest.fixture(scope="module")
def film() -> NDArray[np.uint8]:
    config = FilmConfig(width_px=700, height_px=600, um_px=0.25)
    return draw_field(config, {}, np.random.default_rng(0)).image


def write_microscopic(path: Path, image: NDArray[np.uint8], **changes: Any) -> Path:
    """A VL Microscopic image of 0.1 um/px, uncompressed; ``changes`` are elements by keyword."""
    dataset = _dataset(pydicom.uid.VLMicroscopicImageStorage, *image.shape[:2])
    dataset.PixelSpacing = [1e-4, 1e-4]
    dataset.PixelData = image.tobytes()
    return _saved(dataset, path, changes)


def write_whole_slide(folder: Path, image: NDArray[np.uint8], **changes: Any) -> list[Path]:
    """Two levels of a whole slide of 0.25 um/px, and its label, each a file of one series."""
    folder.mkdir(parents=True, exist_ok=True)
    series = pydicom.uid.generate_uid()
    paths = []
    for name, step in (("fine", 1), ("coarse", 4), ("label", 8)):
        level = np.ascontiguousarray(image[::step, ::step])
        dataset = _dataset(pydicom.uid.VLWholeSlideMicroscopyImageStorage, TILE_PX, TILE_PX)
        kind = "LABEL" if name == "label" else "VOLUME"
        dataset.ImageType = [
            "ORIGINAL" if step == 1 else "DERIVED", "PRIMARY", kind,
            "RESAMPLED" if name == "coarse" else "NONE",
        ]  # fmt: skip
        dataset.SeriesInstanceUID = series
        _add_tiling(dataset, level, 0.25 * step)
        paths.append(_saved(dataset, folder / f"{name}.dcm", changes))
    return paths


def _dataset(kind: str, rows: int, columns: int) -> Any:
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, pydicom.uid.generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.4", pydicom.uid.generate_uid()
    dataset.Modality, dataset.PatientID = "SM", "patient-1"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration, dataset.PixelRepresentation = 0, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    for keyword, value in PRIVATE.items():
        setattr(dataset, keyword, value)
    return dataset


def _add_tiling(dataset: Any, level: NDArray[np.uint8], um_px: float) -> None:
    height, width = level.shape[:2]
    down, across = -(-height // TILE_PX), -(-width // TILE_PX)
    padded = np.full((down * TILE_PX, across * TILE_PX, 3), 255, np.uint8)
    padded[:height, :width] = level
    tiles = padded.reshape(down, TILE_PX, across, TILE_PX, 3).swapaxes(1, 2)
    dataset.TotalPixelMatrixColumns, dataset.TotalPixelMatrixRows = width, height
    dataset.NumberOfFrames, dataset.DimensionOrganizationType = down * across, "TILED_FULL"
    dataset.TotalPixelMatrixFocalPlanes = 1
    dataset.ImagedVolumeWidth = width * um_px / 1e3
    dataset.ImagedVolumeHeight = height * um_px / 1e3
    measures, shared, path = (pydicom.Dataset() for _ in range(3))
    measures.PixelSpacing, measures.SliceThickness = [um_px / 1e3, um_px / 1e3], 0.001
    shared.PixelMeasuresSequence = [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    path.OpticalPathIdentifier = "1"
    dataset.OpticalPathSequence = [path]
    dataset.PixelData = np.ascontiguousarray(tiles).tobytes()


def _saved(dataset: Any, path: Path, changes: dict[str, Any]) -> Path:
    syntax = changes.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = pydicom.dataset.FileDataset(path, dataset, file_meta=meta, preamble=b"\0" * 128)
    if syntax == pydicom.uid.ExplicitVRLittleEndian:
        file.save_as(path, enforce_file_format=True)
    else:
        encoding = {"implicit_vr": False, "little_endian": True}
        pydicom.dcmwrite(path, file, force_encoding=True, **encoding)
    return path


def read(path: Path) -> list[Field]:
    return list(read_fields(ImageSource(path, path.name), READING))


def test_a_microscopic_image_is_a_field_with_its_scale(
    film: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = write_microscopic(tmp_path / "a.dcm", film)
    (one,) = read(path)
    np.testing.assert_array_equal(one.image, film)
    assert (one.pixel_size, one.notes, one.place) == (PixelSize(0.1), (), None)


def test_a_spacing_that_is_no_microscopes_is_not_believed(
    film: NDArray[np.uint8], tmp_path: Path
) -> None:
    (one,) = read(write_microscopic(tmp_path / "a.dcm", film, PixelSpacing=[0.26, 0.26]))
    assert one.pixel_size is None
    assert "260 x 260 um a pixel" in one.notes[0]


def test_levels_and_label_of_a_slide_are_one_image(film: NDArray[np.uint8], tmp_path: Path) -> None:
    fine, _, label = write_whole_slide(tmp_path / "p1", film)
    (patient,) = read_folders([tmp_path / "p1"]).patients
    assert [image.path for image in patient.images] == [fine]
    (one,) = read(fine)
    np.testing.assert_array_equal(one.image, film)
    assert one.pixel_size == PixelSize(0.25)
    assert one.place is not None
    with pytest.raises(ImageError, match=r"label\.dcm: shows the label of a slide"):
        read(label)


def test_a_slide_of_which_levels_are_missing_is_read(
    film: NDArray[np.uint8], tmp_path: Path
) -> None:
    fine, coarse, label = write_whole_slide(tmp_path, film)
    coarse.unlink()
    label.unlink()
    assert read(fine)[0].image.shape == film.shape


def test_nothing_of_the_patient_comes_in(
    film: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    dcmread = pydicom.dcmread
    monkeypatch.setattr(
        pydicom, "dcmread", lambda *a, **k: (d := dcmread(*a, **k), seen.append(d))[0]
    )
    write_microscopic(tmp_path / "p1.dcm", film)
    write_whole_slide(tmp_path, film)
    (patient,) = read_folders([tmp_path]).patients
    for image in patient.images:
        text = repr(list(read_fields(image, READING)))
        assert not any(value in text for value in PRIVATE.values())
    assert not seen, "files are parsed in the process with limits"
    for image in patient.images:
        text = repr(head_of(image.path, "x"))
        assert not any(value in text for value in [*PRIVATE.values(), "patient-1"])
    assert seen
    assert not any(keyword in dataset for dataset in seen for keyword in PRIVATE)


def test_files_without_an_ending_and_a_dicomdir_stand_for_their_folder(
    film: NDArray[np.uint8], tmp_path: Path
) -> None:
    study = tmp_path / "patient-7"
    (study / "DICOM").mkdir(parents=True)
    for number in range(2):
        write_microscopic(study / "DICOM" / f"IM00000{number}", film[number:])
    (study / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (study / "readme").write_text("not an image")
    by_folder, by_table = read_folders([study]), read_folders([study / "DICOMDIR"])
    assert [p.id for p in by_table.patients] == ["patient-7"]
    assert by_folder.patients == by_table.patients
    assert [i.path.name for i in by_folder.patients[0].images] == ["IM000000", "IM000001"]
    (tmp_path / "m.csv").write_text("patient,label,path\np,,patient-7/DICOMDIR\n")
    assert len(read_manifest(tmp_path / "m.csv").patients[0].images) == 2


def test_two_patients_in_one_folder_are_told_apart(film: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    write_microscopic(tmp_path / "p" / "a.dcm", film)
    write_microscopic(tmp_path / "p" / "b.dcm", film, PatientID="patient-2")
    with pytest.raises(ManifestError, match="DICOM files of 2 patients in one folder"):
        read_folders([tmp_path / "p"])
    (tmp_path / "m.csv").write_text("patient,label,path\np,,p\np,,p/a.dcm\nq,,p/b.dcm\n")
    cohort = read_manifest(tmp_path / "m.csv")
    assert [p.id for p in cohort.patients] == ["p", "q"]
    assert "DICOM files of 2 patients" in cohort.problems[0].message
    assert "patient-2" not in cohort.problems[0].message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NumberOfFrames": 2}, "several frames in one file"),
        ({"BitsAllocated": 16}, "16-bit pixels of kind RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "8-bit pixels of kind PALETTE COLOR"),
        ({"PixelData": b"\0\0"}, "cannot be decoded .* damaged or truncated"),
        ({"syntax": "1.2.3.4.5"}, r"encrypted, or compressed in a way .*1\.2\.3\.4\.5"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1"}, "Digital X-Ray .* not microscopy"),
    ],
)
def test_what_cannot_be_read_is_told(
    changes: dict[str, Any], message: str, film: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = write_microscopic(tmp_path / "a.dcm", film, **changes)
    with pytest.raises(ImageError, match=rf"a\.dcm: .*{message}"):
        read(path)


def test_a_compression_without_a_decoder_is_told(
    film: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded = pydicom.encaps.encapsulate([b"coded"])
    path = write_microscopic(
        tmp_path / "a.dcm", film, syntax="1.2.840.10008.1.2.4.80", PixelData=coded
    )
    decoder = SimpleNamespace(is_available=False)  # of pydicom without pyjpegls
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda _: decoder)
    with pytest.raises(ImageError, match=r"a\.dcm: compressed as JPEG-LS Lossless .*gdcmconv"):
        read_dicom(ImageSource(path, path.name), path.read_bytes(), READING)


def test_a_stated_size_beyond_the_limit_is_not_decoded(
    film: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = write_microscopic(tmp_path / "a.dcm", film, Rows=60_000, Columns=60_000)
    with pytest.raises(ImageTooLargeError, match="60000 x 60000 px; the limit is 50 MP"):
        read(path)


def test_a_deflated_file_is_never_unpacked() -> None:
    path = pydicom.data.get_testdata_file("image_dfl.dcm", download=False)
    with pytest.raises(ImageError, match=r"image_dfl\.dcm: a deflated DICOM file is not read"):
        read(Path(path))


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "test-SR.dcm", "waveform_ecg.dcm", "SC_rgb_rle.dcm"]
)
def test_files_of_others_that_are_no_microscopy_are_refused(name: str) -> None:
    path = Path(pydicom.data.get_testdata_file(name, download=False))
    assert is_dicom(path)
    assert once_a_slide([path]) == [path]
    with pytest.raises(
        ImageError, match=rf"{name}: a DICOM file of .* not microscopy; leave it out"
    ):
        read(path)


def test_without_the_extra_the_message_names_it(
    film: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_microscopic(tmp_path / "a.dcm", film)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert find_images(tmp_path) == [path]
    assert len(read_folders([tmp_path]).patients[0].images) == 1
    with pytest.raises(MissingPackageError, match=r"pip install 'millie\[slides\]'"):
        read(path)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_files_give_a_message_or_an_image_and_no_warning(
    seed: int, film: NDArray[np.uint8], tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    path = write_microscopic(tmp_path / "a.dcm", film)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    places = rng.integers(132, 1500, 6)  # behind the mark by which a file is known, in its header
    data[places] = rng.integers(0, 256, 6)
    path.write_bytes(data.tobytes())
    assert once_a_slide([path]) == [path]
    try:
        shapes = [one.image.shape[2] for one in read(path)]
    except DataError:
        shapes = [3]
    assert shapes == [3]
