"""One trial: a rank, its LightningModule, optimizers and schedules."""
