-- Listings as they are now. What rules ask for has a column; `state` is the whole listing, as its last event carries it.
create table command.listings (
    id          uuid        primary key,
    version     bigint      not null,
    seller_id   uuid        not null,
    external_id text,
    status      text        not null,
    state       jsonb       not null,
    -- A deleted listing keeps its row: its id never comes back.
    deleted_at  timestamptz
);
create unique index listings_external_id_key on command.listings (seller_id, external_id) where deleted_at is null;

-- The stock of each variant, from its first moment on. The lock order is stock by variant id, then listings by id.
create table command.stock (
    variant_id          uuid        primary key,
    listing_id          uuid        not null references command.listings (id) deferrable initially deferred,
    seller_id           uuid        not null,
    on_hand             bigint      not null check (on_hand >= 0),
    reserved            bigint      not null default 0 check (reserved >= 0 and reserved <= on_hand),
    low_stock_threshold bigint      check (low_stock_threshold >= 0),
    version             bigint      not null,
    updated_at          timestamptz not null,
    removed_at          timestamptz
);
create index stock_listing_id on command.stock (listing_id);

grant select, insert, update on command.listings, command.stock to listings_command;
