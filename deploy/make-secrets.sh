#!/bin/sh
# Makes the secrets of compose.yaml, each a file below secrets/, as far as they are not there.
# Only this user can enter the folder; the files themselves can be read by any user, as those in containers have others.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
cd secrets

secret() { # NAME VALUE
  [ -e "$1" ] && return
  (umask 077 && printf '%s' "$2" > ".$1")
  chmod 444 ".$1"
  mv ".$1" "$1"
}
word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

for name in postgres_password marquee_password monitor_password superset_password superset_secret_key \
  airflow_password airflow_jwt_secret grafana_password redis_password; do
  secret "$name" "$(word)"
done
secret airflow_fernet_key "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n')"
# Yours to write: a token of TMDB (and TMDB_API_TOKEN_FILE in .env), and where alerts go.
secret tmdb_api_token ""
secret alert_webhook_url "http://127.0.0.1:9/"
