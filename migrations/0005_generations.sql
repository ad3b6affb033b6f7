-- Every generation of listing_catalog and stock_levels has a partition of its own, so that a rebuild fills a new one beside the
-- one that is read, and a retired one is detached in one step. Rows that exist belong to generation 1; nothing is rewritten.
alter table projection.listings rename to listings_1;
alter table projection.listings_1 add column generation integer not null default 1;
alter table projection.listings_1 add constraint listings_1_generation check (generation = 1);
alter table projection.listings_1 drop constraint listings_pkey;
alter table projection.listings_1 add constraint listings_1_pkey primary key (generation, id);
alter index projection.listings_newest rename to listings_1_newest;
alter index projection.listings_of_seller rename to listings_1_of_seller;
alter index projection.listings_by_price rename to listings_1_by_price;
alter index projection.listings_by_title rename to listings_1_by_title;
alter index projection.listings_categories rename to listings_1_categories;
alter index projection.listings_tags rename to listings_1_tags;
alter index projection.listings_attributes rename to listings_1_attributes;
alter index projection.listings_search rename to listings_1_search;

create table projection.listings (
    id           uuid        not null,
    version      bigint      not null,
    deleted      boolean     not null,
    seller_id    uuid,
    status       text,
    visibility   text,
    title        text,
    categories   text[],
    brand        text,
    condition    text,
    tags         text[],
    attributes   jsonb,
    price        numeric,
    currency     text,
    available    boolean,
    lat          double precision,
    lon          double precision,
    created_at   timestamptz,
    search       tsvector,
    listing      jsonb,
    generation   integer     not null default 1,
    primary key (generation, id)
) partition by list (generation);
create index listings_newest on projection.listings (created_at desc, id) where not deleted and status = 'active' and visibility = 'public';
create index listings_of_seller on projection.listings (seller_id, created_at desc, id) where not deleted;
create index listings_by_price on projection.listings (currency, price, id) where not deleted and status = 'active' and visibility = 'public';
create index listings_by_title on projection.listings (title collate "C", id) where not deleted and status = 'active' and visibility = 'public';
create index listings_categories on projection.listings using gin (categories) where not deleted;
create index listings_tags on projection.listings using gin (tags) where not deleted;
create index listings_attributes on projection.listings using gin (attributes jsonb_path_ops) where not deleted;
create index listings_search on projection.listings using gin (search) where not deleted;
-- The indexes of the partition are the same, so they are attached too and nothing is built again.
alter table projection.listings attach partition projection.listings_1 for values in (1);
alter table projection.listings_1 drop constraint listings_1_generation;

alter table projection.stock_levels rename to stock_levels_1;
alter table projection.stock_levels_1 add column generation integer not null default 1;
alter table projection.stock_levels_1 add constraint stock_levels_1_generation check (generation = 1);
alter table projection.stock_levels_1 drop constraint stock_levels_pkey;
alter table projection.stock_levels_1 add constraint stock_levels_1_pkey primary key (generation, variant_id);
alter index projection.stock_levels_listing rename to stock_levels_1_listing;

create table projection.stock_levels (
    variant_id          uuid        not null,
    version             bigint      not null,
    removed             boolean     not null,
    listing_id          uuid,
    seller_id           uuid,
    on_hand             bigint,
    reserved            bigint,
    low_stock_threshold bigint,
    updated_at          timestamptz,
    generation          integer     not null default 1,
    primary key (generation, variant_id)
) partition by list (generation);
create index stock_levels_listing on projection.stock_levels (listing_id) where not removed;
alter table projection.stock_levels attach partition projection.stock_levels_1 for values in (1);
alter table projection.stock_levels_1 drop constraint stock_levels_1_generation;

-- Access goes through the parents alone.
revoke all on projection.listings_1, projection.stock_levels_1 from listings_projector, listings_query;
grant select, insert, update, delete on projection.listings, projection.stock_levels to listings_projector;
grant select on projection.listings, projection.stock_levels to listings_query;

-- Makes the partition of a generation, and says whether it did; one that exists stays as it is. It runs with the rights of its owner, because the projector
-- owns no table. The table is made apart and then attached: `create table … partition of` would lock out every reader and writer.
create function projection.create_generation_partition(projection text, generation integer) returns boolean
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    parent  constant text := case projection when 'listing_catalog' then 'listings' when 'stock_levels' then 'stock_levels' end;
    part    constant text := format('%s_%s', parent, generation);
    other   text;
begin
    if parent is null then
        raise exception 'projection % has no table with partitions', coalesce(projection, 'null') using errcode = 'invalid_parameter_value';
    end if;
    if generation is null or generation < 1 then
        raise exception 'generation % is not a number from 1', coalesce(generation::text, 'null') using errcode = 'invalid_parameter_value';
    end if;
    -- Two callers at once: the second one finds what the first one made.
    perform pg_advisory_xact_lock(hashtextextended('projection.create_generation_partition', 0));
    if to_regclass(format('projection.%I', part)) is null then
        execute format('create table projection.%I (like projection.%I including defaults including constraints including storage)', part, parent);
        execute format('alter table projection.%I attach partition projection.%I for values in (%s)', parent, part, generation);
        return true;
    end if;
    select pg_get_expr(c.relpartbound, c.oid) into other
      from pg_class c join pg_inherits i on i.inhrelid = c.oid
     where c.oid = to_regclass(format('projection.%I', part)) and i.inhparent = to_regclass(format('projection.%I', parent));
    if other is distinct from format('FOR VALUES IN (%s)', generation) then
        raise exception 'projection.% exists, but is not the partition of generation %', part, generation using errcode = 'duplicate_table';
    end if;
    return false;
end
$$;
revoke all on function projection.create_generation_partition(text, integer) from public;
grant execute on function projection.create_generation_partition(text, integer) to listings_projector;

-- The name of a durable consumer follows from projection and generation.
alter table projection.generations add constraint generations_durable
    check (durable = projection || case generation when 1 then '' else '-' || generation end);
