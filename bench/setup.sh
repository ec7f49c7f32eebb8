#!/usr/bin/env bash
# Installs what slipswitch is compared with: nginx, HAProxy and Node from
# Debian's packages, configurable-http-proxy and Caddy in the versions named
# here, into the user's cache. What is there already is left alone.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/slipswitch
caddy=v2.11.9
chp=5.3.0

packages=()
for program in nginx haproxy; do
	command -v $program >/dev/null || [ -x /usr/sbin/$program ] || packages+=($program)
done
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
if [ ${#packages[@]} -gt 0 ]; then
	sudo=$([ "$(id -u)" = 0 ] || echo sudo)
	$sudo apt-get update -qq
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}"
fi
go version -m "$cache/bin/caddy" 2>/dev/null | grep -q "caddyserver/caddy/v2[[:space:]]$caddy[[:space:]]" ||
	GOWORK=off GOFLAGS=-mod=mod GOBIN=$cache/bin go install "github.com/caddyserver/caddy/v2/cmd/caddy@$caddy"
"$cache/chp/node_modules/.bin/configurable-http-proxy" --version 2>/dev/null | grep -qx "$chp" ||
	npm install --silent --no-audit --no-fund --no-save --prefix "$cache/chp" "configurable-http-proxy@$chp"
