#!/bin/bash
# Creates the four roles, and the database owned by listings_owner. The postgres image runs it once, on an empty volume.
# The native stack uses ops/native/create-roles instead.
set -euo pipefail

for role in listings_owner listings_command listings_projector listings_query; do
    psql --set ON_ERROR_STOP=1 --set role="$role" --set password="$POSTGRES_PASSWORD" --username postgres --dbname postgres <<'END'
create role :"role" login password :'password';
END
done
psql --set ON_ERROR_STOP=1 --username postgres --dbname postgres --command 'create database listings owner listings_owner'
