"""CAM shards as NumPy's dictionaries, as IRNet writes them."""

import io
import tarfile

import numpy as np

from pseudolabel.errors import ShardError
from pseudolabel.io.folder import Folder
from pseudolabel.io.ownership import OwnFiles
from pseudolabel.io.tar import read_tar
from pseudolabel.records import ScoreMaps
from pseudolabel.runtime.progress import show_progress
from pseudolabel.score_maps import at_image_size
from pseudolabel.shards.find import CAM_MEMBER, find_shards, folder_of
from pseudolabel.shards.sample import decode_cams


def export_cams(shards: str, to: str) -> int:
    """Write `TO/KEY.npy` for every sample of CAM shards; memory is that of one sample.

    A file is a pickled dictionary, as `numpy.save` writes it: `keys`, int64 (C), class numbers that count from 0
    without background; `cam`, float16 (C, h, w), as stored; `high_res`, float16 (C, H, W), at the image's size, scaled
    as `evaluate` and `refine` scale the maps. `import-cams` reads it back.

    Args:
        shards: a folder of CAM shards.
        to: the folder to write.

    Returns:
        The number of files.

    Raises:
        ShardError: if there are no CAM shards, or one cannot be read.
        NotOursError: if a file would replace one that this package did not write.
    """
    paths = find_shards(shards)
    out = Folder(to, "`to`")
    out.prepare()
    files, count = OwnFiles(out, option="`to`"), 0
    with show_progress("export-cams", 0) as progress:
        for path in paths:
            name = path.rpartition("/")[2]
            try:
                with Folder(folder_of(path)).open(name) as file:
                    for key, members in read_tar(file):
                        if CAM_MEMBER not in members:
                            raise ShardError(f"'{path}' holds no class activation maps; give a folder such as OUT/cams")
                        files.write({f"{key}.npy": encode_npy(decode_cams(key, members).scores)})
                        count += 1
                        progress.update(count, 0)
            except (tarfile.TarError, OSError) as error:
                raise ShardError(f"shard '{path}' cannot be read: {error}; run 'pseudolabel verify'") from error
    return count


def encode_npy(scores: ScoreMaps) -> bytes:
    """The file of one sample."""
    buffer = io.BytesIO()
    content = {
        "keys": np.array(scores.classes, np.int64) - 1,
        "cam": scores.maps,
        "high_res": at_image_size(scores.maps, scores.size, scores.final).astype(np.float16),
    }
    np.save(buffer, np.array(content, object), allow_pickle=True)
    return buffer.getvalue()
