"""Settings of the plain micrographs that segmenters are trained on: the range of everything that varies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stemtomo_dl.config import Count, Model
from stemtomo_dl.simulate.ranges import Counts, Even, Log, Share

Style = Literal["bright_field", "dark_field", "silhouette", "secondary"]
Layout = Literal["scattered", "clusters", "chains", "monolayer", "pile", "single"]
Inside = Literal["solid", "mottled", "shell", "core", "fringes", "rough"]
Ground = Literal["flat", "granular", "holey", "lumpy", "fibrous", "plates", "streaked"]


class MicrographSettings(Model):
    """Plain grey images of particles. Of the lists one entry is drawn: what stands twice is twice as likely.

    Levels are in units of the contrast of a typical particle, lengths in px unless they are said to be relative.
    """

    shape: tuple[Count, Count]  # rows, columns
    styles: Annotated[list[Style], Field(min_length=1)]
    layouts: Annotated[list[Layout], Field(min_length=1)]
    insides: Annotated[list[Inside], Field(min_length=1)]
    grounds: Annotated[list[Ground], Field(min_length=1)]
    supported_share: Share  # of transmission fields with small particles on a lumpy support
    supported_px: Log  # their size

    count: Counts
    empty_share: Share  # of fields without particles
    size_px: Log  # typical of a field
    extreme_px: Log  # sizes of single particles stay in this range
    single_fill: Even  # size of a single particle over the field's shorter side
    spread: Even  # of sizes in a field, rms of the logarithm
    coverage: Log  # area of all outlines over that of the field: no more particles than that
    overlap: Even  # of neighbours in clusters, chains and piles: 0 touch, 1 lie on each other
    round_share: Share  # of kinds that are balls, rods or rounded blocks; others have faces
    long_share: Share  # of kinds that are elongated
    elongation: Log
    flattening: Log
    blockiness: Log  # exponent of rounded bodies: 2 is a ball, 8 nearly a block
    warped_share: Share  # of fields whose bodies are bent and uneven
    warp: Even  # shift of outlines over the typical size, rms
    fray: Even  # the same, in steps much smaller than the particles

    fullness: Even  # exponent of thickness in contrast: 0 shows flat particles, 1 is proportional
    contrast_spread: Even  # between particles of a field, rms of the logarithm
    diffracting_share: Share  # of fields whose particles differ much, as crystals do
    depth: Log  # optical depth of a typical particle in a bright field
    inverted_share: Share
    texture: Even  # rms modulation inside mottled, fringed and rough particles
    shell: Even  # thickness of a shell over the radius
    core: Log  # density of a core over that of its shell
    fringe_px: Log

    lumps: Log  # range of holes, and of lumps, fibres and plates that are much larger than the particles
    ground: Log  # range of any other lumps, rms of streaks
    grain: Even  # rms of the granularity that comes on top
    grain_px: Log
    gradient: Even  # over half a field
    debris_share: Share
    debris: Counts

    phase_share: Share  # of bright fields with Fresnel fringes
    fringes: Log  # their strength
    blur_px: Log  # rms
    contrast_to_noise: Log
    noiseless_share: Share
    counting: Even  # share of the noise that grows with the brightness
    correlated_share: Share
    line_share: Share
    line_noise: Even  # rms shift of the level of scan rows
    vignetting: Even
    saturated_share: Share
    saturated: Even  # share of the pixels at either end that are clipped
    span: Even  # of the grey levels, over 255
    gamma: Log
    jpeg_share: Share
    jpeg_quality: Counts
    overlay_share: Share
