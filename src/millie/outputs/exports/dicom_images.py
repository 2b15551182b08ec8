"""The images of a run as DICOM objects: what reports and annotations refer to.

Owns the wrapping: an image whose scale is known becomes a whole slide image of one tile, any other
a VL microscopic image, which needs no scale. Pixels are as they were read for the call, without
compression. No patient data is taken over: the patient is named by the pseudonym alone.

Source: DICOM PS3.3, A.32.2 (VL Microscopic Image), A.32.8 (VL Whole Slide Microscopy Image).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageCms
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    VLMicroscopicImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)
from pydicom.valuerep import DSfloat

from millie import __version__
from millie.files import safe_id, spelt_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from millie.outputs.exports.samples import Sample
    from millie.outputs.patient.records import PredictionRun
    from millie.types import SourceRecord

MANUFACTURER = "millie"
_THICKNESS_MM = 0.001  # of the layer in focus, which DICOM demands: about that of a film
_LONGEST_ID = 64  # of DICOM's LO
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True, slots=True)
class Study:
    """What all objects of one patient's export have in common.

    Attributes:
        run: the calls.
        patient: pseudonym.
    """

    run: PredictionRun
    patient: str

    @property
    def patient_id(self) -> str:
        """The pseudonym, or a safe form of it where DICOM could not hold it."""
        text = spelt_out(self.patient)
        good = text.isprintable() and "\\" not in text and text == text.strip()
        return text if good and len(text) <= _LONGEST_ID else safe_id(self.patient)

    @property
    def created(self) -> datetime:
        """When the patient was called."""
        return datetime.fromisoformat(self.run.created)

    def uid(self, *names: str | int) -> UID:
        """The same whenever the same run is exported (PS3.5, B.2: a UUID as 2.25)."""
        key = "\n".join([self.run.created, self.run.model.sha256, self.patient, *map(str, names)])
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, spelt_out(key)).int}")


def wrapped(
    study: Study, sample: Sample, index: int, image: NDArray[np.uint8], data: bytes
) -> Dataset:
    """An image as a DICOM object.

    Args:
        study: of the patient.
        sample: whose image.
        index: of the image in the sample.
        image: uint8 RGB (H, W, 3), as read.
        data: the bytes of its file: what they were compressed with is told.
    """
    record = sample.sources[index]
    made = _common(study, record, index, len(sample.sources))
    made.Rows, made.Columns = image.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = 3, "RGB"
    made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.LossyImageCompression = "00"
    if data.startswith(_JPEG):
        made.LossyImageCompression = "01"
        made.LossyImageCompressionMethod = "ISO_10918_1"
        made.LossyImageCompressionRatio = f"{image.size / len(data):.2f}"
    raw = np.ascontiguousarray(image).tobytes()
    made.PixelData = raw + b"\0" * (len(raw) % 2)
    if record.um_px is None:
        _as_photograph(made)
    else:
        _as_slide(made, study, index, record.um_px)
    return made


def is_slide(source: SourceRecord) -> bool:
    """Whether annotations can refer to the image: they need a place on a slide, in mm."""
    return source.um_px is not None


def _common(study: Study, record: SourceRecord, index: int, total: int) -> Dataset:
    """Patient, study, series, equipment, specimen."""
    slide = is_slide(record)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = VLWholeSlideMicroscopyImageStorage if slide else VLMicroscopicImageStorage
    made.SOPInstanceUID = study.uid("image", index)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientID, made.PatientName = study.patient_id, ""
    made.PatientBirthDate = made.PatientSex = ""
    made.StudyInstanceUID, made.StudyID = study.uid("study"), ""
    made.StudyDate = made.StudyTime = made.AccessionNumber = made.ReferringPhysicianName = ""
    made.SeriesInstanceUID = study.uid("slides", index) if slide else study.uid("photographs")
    made.SeriesNumber, made.InstanceNumber = index + 1 if slide else total + 1, index + 1
    made.Modality = "SM" if slide else "GM"
    made.Manufacturer = made.ManufacturerModelName = MANUFACTURER
    made.DeviceSerialNumber, made.SoftwareVersions = "unknown", __version__
    made.ContentDate = f"{study.created:%Y%m%d}"
    made.ContentTime = f"{study.created:%H%M%S}"
    made.AcquisitionDateTime = f"{study.created:%Y%m%d%H%M%S}"  # the true one is not known
    made.AcquisitionContextSequence = []
    made.ImageComments = _short(f"Wrapped for reference: {record.name}", 10_240)
    made.ContainerIdentifier = safe_id(record.name)[:_LONGEST_ID]
    made.IssuerOfTheContainerIdentifierSequence = []
    made.ContainerTypeCodeSequence = [coded("433466003", "SCT", "Microscope slide")]
    specimen = Dataset()
    specimen.SpecimenIdentifier = made.ContainerIdentifier
    specimen.SpecimenUID = study.uid("specimen")
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    made.SpecimenDescriptionSequence = [specimen]
    return made


def _as_photograph(made: Dataset) -> None:
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.PatientOrientation = ""
    made.DerivationDescription = "Decoded from an image file and wrapped"


def _as_slide(made: Dataset, study: Study, index: int, um_px: float) -> None:
    """One tile, one level, one focal plane; the image's left top corner is the slide's origin."""
    made.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    made.FrameOfReferenceUID = study.uid("frame of reference", index)
    made.PositionReferenceIndicator = "SLIDE_CORNER"
    made.NumberOfFrames = 1
    made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows = made.Columns, made.Rows
    made.TotalPixelMatrixFocalPlanes = made.NumberOfOpticalPaths = 1
    made.ImagedVolumeWidth = made.Columns * um_px / 1000
    made.ImagedVolumeHeight = made.Rows * um_px / 1000
    made.ImagedVolumeDepth = _THICKNESS_MM * 1000
    made.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    made.VolumetricProperties = "VOLUME"
    made.BurnedInAnnotation = "NO"  # demanded of slides; of photographs it is not known
    made.SpecimenLabelInImage = made.ExtendedDepthOfField = "NO"
    made.FocusMethod = "MANUAL"
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    made.TotalPixelMatrixOriginSequence = [origin]
    organization = Dataset()
    organization.DimensionOrganizationUID = study.uid("dimensions", index)
    made.DimensionOrganizationSequence = [organization]
    made.DimensionOrganizationType = "TILED_FULL"
    made.OpticalPathSequence = [_optical_path()]
    measures, kind, path, shared = Dataset(), Dataset(), Dataset(), Dataset()
    spacing = DSfloat(um_px / 1000, auto_format=True)  # a DS has at most 16 characters
    measures.PixelSpacing = [spacing, spacing]
    measures.SliceThickness = _THICKNESS_MM
    kind.FrameType = made.ImageType
    path.OpticalPathIdentifier = "1"
    shared.PixelMeasuresSequence = [measures]
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [kind]
    shared.OpticalPathIdentificationSequence = [path]
    made.SharedFunctionalGroupsSequence = [shared]


def _optical_path() -> Dataset:
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.IlluminationTypeCodeSequence = [coded("111744", "DCM", "Brightfield illumination")]
    path.IlluminationColorCodeSequence = [coded("414298005", "SCT", "Full Spectrum")]
    path.ICCProfile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path.ColorSpace = "SRGB"
    return path


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _short(text: str, length: int) -> str:
    return spelt_out(text)[:length]
