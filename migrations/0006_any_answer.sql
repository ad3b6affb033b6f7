-- An idempotency key keeps any answer: the state of an aggregate, rendered again from the journal, or a document as it was answered.
alter table command.idempotency_keys
    alter column aggregate drop not null,
    alter column aggregate_id drop not null,
    alter column version drop not null,
    add column answer jsonb,
    add constraint idempotency_keys_one_answer check (
        num_nonnulls(aggregate, aggregate_id, version) = 3 and answer is null
        or num_nonnulls(aggregate, aggregate_id, version) = 0 and answer is not null),
    -- A status belongs to a transport. Each derives it from the command and its answer, so it is no longer written.
    alter column status drop not null;
