"""Copies of the ledger for MLflow and TensorBoard."""
