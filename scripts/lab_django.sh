#!/bin/sh
# The demo project on the releases of Django that are supported, each in an environment of its own.
# PYTHON says which Python; the newest Django is the newest that it takes.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
tested='' failed=0
for wanted in 'django~=4.2.0' 'django~=5.2.0' 'django'; do
    venv=.venv-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(
        echo "$wanted" | tr -dc 'a-z0-9.'
    )
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade \
        --editable '.[dev]' "$wanted"
    version=$("$venv/bin/python" -m django --version)
    case " $tested " in *" $version "*) continue ;; esac
    tested="$tested $version"
    echo "Django $version on $("$venv/bin/python" --version):"
    "$venv/bin/python" -m pytest -q -n 2 \
        tests/e2e/test_django.py tests/e2e/test_manage.py || failed=1
done
exit $failed
