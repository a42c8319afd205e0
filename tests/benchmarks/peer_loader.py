"""The peers that loader.py compares with; in an environment with mxnet, torch and torchvision. It needs nothing of dataprep.

    python peer_loader.py iter FLAT.rec PART PARTS   # mx.io.ImageRecordIter, the PART-th of PARTS of the file
    python peer_loader.py dataset PACK               # arcface_torch's MXFaceDataset in a DataLoader of 2 workers

After `go` on stdin it reads one epoch, and says `images seconds`; at the end of stdin it ends.
"""

import os
import sys
import time

import numpy as np

np.bool = bool  # mxnet 1.9.1 asks for what numpy 1.24 took away

import mxnet as mx  # noqa: E402

BATCH = 128


def record_iter(path, part, parts):
    reader = mx.io.ImageRecordIter(
        path_imgrec=path,
        data_shape=(3, 112, 112),
        batch_size=BATCH,
        rand_mirror=True,
        preprocess_threads=2,
        num_parts=int(parts),
        part_index=int(part),
        verbose=False,
        **{f"{what}_{channel}": 127.5 for what in ("mean", "std") for channel in "rgb"},
    )

    def epoch():
        reader.reset()
        count = 0
        for batch in reader:
            batch.data[0].wait_to_read()
            count += BATCH - batch.pad
        return count

    return epoch


def face_dataset(folder):
    """recognition/arcface_torch/dataset.py as it stands; its loader's workers may stay from epoch to epoch."""
    import numbers

    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    class MXFaceDataset(Dataset):
        def __init__(self):
            self.transform = transforms.Compose(
                [
                    transforms.ToPILImage(),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]),
                ]
            )
            names = (os.path.join(folder, name) for name in ("train.idx", "train.rec"))
            self.imgrec = mx.recordio.MXIndexedRecordIO(*names, "r")
            header, _ = mx.recordio.unpack(self.imgrec.read_idx(0))
            self.imgidx = np.array(range(1, int(header.label[0])))

        def __getitem__(self, index):
            header, img = mx.recordio.unpack(self.imgrec.read_idx(self.imgidx[index]))
            label = header.label
            if not isinstance(label, numbers.Number):
                label = label[0]
            sample = mx.image.imdecode(img).asnumpy()
            return self.transform(sample), torch.tensor(
                int(label), dtype=torch.long
            )  # as it is, torch refuses a numpy one

        def __len__(self):
            return len(self.imgidx)

    torch.set_num_threads(1)
    loader = DataLoader(
        MXFaceDataset(), batch_size=BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    return lambda: sum(len(labels) for _, labels in loader)


def main():
    epoch = {"iter": record_iter, "dataset": face_dataset}[sys.argv[1]](*sys.argv[2:])
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        count = epoch()
        print(count, time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
