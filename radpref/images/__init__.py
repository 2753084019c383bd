"""Films: from any file a hospital hands over to one upright RGB picture in its true aspect, or a clear refusal.

``read_film`` is the only way in; it either gives a picture or raises ``FilmError`` with a reason that says what is
wrong and what to do. Nothing here knows of studies, models or tasks.
"""

from radpref.images.film import decode, film_hash, film_key, pixel_hash, read_film, read_mask
from radpref.images.preview import contact_sheet, data_uri, thumbnail
from radpref.images.values import MAX_PIXELS, MIN_SIDE, FilmError

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "FilmError",
    "contact_sheet",
    "data_uri",
    "decode",
    "film_hash",
    "film_key",
    "pixel_hash",
    "read_film",
    "read_mask",
    "thumbnail",
]
