-- Which generations of each projection exist. query-api reads the serving one; projector feeds all that are not retired.
create table projection.generations (
    projection text        not null,
    generation integer     not null check (generation > 0),
    state      text        not null check (state in ('building', 'serving', 'fed', 'retired')),
    -- The durable consumer that feeds it.
    durable    text        not null unique,
    -- It could not apply an event that the serving one has; it must not be switched to.
    dirty      boolean     not null default false,
    created_at timestamptz not null default clock_timestamp(),
    primary key (projection, generation)
);
create unique index generations_serving on projection.generations (projection) where state = 'serving';
insert into projection.generations (projection, generation, state, durable)
values ('listing_search', 1, 'serving', 'listing_search'),
       ('listing_page', 1, 'serving', 'listing_page'),
       ('listing_catalog', 1, 'serving', 'listing_catalog'),
       ('stock_levels', 1, 'serving', 'stock_levels');

-- listing_catalog: a seller's own listings, drafts too; search when OpenSearch is away. A deleted listing stays as a
-- tombstone (deleted, all else null), so that an old event cannot bring it back.
create table projection.listings (
    id           uuid        primary key,
    version      bigint      not null,
    deleted      boolean     not null,
    seller_id    uuid,
    status       text,
    visibility   text,
    title        text,
    -- Every level of the category: electronics, electronics/audio, …
    categories   text[],
    brand        text,
    condition    text,
    tags         text[],
    -- Lower-case name → values, to be asked with @>.
    attributes   jsonb,
    price        numeric,
    currency     text,
    available    boolean,
    lat          double precision,
    lon          double precision,
    created_at   timestamptz,
    search       tsvector,
    -- The listing as the API shows it.
    listing      jsonb
);
create index listings_newest on projection.listings (created_at desc, id) where not deleted and status = 'active' and visibility = 'public';
create index listings_of_seller on projection.listings (seller_id, created_at desc, id) where not deleted;
create index listings_by_price on projection.listings (currency, price, id) where not deleted and status = 'active' and visibility = 'public';
create index listings_by_title on projection.listings (title collate "C", id) where not deleted and status = 'active' and visibility = 'public';
create index listings_categories on projection.listings using gin (categories) where not deleted;
create index listings_tags on projection.listings using gin (tags) where not deleted;
create index listings_attributes on projection.listings using gin (attributes jsonb_path_ops) where not deleted;
create index listings_search on projection.listings using gin (search) where not deleted;

-- stock_levels: how many are left, what is low.
create table projection.stock_levels (
    variant_id          uuid        primary key,
    version             bigint      not null,
    removed             boolean     not null,
    listing_id          uuid,
    seller_id           uuid,
    on_hand             bigint,
    reserved            bigint,
    low_stock_threshold bigint,
    updated_at          timestamptz
);
create index stock_levels_listing on projection.stock_levels (listing_id) where not removed;

grant select, insert, update, delete on projection.generations, projection.listings, projection.stock_levels to listings_projector;
grant select on projection.generations, projection.listings, projection.stock_levels to listings_query;
