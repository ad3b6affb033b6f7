-- What happened: the audit trail, the repair source when the broker lost data, the rebuild source of ledgers.
create table command.events (
    -- cache 1: a larger cache reorders. Order by seq is the outbox's business; an aggregate's order is its version.
    seq          bigint generated always as identity (cache 1) primary key,
    aggregate    text        not null,
    aggregate_id uuid        not null,
    version      bigint      not null check (version > 0),
    event_id     uuid        not null,
    type         text        not null,
    headers      jsonb       not null,
    body         bytea       not null,
    -- now() would be the start of the transaction, seconds before the row can be seen.
    recorded_at  timestamptz not null default clock_timestamp(),
    constraint events_version_key unique (aggregate, aggregate_id, version)
);
-- Bodies are JSON of a kilobyte or so: lz4 costs less than the default for the few that get compressed.
alter table command.events alter column body set compression lz4;

-- Events that the broker has not acknowledged. Claimed in seq order within a shard, deleted after the ack, never updated.
create table command.outbox (
    shard smallint not null check (shard between 0 and 15),
    seq   bigint   not null,
    primary key (shard, seq)
);
-- Everything that comes goes again: vacuum by count, not by share of a table that is nearly always empty.
alter table command.outbox set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                                autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000);

-- What the broker acknowledged last, per shard. If the broker no longer has it, it lost data (PROTOCOL R5).
create table command.relay_mark (
    shard          smallint    primary key,
    stream_created timestamptz not null,
    seq            bigint      not null,
    subject        text        not null,
    version        bigint      not null,
    event_id       uuid        not null
);

-- The first answer of each request that carried an Idempotency-Key. The body is rendered again from the journal.
create table command.idempotency_keys (
    caller       uuid        not null,
    route        text        not null,
    key          text        not null,
    body_digest  bytea       not null,
    status       smallint    not null,
    headers      jsonb       not null,
    aggregate    text        not null,
    aggregate_id uuid        not null,
    version      bigint      not null,
    created_at   timestamptz not null default clock_timestamp(),
    primary key (caller, route, key)
);
create index idempotency_keys_created_at on command.idempotency_keys (created_at);

-- The journal is append-only for its writer too.
grant select, insert on command.events to listings_command;
grant select on command.events to listings_projector;
grant select, insert, delete on command.outbox to listings_command;
grant select, insert, update on command.relay_mark to listings_command;
grant select, insert, delete on command.idempotency_keys to listings_command;
