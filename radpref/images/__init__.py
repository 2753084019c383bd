"""Images: from any file a hospital hands over to one upright RGB picture in its true aspect, or a clear refusal.

``read_image`` is the only way in; it either gives a picture or raises ``ImageError`` with a reason that says what is
wrong and what to do. Nothing here knows of studies, models or tasks.
"""

from radpref.images.corruption import OPERATORS, WHOLE, corrupt, save, seed_of, strength_of
from radpref.images.masks import Located, Mask, draw_boxes, grown, marked, own_mask
from radpref.images.near import near_hash, nearly_same
from radpref.images.preview import contact_sheet, data_uri, picture_table, thumbnail, tinted
from radpref.images.read import (
    decode,
    image_hash,
    image_key,
    image_size,
    is_burned_in,
    is_plain,
    pixel_hash,
    pixels_of,
    read_image,
    read_mask,
)
from radpref.images.values import MAX_PIXELS, MIN_SIDE, ImageError

__all__ = [
    "MAX_PIXELS",
    "MIN_SIDE",
    "OPERATORS",
    "WHOLE",
    "ImageError",
    "Located",
    "Mask",
    "contact_sheet",
    "corrupt",
    "data_uri",
    "decode",
    "draw_boxes",
    "grown",
    "image_hash",
    "image_key",
    "image_size",
    "is_burned_in",
    "is_plain",
    "marked",
    "near_hash",
    "nearly_same",
    "own_mask",
    "picture_table",
    "pixel_hash",
    "pixels_of",
    "read_image",
    "read_mask",
    "save",
    "seed_of",
    "strength_of",
    "thumbnail",
    "tinted",
]
