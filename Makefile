# `make demo` and `make test` need Python 3.11 or newer and make; they see to everything else themselves.

# The first usable interpreter (scripts/pythons), unless you name one: make PYTHON=/path/to/python3 ...
PYTHON ?= $(shell scripts/pythons | sed -n "1s/^[^ ]* //p")
# The other versions that `make ci` tests on: PYTHONS="3.12 3.13", or PYTHONS= for none.
PYTHONS ?= every
PORT ?= 8000
ADMIN_PORT ?= 9180
# More than cores: tests of a supervisor mostly wait for processes.
JOBS ?= 4
PYTEST ?= -n $(JOBS) --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
export PORT ADMIN_PORT

.DEFAULT_GOAL := help
.PHONY: help demo test ci check format pytest thorough other-pythons bench clean venv system subjects pythons

help:
	@echo 'make demo    start the chat in examples/chat under chansup (PORT=8000 ADMIN_PORT=9180)'
	@echo 'make test    lint, types and the tests on one Python: below five minutes on two cores'
	@echo 'make ci      all of it: the full matrix, the long runs, each Python that is here (PYTHONS="3.12 3.13")'
	@echo 'make check   lint, formatting, types'
	@echo 'make format  put the formatting right'
	@echo 'make pytest  the tests of `make test` (PYTEST="-n 4 -k reload")'
	@echo 'make bench   the benchmarks'
	@echo 'make clean   remove what these made'

demo:
	@scripts/venv $(VENV) demo "$(PYTHON)"
	@echo 'chat: http://127.0.0.1:$(PORT)/   in a few seconds; Ctrl-C stops it'
	@echo 'status page: http://127.0.0.1:$(ADMIN_PORT)/'
	@echo 'in another terminal: cd examples/chat; ../../$(BIN)/chansup status   (reload, logs -f, …)'
	@cd examples/chat && exec ../../$(BIN)/chansup run

test: check pytest

ci: check thorough other-pythons

venv:
	@scripts/venv $(VENV) dev "$(PYTHON)"

# Under CI what is missing is a failure; elsewhere the tests that need it are skipped and say so.
system:
	@scripts/need redis-server redis-server || [ "$${CI:-}" != true ]
	@scripts/need rabbitmq-server rabbitmq-server || [ "$${CI:-}" != true ]
	@scripts/need chromium chromium chromium-driver || [ "$${CI:-}" != true ]
	@scripts/need chromedriver chromium-driver || [ "$${CI:-}" != true ]

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.docs.prose
	$(BIN)/mypy --strict chansup
	$(BIN)/mypy --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls --allow-untyped-decorators \
		--allow-any-generics --no-warn-return-any --ignore-missing-imports --explicit-package-bases tests

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The test suites of others, which are run through the relay.
subjects: venv
	@scripts/subjects $(VENV)

pytest: venv system subjects
	$(BIN)/python -m pytest $(PYTEST) -m 'not thorough'

# Everything: a hundred deploys, a hundred kills, each server in each case.
thorough: venv system subjects
	$(BIN)/python -m pytest $(PYTEST)

# Under CI a version that the package manager offers is installed.
pythons:
	@[ "$${CI:-}" != true ] || scripts/install-pythons

# One after the other: they share the cores with what they start.
other-pythons: venv system pythons
	@mine=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	scripts/pythons | while read -r version python; do \
		case " $(PYTHONS) " in *" $$version "*|" every ") ;; *) continue ;; esac; \
		if [ "$$version" = "$$mine" ]; then continue; fi; \
		echo "== Python $$version"; \
		scripts/venv ".venvs/$$version" dev "$$python" </dev/null || exit 1; \
		".venvs/$$version/bin/python" -m pytest $(PYTEST) -m 'not slow and not thorough' </dev/null || exit 1; \
	done

bench: venv system
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venvs build dist chansup.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	rm -rf examples/chat/data
