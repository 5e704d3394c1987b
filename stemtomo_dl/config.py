"""The experiment file and every stage's settings: strict models, TOML in, resolved JSON out.

The experiment file needs no settings; the tables [images], [segment], [track] and [extract] may override the
defaults below, and what was used is written to run.json.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import gemmi
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Instrument

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
GUESS = "guess"  # in place of elements
ELEMENTARY_CHARGE = 1.602176634e-19


class Model(BaseModel):
    """Base of all settings: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Scans(Model):
    """Where the scans are and which tilt each was taken at."""

    files: str | list[str]
    tilts: str | list[Finite]
    dataset: str | None = None
    shape: tuple[Count, Count] | None = None


class Beam(Model):
    """The probe; doses are left out where neither counts nor current are given."""

    voltage_kv: Annotated[float, Field(ge=1, le=3000)]
    convergence_mrad: Positive
    electrons_per_pattern: Positive | None = None
    current_pa: Positive | None = None
    dwell_ms: Positive | None = None

    @model_validator(mode="after")
    def _one_dose(self) -> Beam:
        if (self.current_pa is None) != (self.dwell_ms is None):
            raise ValueError("current_pa and dwell_ms go together")
        if self.current_pa is not None and self.electrons_per_pattern is not None:
            raise ValueError("give electrons_per_pattern, or current_pa and dwell_ms, not both")
        return self

    @property
    def electrons(self) -> float | None:
        """Electrons in one pattern, None where the file does not say."""
        if self.current_pa is None or self.dwell_ms is None:
            return self.electrons_per_pattern
        return self.current_pa * 1e-12 * self.dwell_ms * 1e-3 / ELEMENTARY_CHARGE


class ScanStep(Model):
    """The probe raster."""

    step_nm: Positive


class Detector(Model):
    """The camera: scale, rotation against the scan, known bad pixels (.npy, True = bad)."""

    pixel_inv_angstrom: Positive
    rotation_deg: Finite = 0.0
    mask: str | None = None


class Stage(Model):
    """The goniometer."""

    tilt_axis_deg: Finite


class Sample(Model):
    """What the sample may hold."""

    phases: list[str] = []
    elements: list[str] = []  # chemical symbols, or GUESS alone

    @field_validator("elements")
    @classmethod
    def _known(cls, elements: list[str]) -> list[str]:
        for e in elements:
            found = gemmi.Element(e)
            scatters = found.atomic_number > 0 and found.c4322 is not None  # beyond Cf nobody has tabulated it
            if (found.name != e or not scatters) and elements != [GUESS]:
                raise ValueError(
                    f'\'{e}\' is no chemical symbol of H to Cf; write them as "Ti", "O", or "{GUESS}" alone'
                )
        return elements


class ImagesConfig(Model):
    """Virtual images. Radii are fractions of the largest whole ring on the detector."""

    bf_disk_radii: Positive = 1.2  # bright field reaches to this many disk radii
    haadf_from: Annotated[float, Field(gt=0, lt=1)] = 0.6
    block_mb: Positive = 48
    bad_pixel_sigma: Positive = 8.0
    bad_pixel_tilts: Count = 9


class SegmentConfig(Model):
    """The segmenter; what follows ``weights`` is the classical one's."""

    model: str = "unet"  # a name from `stemtomo weights list`, or "classical"
    weights: str | None = None  # a file of weights that `stemtomo train` made, whatever the model is
    min_diameter_px: Positive = 4.0
    min_contrast_sigma: Positive = 4.0
    edge_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.6  # of a particle's brightness, at its outline
    neck: Annotated[float, Field(gt=0, lt=1)] = 0.8  # of the narrower lobe's width; a thinner neck is cut
    valley: Annotated[float, Field(gt=0, lt=1)] = 0.15  # a dark line this much below its sides is cut along


class TrackConfig(Model):
    """The tracker."""

    min_tilts: Count = 5  # of a track; half the tilts where there are fewer than ten
    max_gap_tilts: Annotated[int, Field(ge=0)] = 20  # that a particle may miss where there is no geometry to use
    drift_reach_px: Positive = 64.0  # largest jump of the field between tilts
    axis_reach_deg: Positive = 10.0  # how far the stated tilt axis may be wrong
    split_crystals: bool = True  # divide outlines that show two crystals


class ExtractConfig(Model):
    """Extraction of one pattern per particle and tilt."""

    ring_px: tuple[Count, Count] = (2, 8)  # the support is measured this far outside the outline
    block_mb: Positive = 48
    memory_mb: Positive = 512  # for sums; more particles than fit are taken in several passes
    min_probes: Count = 3
    most_dose_e_per_A2: Positive | None = None  # frames after which a place has taken more are left out


class SolveConfig(Model):
    """Structures."""

    restraints: bool = False  # refine solved ones on, like bonds and the displacements of bonded atoms restrained


class Experiment(Model):
    """An experiment file as CONTRACT section 2 describes it."""

    title: str = ""
    scans: Scans
    beam: Beam
    scan: ScanStep
    detector: Detector
    stage: Stage
    sample: Sample = Sample()
    images: ImagesConfig = ImagesConfig()
    segment: SegmentConfig = SegmentConfig()
    track: TrackConfig = TrackConfig()
    extract: ExtractConfig = ExtractConfig()
    solve: SolveConfig = SolveConfig()

    @property
    def instrument(self) -> Instrument:
        """What of the experiment stays the same through the series."""
        return Instrument(
            voltage_kv=self.beam.voltage_kv,
            convergence_mrad=self.beam.convergence_mrad,
            pixel_inv_angstrom=self.detector.pixel_inv_angstrom,
            step_nm=self.scan.step_nm,
            tilt_axis_deg=self.stage.tilt_axis_deg,
            rotation_deg=self.detector.rotation_deg,
            electrons_per_pattern=self.beam.electrons,
        )


M = TypeVar("M", bound=Model)


def load(model: type[M], path: Path) -> M:
    """Read a TOML file into a model.

    Raises
    ------
    InputError
        If the file is missing, is not TOML, or a key is unknown, missing or has a wrong value; the message
        names the key and the file.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); give the path of a TOML file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: not valid TOML: {e}") from e
    return check(model, table, str(path))


def check(model: type[M], table: dict[str, Any], where: str) -> M:
    """Validate a table as a model, raising `InputError` with one line that names the key."""
    try:
        return model.model_validate(table)
    except ValidationError as e:
        raise InputError(f"{where}: {_one_line(e)}") from e


def _one_line(error: ValidationError) -> str:
    """The first complaint, in words that a person can act on.

    An unknown key comes before the one that it may have been meant for; of the branches of a union, the one that
    looked deepest into the value tells most.
    """
    first = max(error.errors(), key=lambda e: (e["type"] == "extra_forbidden", len(e["loc"])))
    where = [str(k) for k in first["loc"]]
    # a union adds its branches' names to the location
    key = ".".join(k for k in where if k != "str" and not k.startswith(("list[", "float", "constrained")))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 and "list[" not in str(where) else ""
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key '{key}'; remove it or correct its name{more}"
        case "missing":
            return f"missing key '{key}'; add it{more}"
        case "value_error":
            return (f"key '{key}': " if key else "") + f"{first['ctx']['error']}{more}"
        case _:
            return f"key '{key}': {first['msg']}, got {first['input']!r}{more}"
