"""The data: scikit-learn's digits, written to a file once, as data of your own would lie there."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

VAL_SAMPLES = 397


class Digits(pl.LightningDataModule):
    """1,400 images to train on and 397 to validate."""

    def __init__(self, batch_size: int, path: str = "digits.npz") -> None:
        super().__init__()
        # Absolute: the processes that train may stand in another folder.
        self.batch_size, self.path = batch_size, Path(__file__).with_name(path)

    def prepare_data(self) -> None:
        """Called on one process of each node."""
        if not self.path.exists():
            from sklearn.datasets import load_digits

            bunch = load_digits()
            # Whole or not at all: another group may look for the file right now.
            with tempfile.NamedTemporaryFile(dir=self.path.parent, delete=False) as file:
                np.savez(file, images=bunch.images, labels=bunch.target)
            os.replace(file.name, self.path)

    def setup(self, stage: str) -> None:
        """Called on every process."""
        with np.load(self.path) as file:
            x = torch.from_numpy(file["images"]).float().unsqueeze(1) / 16
            y = torch.from_numpy(file["labels"]).long()
        self.train = TensorDataset(x[VAL_SAMPLES:], y[VAL_SAMPLES:])
        self.val = TensorDataset(x[:VAL_SAMPLES], y[:VAL_SAMPLES])

    def train_dataloader(self) -> DataLoader:
        """Of the size that the study sets."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Of any size."""
        return DataLoader(self.val, 200)
