with listing as (
    insert into command.listings as held (id, version, seller_id, external_id, status, state, deleted_at)
    select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::jsonb[], $7::timestamptz[])
    on conflict (id) do update
       set version = excluded.version, external_id = excluded.external_id, status = excluded.status,
           state = excluded.state, deleted_at = excluded.deleted_at
), stock as (
    insert into command.stock (variant_id, listing_id, seller_id, on_hand, reserved, low_stock_threshold, version,
                               updated_at, removed_at)
    select * from unnest($8::uuid[], $9::uuid[], $10::uuid[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
                         $15::timestamptz[], $16::timestamptz[])
    on conflict (variant_id) do update
       set on_hand = excluded.on_hand, reserved = excluded.reserved, low_stock_threshold = excluded.low_stock_threshold,
           version = excluded.version, updated_at = excluded.updated_at, removed_at = excluded.removed_at
), journal as (
    insert into command.events (aggregate, aggregate_id, version, event_id, type, headers, body)
    select aggregate, aggregate_id, version, event_id, type, headers, body
      from unnest($17::text[], $18::uuid[], $19::bigint[], $20::uuid[], $21::text[], $22::jsonb[], $23::bytea[])
           with ordinality as fact (aggregate, aggregate_id, version, event_id, type, headers, body, place)
     order by place
    returning seq, aggregate_id
)
-- The shard is the id's last byte mod 16 (PROTOCOL W4).
insert into command.outbox (shard, seq) select (get_byte(uuid_send(aggregate_id), 15) % 16)::smallint, seq from journal
