"""Who else is told what a ledger says, as it grows: MLflow, TensorBoard."""
