# Everything starts from Python 3.11 and make; the environment comes from the hash-pinned lock.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: coverage demo notebook test test-flink test-java lint lock clean

.venv: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch .venv

demo: .venv
	$(BIN)/python -m medclip_keras.fit

notebook: .venv
	$(BIN)/python -m jupyter lab notebooks

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes, whole files each (tests/conftest.py).
test: .venv lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Line and branch coverage, without the commands that tests start; the tests take half as long again.
coverage: .venv
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report term

# Starts and stops a Flink cluster on this machine; needs Java (11 or 17) and Maven, which fetches 150 MB once.
test-flink: .venv
	$(BIN)/python -m pytest tests/flink

# TensorFlow for Java asks an export; needs Java 17 and Maven, which fetches 200 MB once.
test-java: .venv
	$(BIN)/python -m pytest tests/java

lock:
	uv pip compile --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
		--custom-compile-command "make lock" --extra dev --extra notebooks pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .flink .java workdir
