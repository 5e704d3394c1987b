"""A particle's series as other programs read it: text and frames out, nothing computed, no file touched.

Every format is a function series, title -> `Files`; `store.folder` writes them.
"""

from stemtomo_dl.export.dials import dials
from stemtomo_dl.export.frames import Files
from stemtomo_dl.export.pets import pets
from stemtomo_dl.export.tiff import tiff
from stemtomo_dl.export.xds import xds

FORMATS = {"pets": pets, "dials": dials, "xds": xds, "tiff": tiff}

__all__ = ["FORMATS", "Files"]
