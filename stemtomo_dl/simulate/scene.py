"""The scene file: what a synthetic experiment shows and how it is recorded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stemtomo_dl import resources
from stemtomo_dl.config import (
    Beam,
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
from stemtomo_dl.geometry import disk_radius_px, wavelength
from stemtomo_dl.simulate.detector import Camera
from stemtomo_dl.simulate.distortion import Descan, Ellipse, Raster
from stemtomo_dl.simulate.film import Film as Film  # the models of a scene are all to be had from here
from stemtomo_dl.simulate.motion import Drift as Drift
from stemtomo_dl.simulate.motion import Jump as Jump
from stemtomo_dl.simulate.motion import Tilts as Tilts
from stemtomo_dl.simulate.population import MOST_BODIES, Population
from stemtomo_dl.simulate.population import Face as Face
from stemtomo_dl.simulate.population import Orientation as Orientation
from stemtomo_dl.simulate.population import Shell as Shell
from stemtomo_dl.simulate.population import Twin as Twin

Pair = tuple[Finite, Finite]
Azimuth = Annotated[float, Field(ge=-3600, le=3600)]
Pixels = Annotated[int, Field(ge=1, le=8192)]  # along one side of a scan or a detector

MOST_THICKNESSES = 2**28  # particles × probes: what one tilt holds in memory is 8 bytes of each
_LEAST_D = 0.2  # Å; nothing diffracts further
_MOST_ELECTRONS = 1e9  # per pattern: counts are 32 bits wide


class Microscope(Model):
    """The instrument as it truly is; shapes are (rows, columns)."""

    voltage_kv: Annotated[float, Field(ge=1, le=3000)]
    convergence_mrad: Annotated[float, Field(gt=0, le=100)]
    electrons_per_pattern: Positive | None = None  # or current_pa and dwell_ms
    current_pa: Positive | None = None
    dwell_ms: Positive | None = None
    scan: tuple[Pixels, Pixels]
    step_nm: Annotated[float, Field(gt=0, le=1e4)]
    detector: tuple[Pixels, Pixels]
    pixel_inv_angstrom: Positive
    tilt_axis_deg: Azimuth
    rotation_deg: Azimuth = 0.0
    beam_offset_px: Pair = (0.0, 0.0)  # beam centre off the detector's middle (column, row), before any drift
    probe_samples: Annotated[int, Field(ge=1, le=16)] = (
        1  # probe positions averaged per step and direction: thicknesses blur over a step
    )
    raster: Raster = Raster()
    descan: Descan = Descan()
    ellipse: Ellipse = Ellipse()
    camera: Camera = Camera()

    @model_validator(mode="after")
    def _one_dose(self) -> Microscope:
        if (self.current_pa is None) != (self.dwell_ms is None):
            raise ValueError("current_pa and dwell_ms go together")
        if (self.current_pa is None) == (self.electrons_per_pattern is None):
            raise ValueError("give electrons_per_pattern, or current_pa and dwell_ms")
        if self.electrons > _MOST_ELECTRONS:
            raise ValueError(
                f"{self.electrons:.2g} electrons per pattern are more than {_MOST_ELECTRONS:.0e}; lower it"
            )
        return self

    @model_validator(mode="after")
    def _beam_on_the_detector(self) -> Microscope:
        rows, columns = self.detector
        if abs(self.beam_offset_px[0]) > columns / 2 or abs(self.beam_offset_px[1]) > rows / 2:
            raise ValueError("beam_offset_px puts the beam off the detector; give less")
        disk = disk_radius_px(self.convergence_mrad, wavelength(self.voltage_kv), self.pixel_inv_angstrom)
        if disk > max(rows, columns) / 2:
            raise ValueError(
                f"disks of {disk:.4g} px radius are wider than the detector; lower convergence_mrad or raise "
                "pixel_inv_angstrom"
            )
        return self

    @property
    def beam(self) -> Beam:
        """The beam as an experiment file states it."""
        given = {k: getattr(self, k) for k in ("electrons_per_pattern", "current_pa", "dwell_ms")}
        return Beam(voltage_kv=self.voltage_kv, convergence_mrad=self.convergence_mrad, **given)

    @property
    def electrons(self) -> float:
        """Mean number of electrons in a pattern."""
        return self.beam.electrons or 0.0


class Stated(Model):
    """What the experiment file says where it differs from the truth."""

    pixel_inv_angstrom: Positive | None = None
    tilt_axis_deg: Azimuth | None = None
    rotation_deg: Azimuth | None = None


class Scene(Model):
    """A synthetic experiment."""

    title: str
    seed: Annotated[int, Field(ge=0)] = 0
    intensities: Literal["kinematic", "two-beam"] = "two-beam"
    overlap: Literal["sum", "sequential"] = "sum"  # sequential: the next particle may scatter an electron again
    d_min: Annotated[float, Field(ge=_LEAST_D, le=1000)] | None = None  # Å; else to the detector's far corner
    format: Literal[".h5", ".npy", ".mib", ".hspy"] = ".h5"
    field_fraction: Annotated[float, Field(gt=0, le=4)] = 0.8  # particles' centres lie in this part of the field
    instrument: Microscope
    stated: Stated = Stated()
    tilts: Tilts
    drift: Drift = Drift()
    film: Film = Film()
    particles: Annotated[list[Population], Field(min_length=1)]

    @model_validator(mode="after")
    def _possible(self) -> Scene:
        m = self.instrument
        reach = math.hypot(*m.detector) / 2 * m.pixel_inv_angstrom
        if self.d_min is None and reach > 1 / _LEAST_D:
            raise ValueError(
                f"the detector reaches to {reach:.3g} 1/Å, where nothing diffracts any more; "
                "lower instrument.pixel_inv_angstrom, make instrument.detector smaller or give d_min"
            )
        area_um2 = m.scan[0] * m.scan[1] * (m.step_nm * self.field_fraction) ** 2 * 1e-6
        bodies = sum(p.count or (p.per_um2 or 0) * area_um2 for p in self.particles)
        if bodies > MOST_BODIES or bodies * m.scan[0] * m.scan[1] > MOST_THICKNESSES:
            raise ValueError(
                f"{bodies:.4g} particles in {m.scan[0]} × {m.scan[1]} probes are more than can be played; "
                "lower particles.count or per_um2, or make the scan smaller"
            )
        return self

    @property
    def cifs(self) -> tuple[str, ...]:
        """The CIFs of all phases, in the order in which the scene names them, each once."""
        return tuple(dict.fromkeys(name for p in self.particles for name in p.cifs))

    def resolved(self) -> dict[str, Any]:
        """All keys that differ from their defaults, as JSON can hold them; CIFs lose the folder in their name."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        for population in content["particles"]:
            for table in (population, population.get("shell", {})):
                if table.get("cif"):
                    table["cif"] = Path(table["cif"]).name
        return content

    def experiment(self, elements: list[str]) -> Experiment:
        """The experiment file that goes with the scans: calibrations as stated, phases as known candidates."""
        true, stated = self.instrument, self.stated
        pixel = stated.pixel_inv_angstrom or true.pixel_inv_angstrom
        axis = true.tilt_axis_deg if stated.tilt_axis_deg is None else stated.tilt_axis_deg
        rotation = true.rotation_deg if stated.rotation_deg is None else stated.rotation_deg
        phases = sorted({Path(name).name for name in self.cifs})
        mask = "mask.npy" if true.camera.lists_bad_pixels else None
        bare = self.format in (".npy", ".mib")
        files = f"scans/scan_*{self.format}"
        return Experiment(
            title=self.title,
            scans=Scans(files=files, tilts="tilts.csv", shape=true.scan if bare else None),
            beam=true.beam,
            scan=ScanStep(step_nm=true.step_nm),
            detector=Detector(pixel_inv_angstrom=pixel, rotation_deg=rotation, mask=mask),
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
    if not path.suffix and not path.is_file():
        scenes = resources.synthetic() / "scenes"
        shipped = scenes / f"{path}.toml"
        if not shipped.is_file():
            known = ", ".join(sorted(p.stem for p in scenes.glob("*.toml")))
            raise InputError(f"{path}: no such scene; give a .toml file, 'random', or one of {known}")
        path = shipped
    scene = load(Scene, path)
    return scene, {name: _cif_text(name, path) for name in scene.cifs}


def _cif_text(name: str, scene: Path) -> str:
    beside = scene.parent / name
    found = beside if beside.is_file() else resources.synthetic() / "structures" / name
    where = f"{scene}: key 'particles.cif': {name}"
    try:
        return found.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise InputError(f"{where} is not UTF-8 text; save it as such") from e
    except OSError as e:
        raise InputError(f"{where} cannot be read ({e.strerror}); put it beside the scene") from e
