"""Small fields of known samples, for tests of images that are drawn without patterns."""

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl import resources
from stemtomo_dl.simulate.crystal import read_structure
from stemtomo_dl.simulate.images import ImageSample
from stemtomo_dl.simulate.library import Specimen, make_responses
from stemtomo_dl.simulate.optics import Optics
from stemtomo_dl.simulate.readout import Readout
from stemtomo_dl.simulate.shape import ball


def plain_sample(responses, electrons, film, step_nm, solids, at_px, crystal, path_nm) -> ImageSample:
    rows = film.shape[0]
    return ImageSample(
        responses=responses,
        electrons=electrons,
        step_nm=step_nm,
        solids=solids,
        probe_samples=1,
        blur_px=(0.0, 0.0),
        readout=Readout(),
        glow=None,
        particle=np.arange(len(solids)),
        at_px=np.reshape(at_px, (-1, 2)).astype(float),
        crystal=crystal,
        rocking=np.zeros((len(solids), 4)),
        mean_free_path_nm=path_nm,
        film=film,
        row_shift_px=np.zeros(rows),
        column_shift_px=np.zeros(film.shape[1]),
        row_dose=np.ones(rows),
        shading=np.zeros((3, 5)),
    )


def rutile_responses():
    cif = (resources.synthetic() / "structures/rutile.cif").read_text()
    structure = read_structure("rutile", cif, 0.9)
    turns = Rotation.from_rotvec([[0.3, 0.02 * k, 0] for k in range(3)]).as_matrix()
    optics = Optics(200, 0.8, 0.03, (64, 64), (31.6, 31.2))
    return make_responses(optics, [Specimen(structure, 60.0, turns @ structure.b)] * 2, 30)


def small(responses, electrons=400.0, shape=(48, 60), count=3, radius_nm=14.0) -> ImageSample:
    rng = np.random.default_rng(8)
    at = rng.uniform(5, 40, (count, 2))
    film = np.full(shape, 0.1, "f4")
    solids = tuple(ball(radius_nm) for _ in range(count))
    return plain_sample(responses, electrons, film, 2.0, solids, at, np.arange(count) % 2, np.full(count, 150.0))
