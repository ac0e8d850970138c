#!/bin/sh
# Checks every file of conf/ with the program that reads it, or with a checker made for it.
# A check whose program is not installed is skipped, and says so.  Exits 1 if a check failed.
# shellcheck disable=SC2317  # what looks unreachable is called through `check`
set -u
cd "$(dirname "$0")/.." || exit 1
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
failed=0

# check PROGRAM WHAT COMMAND...: run the command, in a subshell, if the program is there.
check() {
    program=$1 what=$2
    shift 2
    if ! command -v "$program" >/dev/null; then
        echo "skipped  $what: $program is not installed"
    elif ("$@") >"$scratch/output" 2>&1; then
        echo "ok       $what"
    else
        echo "FAILED   $what"
        sed 's/^/         /' "$scratch/output"
        failed=1
    fi
}

# verify finds the programs of ExecStart= missing where the project is not; true stands in for them.
units() {
    mkdir "$scratch/units" || return
    for unit in conf/systemd/*.service conf/systemd/*.socket; do
        sed 's#^\(Exec[A-Za-z]*=\)/srv/[^ ]*#\1/bin/true#' "$unit" >"$scratch/units/${unit##*/}"
    done
    cd "$scratch/units" && systemd-analyze verify --man=no \
        ./forkmaster.service ./forkmaster.socket ./forkmaster@shop.service ./forkmaster@shop.socket
}

hardening() {
    cd conf/systemd && systemd-analyze security --no-pager --offline=true --threshold=15 \
        ./forkmaster.service
}

# nginx looks for relative includes beside its configuration, and for certificates.
nginx_site() {
    folder=$scratch/nginx-$(echo "$1" | tr / -)
    mkdir "$folder" || return
    if grep -q ssl_certificate "$1"; then
        openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2 \
            -keyout "$folder/privkey.pem" -out "$folder/fullchain.pem" || return
    fi
    sed -e "s#include snippets/#include $PWD/conf/nginx/#" -e "s#/etc/ssl/project/#$folder/#" \
        -e "s#server app:#server 127.0.0.1:#" "$1" >"$folder/site.conf"
    {
        echo "pid $folder/pid; error_log stderr; events {}"
        echo "http { access_log off; include $folder/site.conf; }"
    } >"$folder/nginx.conf"
    nginx -t -q -p "$folder" -c "$folder/nginx.conf"
}

manifests() {
    for file in conf/kubernetes/*.yaml; do
        # Not a resource of the cluster: kubectl reads it.
        [ "${file##*/}" = kustomization.yaml ] || kubernetes-validate --strict "$file" || return
    done
}

# JSON is YAML, too.
readable() {
    python -c 'import sys, yaml; [yaml.safe_load(open(path)) for path in sys.argv[1:]]' "$@"
}

# The files that are rotated need not be there, nor the user.
rotation() {
    sed -e "s#/var/log/forkmaster#$scratch#" -e "/^ *su /d" conf/logrotate >"$scratch/rotate"
    chmod 0644 "$scratch/rotate"
    logrotate --debug --state "$scratch/rotate.state" "$scratch/rotate"
}

PATH=$PATH:/usr/sbin
check systemd-analyze "systemd units" units
check systemd-analyze "systemd hardening: exposure at most 1.5" hardening
for site in conf/nginx/project.conf conf/nginx/project-tls.conf conf/docker/nginx/default.conf; do
    check nginx "$site" nginx_site "$site"
done
check hadolint "Dockerfiles" hadolint conf/docker/Dockerfile conf/docker/nginx/Dockerfile
check check-jsonschema "compose.yaml" \
    check-jsonschema --builtin-schema vendor.compose-spec conf/docker/compose.yaml
if [ -d conf/kubernetes ]; then
    check kubernetes-validate "Kubernetes manifests" manifests
    check kubectl "kustomization" kubectl kustomize conf/kubernetes
fi
if [ -d conf/prometheus ]; then
    check promtool "prometheus.yml" promtool check config conf/prometheus/prometheus.yml
    check promtool "Prometheus rules" promtool check rules conf/prometheus/rules.yml
    check promtool "what the rules say" promtool test rules conf/prometheus/rules_test.yml
fi
check python "adapter.yml and the dashboard" readable conf/prometheus/adapter.yml \
    conf/grafana/forkmaster.json
check forkmaster "gunicorn.py" forkmaster config --config conf/gunicorn.py project.wsgi
check forkmaster "forkmaster.toml" forkmaster config --config conf/forkmaster.toml project.wsgi
check logrotate "logrotate" rotation
check shellcheck "shell scripts" shellcheck scripts/*.sh conf/*.sh .ci/run
exit $failed
