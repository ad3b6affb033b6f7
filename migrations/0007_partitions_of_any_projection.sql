-- A new projection needs no change of this function: its table has the projection's name. Only listing_catalog, which is older than this
-- rule, has a table of another name. What has no partitions by generation is refused as before.
create or replace function projection.create_generation_partition(projection text, generation integer) returns boolean
    language plpgsql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    parent  constant text := case projection when 'listing_catalog' then 'listings' else projection end;
    part    constant text := format('%s_%s', parent, generation);
    other   text;
begin
    if not exists (select from pg_partitioned_table p join pg_class c on c.oid = p.partrelid
                    where c.relnamespace = 'projection'::regnamespace and c.relname = parent and pg_get_partkeydef(c.oid) = 'LIST (generation)') then
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
