# make demo          the main job, a few minutes on two cores, installation included
# make test          the tests; CONTRIBUTING.md says which of them a change asks for
# make acceptance    the long checks: what each full recipe reaches against what it should
# make benchmarks    one script per claim
# All four set up .venv first and reuse it while requirements.txt is unchanged.

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP = .venv/bin/python -m pip --disable-pip-version-check
# A copy of requirements.txt, written when all of it is installed: a half-finished .venv has none and is made anew.
STAMP = .venv/installed.txt

.PHONY: demo test acceptance benchmarks
demo: .venv/bin/tfzoo
	.venv/bin/tfzoo demo

test: .venv/bin/tfzoo
	.venv/bin/python -m pytest --numprocesses 2 --dist worksteal $(TESTS)

# Every script prints its table, writes it as JSON to the file it is given, and exits 1 where it falls short.
acceptance: scripts = $(wildcard tests/acceptance/[!_]*.py)
benchmarks: scripts = $(wildcard benchmarks/[!_]*.py)
acceptance benchmarks: .venv/bin/tfzoo
	@mkdir -p benchmarks/results
	@status=0; for script in $(scripts); do \
		out=benchmarks/results/$$(date +%F)-$@-$$(basename $$script .py).json; \
		echo "$$script -> $$out"; .venv/bin/python $$script --output $$out || status=1; \
	done; exit $$status

# Content, not time: a checkout touches files that it does not change.
ifneq ($(shell cmp -s requirements.txt $(STAMP) && echo same),same)
.PHONY: $(STAMP)
endif
$(STAMP):
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 is needed, and neither python3.11 nor python3 is one." \
		"Install it, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(PIP) install -r requirements.txt
	cp requirements.txt $@

# The commands, from this folder: nothing is downloaded, as setuptools is among the requirements.
.venv/bin/tfzoo: $(STAMP) setup.cfg pyproject.toml
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
