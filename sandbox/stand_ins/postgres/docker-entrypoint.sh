#!/usr/bin/env bash
# Initialises an empty PGDATA, then becomes the server.
set -Eeuo pipefail

# POSTGRES_PASSWORD_FILE and its like name a file that holds the value.
from_file() {
    local name="$1" file="${1}_FILE" default="${2:-}"
    if [[ -n "${!file:-}" ]]; then
        if [[ -n "${!name:-}" ]]; then
            echo "error: both $name and $file are set" >&2
            exit 1
        fi
        printf -v "$name" '%s' "$(<"${!file}")"
    else
        printf -v "$name" '%s' "${!name:-$default}"
    fi
    export "${name?}"
    unset "$file"
}

run_files() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sh) if [[ -x "$file" ]]; then "$file"; else . "$file"; fi ;;
            *.sql) psql_here --dbname "$POSTGRES_DB" --file "$file" ;;
            *.sql.gz) gunzip -c "$file" | psql_here --dbname "$POSTGRES_DB" ;;
        esac
    done
}

psql_here() {
    PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" \
        --no-password --no-psqlrc "$@"
}

initialise() {
    from_file POSTGRES_PASSWORD
    from_file POSTGRES_USER postgres
    from_file POSTGRES_DB "$POSTGRES_USER"
    from_file POSTGRES_INITDB_ARGS
    local method="${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}"
    if [[ -z "$POSTGRES_PASSWORD" && "$method" != trust ]]; then
        echo 'Error: Database is uninitialized and superuser password is not specified.' >&2
        echo '       Set POSTGRES_PASSWORD to a non-empty value.' >&2
        exit 1
    fi
    # shellcheck disable=SC2086 # the arguments are meant to be split
    initdb --username="$POSTGRES_USER" --auth-local=trust --auth-host="$method" \
        --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") $POSTGRES_INITDB_ARGS
    printf '\nhost all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"
    # On the socket alone: nobody may take a server that is still being filled for ready.
    PGUSER="$POSTGRES_USER" pg_ctl -D "$PGDATA" -w start \
        -o "-c listen_addresses='' -p ${PGPORT:-5432}"
    if [[ "$POSTGRES_DB" != postgres ]]; then
        psql_here --dbname postgres --set db="$POSTGRES_DB" <<< 'CREATE DATABASE :"db" ;'
    fi
    run_files
    PGUSER="$POSTGRES_USER" pg_ctl -D "$PGDATA" -m fast -w stop
    unset POSTGRES_PASSWORD
    echo 'PostgreSQL init process complete; ready for start up.'
}

[[ "${1:-}" == -* ]] && set -- postgres "$@"

if [[ "${1:-}" == postgres ]]; then
    mkdir -p "$PGDATA"
    if [[ "$(id -u)" == 0 ]]; then
        find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres {} +
        chmod 0700 "$PGDATA"
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH_SOURCE" "$@"
    fi
    chmod 0700 "$PGDATA"
    if [[ ! -s "$PGDATA/PG_VERSION" ]]; then
        initialise
    fi
fi

exec "$@"
