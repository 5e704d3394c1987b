"""What a scene says of its particles: phase, habit, size, number, how they lie, what they are joined to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from stemtomo_dl.config import Model, Positive
from stemtomo_dl.simulate.damage import Damage

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(ge=0, le=2)]  # rms of a logarithm
Nanometre = Annotated[float, Field(ge=-1e6, le=1e6)]
Degrees = Annotated[float, Field(ge=-360, le=360)]
Index = Annotated[int, Field(ge=-100, le=100)]
Place = tuple[Nanometre, Nanometre, Nanometre]
Size = Annotated[float, Field(ge=0.1, le=1e4)]  # nm
Ratio = Annotated[float, Field(ge=0.01, le=100)]
MOST_BODIES = 5000  # in a scene


def _not_zero(indices: tuple[int, int, int]) -> tuple[int, int, int]:
    if not any(indices):
        raise ValueError("0 0 0 is no direction and no face; give other indices")
    return indices


Indices = Annotated[tuple[Index, Index, Index], AfterValidator(_not_zero)]
HabitName = Literal["block", "rod", "plate", "octahedron", "truncated-octahedron"]


class Face(Model):
    """A crystal form: a face and all its equivalents, at ``distance`` · size/2 from the centre."""

    hkl: Indices
    distance: Ratio = 1.0


class Orientation(Model):
    """How crystals lie: at random, a direction in the film or along its normal, or as told.

    The direction is the lattice direction [uvw], or the normal of the face ``plane`` where that is given;
    a cube that rests on a face is "upright" with that plane.
    """

    kind: Literal["random", "lying", "upright", "fixed"] = "random"
    direction: Indices = (0, 0, 1)
    plane: Indices | None = None
    spread_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    rotation_vector_deg: tuple[Degrees, Degrees, Degrees] = (0.0, 0.0, 0.0)


class Twin(Model):
    """Two individuals of one body on either side of a composition plane.

    The second individual is the first after a rotation about a lattice direction (``axis``), or about the normal
    of a lattice plane (``plane``): by 180° the mirror twin of every centrosymmetric crystal, ``angle_deg`` otherwise.
    """

    axis: Indices | None = None  # [uvw]
    plane: Indices | None = None  # (hkl)
    angle_deg: Degrees = 180.0
    composition: Indices | None = None  # (hkl) between the individuals; without it the twin plane
    offset: Annotated[float, Field(gt=-1, lt=1)] = 0.0  # of the composition plane from the body's centre, in inradii
    fraction: Share = 1.0  # of the particles that are twinned

    @model_validator(mode="after")
    def _one_law(self) -> Twin:
        if (self.axis is None) == (self.plane is None):
            raise ValueError("give axis or plane of the twin law")
        if self.plane is None and self.composition is None:
            raise ValueError("a twin axis needs a composition plane")
        return self


class Shell(Model):
    """A layer round a particle: a crystal of its own where it has a CIF, amorphous otherwise.

    A crystalline shell is a particle of its own in the truth. An amorphous one belongs to the particle: it only
    scatters diffusely, as the film does, but the particle's outline is that of core and shell together. Of a twin,
    each individual has the shell on its side of the composition plane.
    """

    thickness_nm: Annotated[float, Field(gt=0, le=1e4)]
    cif: str | None = None
    orientation: Literal["parallel", "random"] = "parallel"  # of the shell's axes to the core's
    mean_free_path_nm: Positive = 150.0


class Population(Model):
    """Particles of one kind.

    ``size_nm`` is twice the distance of a face whose ``distance`` is 1, or a diameter.

    Particles lie on the face of the film that the beam meets first at α = 0, the one toward −z. Each falls straight
    down (along +z) until it meets the film or a particle; those in an agglomerate come from all sides and stay where
    they first touch, so that they pile up on the film. No body enters another or the film. ``min_gap_nm`` is the
    least clearance between outlines at α = 0; without it outlines may overlap. In an agglomerate it keeps the first
    particle from what was there before. ``positions_nm`` are centroids, taken as they are: bodies must not overlap
    there, but they may hang in the vacuum, lie on the other face or be embedded in film or needle.
    """

    cif: str
    count: Annotated[int, Field(ge=1, le=MOST_BODIES)] | None = None  # in the field
    per_um2: Positive | None = None  # instead of count: of that part of the field where centres lie
    count_law: Literal["fixed", "poisson"] = "fixed"  # poisson: the number is drawn, its mean as given
    size_nm: Size
    size_sigma: Spread = 0.0
    size_limits_nm: tuple[Size, Size] | None = None  # sizes outside are drawn again
    faces: Annotated[list[Face], Field(max_length=24)] = []
    habit: HabitName | None = None  # a shorthand for faces, see habit.py
    aspect: Ratio = 3.0  # of a rod's length to its width, of a plate's width to its height
    shape: Literal["faces", "sphere", "random"] = "faces"
    irregularity: Spread = 0.0  # of every face's distance
    rounding: Share = 0.0  # 0: sharp; 1: the largest ball about the centre that fits
    twin: Twin | None = None
    shell: Shell | None = None
    orientation: Orientation = Orientation()
    mosaic_deg: Annotated[float, Field(ge=0, le=2)] = 0.0  # rms tilt of the mosaic blocks; beyond 2° they are grains
    damage: Damage | None = None  # None: as good at the end of the series as at its start
    support: Literal["film", "needle"] = "film"  # needle: they stick to the rim of film.needle
    cluster_size: Annotated[float, Field(ge=1, allow_inf_nan=False)] = (
        1.0  # mean number of particles that touch in one agglomerate
    )
    cluster: str = ""  # populations of one name share their agglomerates
    min_gap_nm: NonNegative | None = None
    positions_nm: Annotated[list[Place], Field(max_length=MOST_BODIES)] = []
    mean_free_path_nm: Positive | None = None  # of diffuse scattering; None: by composition and density

    @model_validator(mode="after")
    def _consistent(self) -> Population:
        if (self.count is None) == (self.per_um2 is None):
            raise ValueError("give count or per_um2")
        if (self.shape == "faces") != (bool(self.faces) or self.habit is not None):
            raise ValueError("give faces, or shape = 'sphere' or 'random', not both")
        if self.faces and self.habit is not None:
            raise ValueError("give faces or habit, not both")
        if self.positions_nm and (len(self.positions_nm) != self.count or self.count_law != "fixed"):
            raise ValueError(f"{len(self.positions_nm)} positions_nm for count = {self.count}")
        if self.positions_nm and (self.cluster_size > 1 or self.support == "needle"):
            raise ValueError("positions_nm leave no choice to cluster_size or support; give one of them")
        if self.cluster_size > 1 and self.support == "needle":
            raise ValueError("particles on the needle touch one another as they come; leave cluster_size out")
        return self

    @model_validator(mode="after")
    def _possible_sizes(self) -> Population:
        if self.size_limits_nm is not None:
            low, high = self.size_limits_nm
            if low > high:
                raise ValueError(f"size_limits_nm = [{low:g}, {high:g}] runs downward; give the smaller one first")
            if not low <= self.size_nm <= high:
                raise ValueError(f"size_nm = {self.size_nm:g} is not within size_limits_nm = [{low:g}, {high:g}]")
        return self

    @property
    def cifs(self) -> tuple[str, ...]:
        """The CIFs of a particle, its shell's last."""
        return (self.cif,) if self.shell is None or self.shell.cif is None else (self.cif, self.shell.cif)
