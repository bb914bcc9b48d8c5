-- A mail that was refused because of its size is the one that a backfill must fetch: one message may be as large as an
-- edited body. Several at once stay below 16 MiB.

-- What is wrong with messages that are to be stored as dead letters; NULL if nothing is.
CREATE OR REPLACE FUNCTION relay.fault_of_backfill(ids text[], conversations text[], bodies bytea[]) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF ids IS NULL OR array_ndims(ids) > 1 OR array_ndims(conversations) > 1 OR array_ndims(bodies) > 1
       OR cardinality(ids) IS DISTINCT FROM cardinality(bodies)
       OR cardinality(ids) IS DISTINCT FROM cardinality(conversations) THEN
        RETURN 'it needs one conversation and one body for each id';
    ELSIF cardinality(ids) > 500 THEN
        RETURN 'more than 500 messages at once';
    ELSIF EXISTS (SELECT FROM unnest(ids) AS given(id) WHERE given.id IS NULL
                     OR given.id !~ '^backfill-[1-9][0-9]{0,18}-[1-9][0-9]{0,18}$') THEN
        RETURN 'an id is not backfill-ACCOUNT-MESSAGE';
    ELSIF (SELECT count(DISTINCT id) FROM unnest(ids) AS id) < cardinality(ids) THEN
        RETURN 'the same message is named twice';
    ELSIF EXISTS (SELECT FROM unnest(bodies) AS body WHERE length(body) > 67108864) THEN
        RETURN 'a body is larger than 64 MiB';
    ELSIF cardinality(ids) > 1 AND (SELECT sum(length(body)) FROM unnest(bodies) AS body) > 16777216 THEN
        RETURN 'more than 16 MiB at once';
    ELSIF EXISTS (
        SELECT FROM unnest(ids, conversations, bodies) AS g(id, conversation, body)
          LEFT JOIN LATERAL (SELECT relay.payload(g.body) AS payload OFFSET 0) AS p ON true
         WHERE NOT coalesce(jsonb_typeof(p.payload) = 'object'
               AND p.payload ->> 'event' = 'message_created'
               AND p.payload ->> 'message_type' IN ('incoming', '0')
               AND coalesce(p.payload ->> 'private', 'false') = 'false'
               AND jsonb_typeof(p.payload -> 'id') = 'number'
               AND jsonb_typeof(p.payload #> '{account,id}') = 'number'
               AND g.id = format('backfill-%s-%s', p.payload #>> '{account,id}', p.payload ->> 'id')
               AND g.conversation ~ '^[1-9][0-9]{0,18}$'
               AND p.payload #>> '{conversation,id}' = g.conversation, false)) THEN
        RETURN 'a body is not the message_created of a customer''s message with this account, id and conversation';
    END IF;
    RETURN NULL;
END
$$;
