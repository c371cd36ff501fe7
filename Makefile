# Every target makes what it needs: on a fresh clone, `make demo` or `make test` is the only command.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: install demo test test-slow check docs bench gpu-check clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[efficientnet,dev,docs]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/domainbridge run quickstart
	$(BIN)/domainbridge predict runs/quickstart/model src/domainbridge/quickstart/fog/images/val \
		--out runs/quickstart/predictions --overlay

test: $(INSTALLED)
	$(BIN)/pytest --numprocesses 2 --dist worksteal

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks --out benchmarks/results.json

gpu-check: $(INSTALLED)
	$(BIN)/python -m benchmarks gpu --out benchmarks/gpu.json

clean:
	rm -rf .venv
