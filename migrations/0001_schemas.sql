-- Two schemas, one border. The roles are made once per cluster (`ops/`, the test harness): concurrent `create role` fails.
create schema command;
create schema projection;

grant usage on schema command to listings_command, listings_projector;
grant usage on schema projection to listings_projector, listings_query;
