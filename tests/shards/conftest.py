import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.io.folder import Folder
from pseudolabel.io.tar import Members
from pseudolabel.records import EncodedImage, LabelMap, Sample, ScoreMaps
from pseudolabel.shards.sample import decode_cams, encode_cams, encode_mask
from pseudolabel.vocabulary import Vocabulary, load_vocabulary
from tests.shards.runs import write_run


@pytest.fixture(scope="session")
def voc() -> Vocabulary:
    return load_vocabulary("voc")


@pytest.fixture(scope="session")
def cam_members(voc: Vocabulary) -> Members:
    """A CAM shard's members of sample `a`: 12 x 8 pixels, cat and dog."""
    buffer = io.BytesIO()
    image = Image.new("RGB", (12, 8), "green")
    image.save(buffer, "JPEG")
    sample = Sample("a", EncodedImage((8, 12), lambda: image, buffer.getvalue()), (8, 12))
    maps = np.random.default_rng(3).random((2, 4, 6)).astype(np.float16)
    return encode_cams(sample, ScoreMaps("a", (8, 12), maps, (8, 12)), voc)


@pytest.fixture(scope="session")
def mask_members(cam_members: Members) -> Members:
    """The mask shard's members of the same sample."""
    cams = decode_cams("a", cam_members)
    labels = np.zeros((8, 12), np.uint8)
    labels[2:5, 3:9] = 8
    return encode_mask(cams.jpeg, LabelMap("a", labels), cams.fields)


@pytest.fixture
def run(tmp_path: Path, cam_members: Members) -> Folder:
    """A whole run of CAM shards: three shards of one sample each."""
    return write_run(tmp_path / "cams", "cams", [[("a", cam_members)]] * 3)
