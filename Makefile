# `make demo` and `make test` need only Python 3.10 or newer (with venv), pip and make.

PYTHON ?= python3

.PHONY: demo test lint clean

demo: .venv/.installed
	@.venv/bin/study run quickstart --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: export OMP_NUM_THREADS = 1
test: .venv/.installed
	.venv/bin/python -m pytest -n 2

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Setting up .venv; the first time takes some minutes."
	@.venv/bin/pip install -qq --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

.venv/bin/pip:
	@$(PYTHON) -m venv .venv
