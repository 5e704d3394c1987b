"""Settings of the random scenes that segmenters are trained on: the range of everything that varies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from stemtomo_dl import resources
from stemtomo_dl.config import Count, Finite, Model, load
from stemtomo_dl.simulate.micrograph_settings import MicrographSettings
from stemtomo_dl.simulate.ranges import Counts, Even, Log, Share


class LibrarySettings(Model):
    """Crystals, orientations and instruments whose detector responses are computed beforehand."""

    instruments: Count
    crystals: Count  # per instrument, each in a row of orientations
    structures: list[str]  # CIFs that come with the package
    pseudo_structures: Annotated[int, Field(ge=0)]  # random cells with random atoms
    structures_at_once: Count  # different ones per instrument
    zone_axis_share: Share  # of crystals near a zone axis
    zone_axis_deg: Even  # how far these are from it
    orientations: Count
    rocking_deg: Log  # from one orientation of a row to the next
    thickest_nm: Log
    thickness_steps: Count
    mosaic_share: Share  # of crystals
    mosaic_deg: Log  # rms tilt of mosaic blocks
    damaged_share: Share  # of crystals
    damage: Log  # dose over the one after which reflections at 1 Å have faded to 1/e
    kinematic_share: Share  # of crystals with kinematic intensities


class InstrumentSettings(Model):
    """Beam, camera and virtual detectors."""

    voltage_kv: list[Finite]
    convergence_mrad: Log
    detector: list[Count]  # pixels along each side
    reach_inv_angstrom: Even  # from the middle to the detector's edge
    center_off_px: Even
    bf_disk_radii: Even
    haadf_from: Even
    film_element: list[str]
    psf_share: Share  # of instruments whose camera spreads electrons
    psf_px: Even  # rms; less where the direct beam would reach the dark field


class ParticleSettings(Model):
    """What lies on the film."""

    count: Counts
    few_share: Share  # of fields with few particles: numbers are then drawn evenly in the logarithm
    size_px: Log  # diameter of a ball of the same volume, typical of a field
    extreme_share: Share  # of fields that take their typical size from the next range
    extreme_px: Log  # sizes of single particles stay in this range
    spread: Even  # of sizes in a field, rms of the logarithm
    size_nm: Log
    step_nm: Log  # between probes; sizes in nm give way to it
    coverage: Log  # area of all outlines over that of the field: no more particles than that
    kinds: Count  # different crystals of one field, at most
    balls: Share
    elongation: Log
    flattening: Log  # thickness along the beam over width
    lying_share: Share  # of fields whose elongated particles lie in the film
    shapes: Count  # that are made beforehand
    agglomerate_share: Share  # of fields
    chain_share: Share  # of agglomerates
    together: Counts  # particles in one agglomerate
    overlap: Even  # of neighbours in it: 0 touch, 1 lie on each other
    bent_share: Share  # of particles
    bend_deg: Even  # of the lattice across a particle
    mean_free_path: Log  # of its diffuse scattering, over what theory says
    twin_share: Share  # of particles in two crystals, on either side of a plane
    shell_share: Share  # of particles with a shell
    shell: Even  # its thickness over the particle's radius
    amorphous_shell_share: Share  # of shells
    amorphous_share: Share  # of particles
    amorphous_path_nm: Log


class FilmSettings(Model):
    """The support. All that is thick is amorphous and scatters once."""

    none_share: Share
    thickness_nm: Log
    mean_free_path_nm: Log
    gradient: Even  # of the thickness over half a field, relative
    lumps_share: Share
    lumps: Even  # rms of relative thickness
    lumps_px: Log
    grains_share: Share  # of fields with bulky grains of support
    grains: Counts
    grain_px: Log  # radius
    grain_nm: Log  # thickness
    holes_share: Share
    holes: Counts
    hole_px: Log  # radius
    wrinkles_share: Share
    wrinkles: Counts
    wrinkle_px: Log  # rms width
    wrinkle: Log  # thickness on the ridge over that beside it, less 1
    dirt_share: Share
    dirt: Counts
    dirt_px: Log  # radius
    dirt_nm: Log  # thickness
    needle_share: Share
    needle_nm_per_px: Log  # how its thickness grows from its edge


class RecordingSettings(Model):
    """How a field is scanned."""

    shape: tuple[Count, Count]  # rows, columns
    electrons: Log  # per pattern
    noiseless_share: Share  # of fields
    probe_px: Even  # rms width of the probe
    defocus_share: Share  # of fields with a wider one
    defocus_px: Even
    drift_px: Even  # rms blur along one axis while a field is scanned
    jitter_share: Share
    jitter_px: Even  # rms shift of scan rows
    sway_px: Even  # slow shift of scan rows, rms
    shear_share: Share
    shear_deg: Even  # by how much the slow axis leans toward x
    flyback_share: Share
    flyback_px: Even  # how far the first probe of a row lies ahead of its place
    flyback_decay_px: Log  # probes after which 1/e of it is left
    flicker: Even  # rms of the dose from row to row
    streaks_share: Share  # of fields with more of it
    streaks: Even
    shading: Even  # rms loss of a detector toward the corners: descan, shadowing
    charging_share: Share  # of fields with stronger gradients
    charging: Even
    camera_share: Share  # of fields recorded by a camera that does not count
    gain: Log  # counts per electron
    gain_spread: Even  # rms of one electron's counts, of the gain
    read_noise: Log  # rms of a pixel, electrons
    dark_offset: Even  # of a pixel, electrons
    glow_share: Share  # of fields whose dark fields show secondary electrons instead, bright at edges
    glow_film: Log  # per electron
    glow: Log  # of a flat face, over that of the film
    glow_edge: Log  # how much stronger than by the law of the cosine edges are


class TrainingSettings(Model):
    """Random scenes."""

    title: str
    library: LibrarySettings
    instrument: InstrumentSettings
    particles: ParticleSettings
    film: FilmSettings
    recording: RecordingSettings
    micrographs: MicrographSettings


def load_training(path: Path | None = None) -> TrainingSettings:
    """Read the settings of random scenes; without a path, those that come with the package.

    Raises
    ------
    InputError
        If the file is missing or wrong; the message names the file and the key.
    """
    return load(TrainingSettings, path or resources.synthetic() / "training.toml")
