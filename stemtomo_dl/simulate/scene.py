"""The scene file: what a synthetic experiment shows and how it is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stemtomo_dl import resources
from stemtomo_dl.config import (
    Beam,
    Count,
    Detector,
    Experiment,
    Finite,
    Model,
    Positive,
    Sample,
    Scans,
    ScanStep,
    Stage,
    load,
)
from stemtomo_dl.errors import InputError

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Vector = tuple[Finite, Finite, Finite]
Pair = tuple[Finite, Finite]


class Microscope(Model):
    """The instrument as it truly is; shapes are (rows, columns)."""

    voltage_kv: Annotated[float, Field(ge=1, le=3000)]
    convergence_mrad: Positive
    electrons_per_pattern: Positive
    scan: tuple[Count, Count]
    step_nm: Positive
    detector: tuple[Count, Count]
    pixel_inv_angstrom: Positive
    tilt_axis_deg: Finite
    rotation_deg: Finite = 0.0
    beam_offset_px: Pair = (0.0, 0.0)  # beam centre off the detector's middle (column, row), before any drift
    probe_samples: Count = 1  # probe positions averaged per step and direction: thicknesses blur over a step


class Stated(Model):
    """What the experiment file says where it differs from the truth."""

    pixel_inv_angstrom: Positive | None = None
    tilt_axis_deg: Finite | None = None
    rotation_deg: Finite | None = None


class Tilts(Model):
    """Stated angles, either direction, and how far the goniometer misses them."""

    start: Finite | None = None
    stop: Finite | None = None
    step: Positive | None = None
    angles: list[Finite] = []
    sigma_deg: NonNegative = 0.0

    @model_validator(mode="after")
    def _one_way(self) -> Tilts:
        given = [v is not None for v in (self.start, self.stop, self.step)]
        if any(given) == bool(self.angles) or (any(given) and not all(given)):
            raise ValueError("give start, stop and step, or angles")
        return self

    def stated_deg(self) -> list[float]:
        """The angles in the order of the scans, both ends included where the step allows it."""
        if self.start is None or self.stop is None or self.step is None:
            return list(self.angles)
        count = int(abs(self.stop - self.start) / self.step + 1e-6) + 1
        sign = 1.0 if self.stop >= self.start else -1.0
        return [round(self.start + sign * self.step * i, 6) for i in range(count)]


class Jump(Model):
    """A sudden shift of the field of view that stays from this tilt on."""

    tilt: Annotated[int, Field(ge=0)]
    shift_px: Pair


class Drift(Model):
    """How the field of view and the beam wander from tilt to tilt."""

    walk_px: NonNegative = 0.0
    jumps: list[Jump] = []
    height_nm: Finite = 0.0  # how far the film lies off the tilt axis, along z at α = 0
    beam_walk_px: NonNegative = 0.0


class Film(Model):
    """The amorphous support; it scatters once, diffusely."""

    thickness_nm: NonNegative = 0.0
    element: str = "C"
    mean_free_path_nm: Positive = 120.0


class Face(Model):
    """A crystal form: a face and all its equivalents, at ``distance`` · size/2 from the centre."""

    hkl: tuple[int, int, int]
    distance: Positive = 1.0


class Orientation(Model):
    """How crystals lie: at random, a lattice direction [uvw] in the film or along its normal, or as told."""

    kind: Literal["random", "lying", "upright", "fixed"] = "random"
    direction: tuple[int, int, int] = (0, 0, 1)
    spread_deg: NonNegative = 0.0
    rotation_vector_deg: Vector = (0.0, 0.0, 0.0)


class Population(Model):
    """Particles of one kind.

    ``size_nm`` is twice the distance of a face whose ``distance`` is 1, or a diameter. ``min_gap_nm`` is the
    least clearance between outlines at α = 0; without it outlines may overlap.
    """

    cif: str
    count: Count
    size_nm: Positive
    size_sigma: NonNegative = 0.0  # of the logarithm
    faces: list[Face] = []
    shape: Literal["faces", "sphere", "random"] = "faces"
    irregularity: NonNegative = 0.0  # of the logarithm of every face's distance
    orientation: Orientation = Orientation()
    min_gap_nm: NonNegative | None = None
    positions_nm: list[Vector] = []
    z_sigma_nm: NonNegative = 0.0
    mean_free_path_nm: Positive = 150.0

    @model_validator(mode="after")
    def _consistent(self) -> Population:
        if (self.shape == "faces") != bool(self.faces):
            raise ValueError("give faces, or shape = 'sphere' or 'random', not both")
        if self.positions_nm and len(self.positions_nm) != self.count:
            raise ValueError(f"{len(self.positions_nm)} positions_nm for count = {self.count}")
        return self


class Scene(Model):
    """A synthetic experiment."""

    title: str
    seed: Annotated[int, Field(ge=0)] = 0
    intensities: Literal["kinematic", "two-beam"] = "two-beam"
    d_min: Positive | None = None  # Å; without it, to the far corner of the detector
    format: Literal[".h5", ".npy", ".mib", ".hspy"] = ".h5"
    field_fraction: Annotated[float, Field(gt=0)] = 0.8  # particles' centres lie in this part of the field
    instrument: Microscope
    stated: Stated = Stated()
    tilts: Tilts
    drift: Drift = Drift()
    film: Film = Film()
    particles: Annotated[list[Population], Field(min_length=1)]

    def experiment(self, elements: list[str]) -> Experiment:
        """The experiment file that goes with the scans: calibrations as stated, phases as known candidates."""
        true, stated = self.instrument, self.stated
        pixel = stated.pixel_inv_angstrom or true.pixel_inv_angstrom
        axis = true.tilt_axis_deg if stated.tilt_axis_deg is None else stated.tilt_axis_deg
        rotation = true.rotation_deg if stated.rotation_deg is None else stated.rotation_deg
        phases = sorted({Path(p.cif).name for p in self.particles})
        bare = self.format in (".npy", ".mib")
        files = f"scans/scan_*{self.format}"
        return Experiment(
            title=self.title,
            scans=Scans(files=files, tilts="tilts.csv", shape=true.scan if bare else None),
            beam=Beam(
                voltage_kv=true.voltage_kv,
                convergence_mrad=true.convergence_mrad,
                electrons_per_pattern=true.electrons_per_pattern,
            ),
            scan=ScanStep(step_nm=true.step_nm),
            detector=Detector(pixel_inv_angstrom=pixel, rotation_deg=rotation),
            stage=Stage(tilt_axis_deg=axis),
            sample=Sample(phases=phases, elements=elements),
        )


def load_scene(path: Path) -> tuple[Scene, dict[str, str]]:
    """Read a scene and the text of the CIFs that it names.

    A CIF is looked for beside the scene, then among the structures that come with the package.

    Parameters
    ----------
    path : Path
        A scene file, or the bare name of one that comes with the package ("demo").

    Returns
    -------
    scene : Scene
    cifs : dict
        Text of every CIF by the name that the scene gives it.

    Raises
    ------
    InputError
        If the scene or a CIF is missing or wrong; the message names the file and the key.
    """
    if not path.suffix and not path.exists():
        shipped = resources.synthetic() / "scenes" / f"{path}.toml"
        path = shipped if shipped.is_file() else path
    scene = load(Scene, path)
    return scene, {p.cif: _cif_text(p.cif, path) for p in scene.particles}


def _cif_text(name: str, scene: Path) -> str:
    beside = scene.parent / name
    found = beside if beside.is_file() else resources.synthetic() / "structures" / name
    try:
        return found.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{scene}: key 'particles.cif': {name} cannot be read; put it beside the scene") from e
