"""The script that line.py compares with: from photos to a pack as one would write it with facenet-pytorch and mxnet today.

    python peer_line.py align PHOTOS.txt FACES THREADS      # where facenet_pytorch imports; writes PHOTOS.lst
    python peer_line.py pack PACK LIST.lst ...              # where mxnet imports

It needs nothing of dataprep. Of several faces it takes the one that insightface's scripts take: area minus twice the
squared distance from the centre.
"""

import json
import os
import sys
import time
from pathlib import Path

TEMPLATE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]


def align(listed, faces, threads):
    began = time.perf_counter()
    import cv2
    import numpy as np
    import torch
    from facenet_pytorch import MTCNN
    from PIL import Image

    imported = time.perf_counter()
    torch.set_num_threads(int(threads))
    cv2.setNumThreads(int(threads))
    mtcnn = MTCNN(keep_all=True, select_largest=False)
    detecting = 0.0
    lines = []
    for path in Path(listed).read_text().splitlines():
        image = Image.open(path).convert("RGB")
        since = time.perf_counter()
        boxes, _, points = mtcnn.detect(image, landmarks=True)
        detecting += time.perf_counter() - since
        if boxes is None:
            continue
        boxes, points = boxes.astype(float), points.astype(float)  # objects, where numpy is 2
        size = boxes[:, 2:] - boxes[:, :2]
        offset = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.array(image.size) / 2
        chosen = np.argmax(size[:, 0] * size[:, 1] - 2 * (offset**2).sum(axis=1))
        matrix = similarity(np, points[chosen], np.array(TEMPLATE))
        warped = cv2.warpAffine(np.asarray(image), matrix, (112, 112), borderValue=0)
        target = os.path.join(faces, *path.split(os.sep)[-2:])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        cv2.imwrite(target, warped[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        lines.append(f"1\t{target}\n")
    Path(listed).with_suffix(".lst").write_text("".join(lines))
    done = time.perf_counter() - imported
    print(json.dumps({"imports": imported - began, "detection": detecting, "all else": done - detecting}))


def similarity(np, source, target):
    """Umeyama 1991, without scikit-image."""
    from_mean, to_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - from_mean
    u, s, vt = np.linalg.svd((target - to_mean).T @ centred / len(source))
    d = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(d) @ vt * ((s * d).sum() / centred.var(axis=0).sum())
    return np.column_stack([rotation, to_mean - rotation @ from_mean])


def pack(folder, *lists):
    began = time.perf_counter()
    import numpy as np

    np.bool = bool  # mxnet 1.9.1 asks for what numpy 1.24 took away
    from mxnet import recordio

    imported = time.perf_counter()
    paths = [line.split("\t")[1] for name in lists for line in Path(name).read_text().splitlines()]
    people = sorted({os.path.basename(os.path.dirname(path)) for path in paths})
    labels = {person: label for label, person in enumerate(people)}
    os.makedirs(folder)
    record = recordio.MXIndexedRecordIO(os.path.join(folder, "train.idx"), os.path.join(folder, "train.rec"), "w")
    ranges, written = [], []
    for key, path in enumerate(sorted(paths), 1):
        label = labels[os.path.basename(os.path.dirname(path))]
        record.write_idx(key, recordio.pack(recordio.IRHeader(0, [label, 1], key, 0), Path(path).read_bytes()))
        if len(ranges) <= label:
            ranges.append([key, key])
        ranges[label][1] = key + 1
        written.append(f"1\t{os.path.join(*path.split(os.sep)[-2:])}\t{label}\n")
    head = [len(paths) + 1, len(paths) + 1 + len(ranges)]
    record.write_idx(0, recordio.pack(recordio.IRHeader(0, head, 0, 0), b""))
    for key, limits in enumerate(ranges, len(paths) + 1):
        record.write_idx(key, recordio.pack(recordio.IRHeader(0, limits, key, 0), b""))
    record.close()
    Path(folder, "train.lst").write_text("".join(written))
    Path(folder, "property").write_text(f"{len(people)},112,112")
    print(json.dumps({"imports of pack": imported - began, "pack": time.perf_counter() - imported}))


if __name__ == "__main__":
    {"align": align, "pack": pack}[sys.argv[1]](*sys.argv[2:])
