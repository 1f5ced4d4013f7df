-- The rules once more, for names that are shared with HAMode (`?layout=hamode`): its table has an
-- entry of each name, which moves with our record in one transaction. Our record stays the whole
-- truth among tenure's instances, with the layout or without; the functions here ask those of
-- functions.sql for it, and add what the entry says.
--
-- The table is the host's, so its name is a parameter. Entries are locked before records, and in
-- one order. A record is looked up by its key for each name, however a batch is joined to its
-- entries. A duration that is written for a neighbour to read is longer by the skew, and an
-- entry of a neighbour's is believed for so much longer: its clock wrote it, or will judge it.

-- By what id the neighbours know the holder of a record, or one that is written NAME#INCARNATION.
CREATE OR REPLACE FUNCTION {schema}.holder_id_1(holder text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN pg_catalog.left(holder, -33) || '/' || pg_catalog.right(holder, 32);
END $$;

-- How long a neighbour's entry keeps us out, in microseconds; null if it doesn't. One with the
-- id of our own last holder says nothing that our record doesn't say.
CREATE OR REPLACE FUNCTION {schema}.hamode_left_1(
    holder_id text, expires timestamptz, skew_ms bigint, ours text, me text
) RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $$
DECLARE
    left_us numeric := extract(epoch FROM least(greatest(expires, '1970-01-01Z'), '9999-01-01Z')
        - {schema}.clock()) * 1000000 + skew_ms * 1000;
BEGIN
    IF holder_id = ours OR holder_id = me OR left_us < 0 THEN
        RETURN NULL;
    END IF;
    RETURN left_us;
END $$;

-- Until when an entry of ours lasts for those who judge it by clocks of their own.
CREATE OR REPLACE FUNCTION {schema}.hamode_until_1(lasts_ms bigint, skew_ms bigint)
RETURNS timestamptz LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $$
BEGIN
    -- Not past what a timestamp can say: a century is as good as for ever.
    RETURN {schema}.clock() + least(lasts_ms + skew_ms, 3155760000000) * interval '1 ms';
END $$;

-- Some items of an array, by their numbers, which ascend: asked for all, it gives all.
CREATE OR REPLACE FUNCTION {schema}.picked_1(items anyarray, wanted bigint[]) RETURNS anyarray
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
BEGIN
    IF cardinality(wanted) = cardinality(items) THEN
        RETURN items;
    END IF;
    RETURN (SELECT array_agg(item ORDER BY number)
        FROM unnest(items) WITH ORDINALITY AS one(item, number)
        JOIN unnest(wanted) AS pick(number) USING (number));
END $$;

-- The entries of names. What names the table is planned at each call, so it is this alone.
CREATE OR REPLACE FUNCTION {schema}.hamode_entries_1(theirs text, names text[]) RETURNS TABLE (
    lease_name text, holder_id text, version bigint, acquired timestamptz, expires timestamptz
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format('SELECT lease_name::text, holder_id::text, version::bigint,
        acquired_at_utc, expires_at_utc FROM %s WHERE lease_name = ANY ($1)', theirs) USING names;
END $$;

-- Locks the entries of names, all or what nobody else has locked, and says whose they are.
CREATE OR REPLACE FUNCTION {schema}.hamode_lock_1(theirs text, names text[], skip boolean)
RETURNS text[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    locked text[];
BEGIN
    EXECUTE format('SELECT array_agg(lease_name) FROM (SELECT lease_name::text FROM %s
        WHERE lease_name = ANY ($1) ORDER BY lease_name COLLATE "C" FOR NO KEY UPDATE %s)
        AS locked', theirs, CASE WHEN skip THEN 'SKIP LOCKED' END) INTO locked USING names;
    RETURN coalesce(locked, '{}');
END $$;

-- What claims would come to as things are: 'free' where both sides say so.
CREATE OR REPLACE FUNCTION {schema}.hamode_claim_1(
    theirs text, skew_ms bigint, clock text, in_namespace text, names text[], holder_names text[],
    incarnations text[], claims text[], unanswered bigint[], watched text[]
) RETURNS TABLE (
    item bigint, outcome text, token bigint, version text, snapshot text, age bigint,
    neighbour text, entry_since bigint, entry_left bigint, entry_version text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT c.item, decided.outcome, l.token, l.writes || '-' || l.nonce,
            CASE WHEN l.name IS NOT NULL AND decided.outcome IN ('refused', 'unreadable')
                THEN {schema}.record_1(ROW(l.*)::{schema}.leases) END,
            aged.age, CASE WHEN left_us IS NOT NULL THEN t.holder_id END,
            (extract(epoch FROM t.acquired) * 1000)::bigint, left_us,
            t.version || '-' || t.holder_id
        FROM unnest(names, holder_names, incarnations, claims, unanswered, watched)
            WITH ORDINALITY
            AS c(name, holder_name, incarnation, claim, unanswered, watched, item)
        LEFT JOIN LATERAL (SELECT * FROM {schema}.leases AS own
            WHERE own.namespace = in_namespace AND own.name = c.name OFFSET 0) AS l ON true
        LEFT JOIN {schema}.hamode_entries_1(theirs, names) AS t ON t.lease_name = c.name
        CROSS JOIN LATERAL (SELECT {schema}.age_1(l.written, clock) AS age,
            c.holder_name || '/' || c.incarnation AS me OFFSET 0) AS aged
        CROSS JOIN LATERAL (SELECT {schema}.claim_1(ROW(l.*)::{schema}.leases, aged.age, c.holder_name,
            c.incarnation, c.claim, c.unanswered, c.watched) AS ours OFFSET 0) AS by_ours
        CROSS JOIN LATERAL (SELECT CASE WHEN ours IN ('free', 'found') THEN
            {schema}.hamode_left_1(t.holder_id, t.expires, skew_ms,
                {schema}.holder_id_1(l.holder), me) END AS left_us OFFSET 0) AS by_theirs
        CROSS JOIN LATERAL (SELECT CASE
            WHEN left_us IS NOT NULL THEN 'refused'
            -- What is found is held only as long as a renewal could prolong it.
            WHEN ours = 'found' AND (t.holder_id = me AND t.expires > {schema}.clock()) IS NOT TRUE
                THEN 'refused'
            ELSE ours END AS outcome) AS decided
        ORDER BY c.item;
END $$;

-- Grants what is free on both sides. A claim that is refused writes nothing, and waits for nobody.
CREATE OR REPLACE FUNCTION {schema}.hamode_acquire_1(
    their_schema text, their_table text, skew_ms bigint,
    expected_store text, in_namespace text, names text[], holder_names text[],
    incarnations text[], claims text[], nonces text[], ttls bigint[], min_holds bigint[],
    unanswered bigint[], watched text[], above bigint[], records text[], lines text[]
) RETURNS TABLE (
    item bigint, outcome text, token bigint, version text, snapshot text, age bigint,
    neighbour text, entry_since bigint, entry_left bigint, entry_version text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET lock_timeout = '250ms' SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    theirs  text := format('%I.%I', their_schema, their_table);
    about   {schema}.store := {schema}.opened_1(expected_store);
    until   timestamptz := clock_timestamp() + interval '250 ms';
    -- The numbers of the claims to look at: all that are undecided, then those whose entries are
    -- locked here, and again those that are still undecided.
    looked  bigint[] := ARRAY(SELECT generate_series(1, cardinality(names)) ORDER BY 1);
    free    bigint[];
    -- Those of them that have no entry yet.
    missing bigint[];
    waiting bigint[] := '{}';
    locks   boolean := false;
    locked  text[];
    each    record;
BEGIN
    LOOP
        free := '{}';
        missing := '{}';
        FOR each IN SELECT * FROM {schema}.hamode_claim_1(theirs, skew_ms, about.clock,
            in_namespace, {schema}.picked_1(names, looked),
            {schema}.picked_1(holder_names, looked), {schema}.picked_1(incarnations, looked),
            {schema}.picked_1(claims, looked), {schema}.picked_1(unanswered, looked),
            {schema}.picked_1(watched, looked))
        LOOP
            IF each.outcome = 'free' THEN
                free := free || looked[each.item];
                IF each.entry_version IS NULL THEN
                    missing := missing || looked[each.item];
                END IF;
                CONTINUE;
            END IF;
            item := looked[each.item];
            outcome := each.outcome;
            token := each.token;
            version := each.version;
            snapshot := each.snapshot;
            age := each.age;
            neighbour := each.neighbour;
            entry_since := each.entry_since;
            entry_left := each.entry_left;
            entry_version := each.entry_version;
            RETURN NEXT;
        END LOOP;
        neighbour := NULL;
        IF NOT locks AND free <> '{}' THEN
            -- Nobody can take what is locked here, and it is looked at once more. What another
            -- has locked is looked at in a moment.
            IF missing <> '{}' THEN
                EXECUTE format('INSERT INTO %s
                        (lease_name, holder_id, version, acquired_at_utc, expires_at_utc)
                    SELECT name, holder_name || ''/'' || incarnation, 0, $4, $4
                    FROM unnest($1, $2, $3) AS each(name, holder_name, incarnation)
                    ORDER BY name COLLATE "C" ON CONFLICT DO NOTHING', theirs)
                    USING {schema}.picked_1(names, missing),
                        {schema}.picked_1(holder_names, missing),
                        {schema}.picked_1(incarnations, missing), timestamptz '1970-01-01Z';
            END IF;
            locked := {schema}.hamode_lock_1(theirs, {schema}.picked_1(names, free), true);
            looked := ARRAY(SELECT item FROM unnest(free) AS one(item)
                JOIN unnest(names) WITH ORDINALITY AS each(name, item) USING (item)
                JOIN unnest(locked) AS ours(name) USING (name) ORDER BY 1);
            waiting := ARRAY(SELECT * FROM unnest(free) EXCEPT SELECT * FROM unnest(looked)
                ORDER BY 1);
            locks := true;
            CONTINUE WHEN looked <> '{}';
            free := '{}';
        END IF;
        IF free <> '{}' THEN
            looked := '{}';
            FOR each IN SELECT * FROM {schema}.acquire_1(expected_store, in_namespace,
                {schema}.picked_1(names, free), {schema}.picked_1(holder_names, free),
                {schema}.picked_1(incarnations, free), {schema}.picked_1(claims, free),
                {schema}.picked_1(nonces, free), {schema}.picked_1(ttls, free),
                {schema}.picked_1(min_holds, free), {schema}.picked_1(unanswered, free),
                {schema}.picked_1(watched, free), {schema}.picked_1(above, free),
                {schema}.picked_1(records, free), {schema}.picked_1(lines, free))
            LOOP
                item := free[each.item];
                outcome := each.outcome;
                token := each.token;
                version := each.version;
                snapshot := each.snapshot;
                age := each.age;
                IF outcome IN ('granted', 'found') THEN
                    looked := looked || item;
                END IF;
                RETURN NEXT;
            END LOOP;
            looked := ARRAY(SELECT * FROM unnest(looked) ORDER BY 1);
            EXECUTE format('UPDATE %s AS t SET version = t.version + 1, acquired_at_utc = $6,
                    holder_id = each.holder_name || ''/'' || each.incarnation,
                    expires_at_utc =
                        {schema}.hamode_until_1(greatest(each.ttl, each.min_hold), $7)
                FROM unnest($1, $2, $3, $4, $5)
                    AS each(name, holder_name, incarnation, ttl, min_hold)
                WHERE t.lease_name = each.name', theirs)
                USING {schema}.picked_1(names, looked), {schema}.picked_1(holder_names, looked),
                    {schema}.picked_1(incarnations, looked), {schema}.picked_1(ttls, looked),
                    {schema}.picked_1(min_holds, looked), {schema}.clock(), skew_ms;
        END IF;
        EXIT WHEN waiting = '{}';
        IF clock_timestamp() >= until THEN
            outcome := 'locked';
            FOREACH item IN ARRAY waiting LOOP
                RETURN NEXT;
            END LOOP;
            EXIT;
        END IF;
        PERFORM pg_sleep(0.002);
        looked := waiting;
        waiting := '{}';
        locks := false;
    END LOOP;
END $$;

-- Prolongs what is held on both sides. What a neighbour has taken or deleted is lost.
CREATE OR REPLACE FUNCTION {schema}.hamode_renew_1(
    their_schema text, their_table text, skew_ms bigint,
    expected_store text, in_namespace text, names text[], holders text[], claims text[],
    tokens bigint[], ttls bigint[], not_befores bigint[], nonces text[], unconfirmed bigint[]
) RETURNS TABLE (
    item bigint, version text, asked text, snapshot text, age bigint, shown bigint,
    neighbour text, entry_since bigint, entry_left bigint, entry_version text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    theirs  text := format('%I.%I', their_schema, their_table);
    kept    bigint[];
    renewed bigint[] := '{}';
    each    record;
    t       record;
BEGIN
    PERFORM {schema}.hamode_lock_1(theirs, names, false);
    kept := ARRAY(SELECT each.item FROM unnest(names, holders) WITH ORDINALITY AS each(name, holder, item)
        JOIN {schema}.hamode_entries_1(theirs, names) AS t ON t.lease_name = each.name
        WHERE t.holder_id = {schema}.holder_id_1(each.holder) AND t.expires > {schema}.clock());
    IF cardinality(kept) IS DISTINCT FROM cardinality(names) THEN
        -- No record has the claim null.
        claims := ARRAY(SELECT CASE WHEN found.item IS NOT NULL THEN claim END
            FROM unnest(claims) WITH ORDINALITY AS all_of_them(claim, item)
            LEFT JOIN unnest(kept) AS found(item) USING (item) ORDER BY item);
    END IF;
    FOR each IN
        SELECT * FROM {schema}.renew_1(expected_store, in_namespace, names, holders, claims,
            tokens, ttls, not_befores, nonces, unconfirmed)
    LOOP
        item := each.item;
        version := each.version;
        asked := each.asked;
        snapshot := each.snapshot;
        age := each.age;
        shown := each.shown;
        neighbour := NULL;
        IF snapshot IS NULL THEN
            renewed := renewed || item;
        ELSE
            SELECT * INTO t FROM {schema}.hamode_entries_1(theirs, ARRAY[names[item]]);
            entry_left := {schema}.hamode_left_1(t.holder_id, t.expires, skew_ms,
                (SELECT {schema}.holder_id_1(l.holder) FROM {schema}.leases AS l
                    WHERE l.namespace = in_namespace AND l.name = names[item]),
                {schema}.holder_id_1(holders[item]));
            neighbour := CASE WHEN entry_left IS NOT NULL THEN t.holder_id END;
            entry_since := (extract(epoch FROM t.acquired) * 1000)::bigint;
            entry_version := t.version || '-' || t.holder_id;
        END IF;
        RETURN NEXT;
    END LOOP;
    EXECUTE format('UPDATE %s AS t SET version = t.version + 1, acquired_at_utc = $5,
            expires_at_utc = {schema}.hamode_until_1(greatest(each.ttl, each.not_before), $6)
        FROM unnest($1, $2, $3) WITH ORDINALITY AS each(name, ttl, not_before, item)
        JOIN unnest($4) AS renewed(item) USING (item)
        WHERE t.lease_name = each.name', theirs)
        USING names, ttls, not_befores, renewed, {schema}.clock(), skew_ms;
END $$;

-- Gives back what is held, and frees the entries that are still ours: at once, or when min-hold
-- or a reservation has passed, which keep the neighbours out, too. An entry is never deleted.
CREATE OR REPLACE FUNCTION {schema}.hamode_release_1(
    their_schema text, their_table text, skew_ms bigint,
    expected_store text, in_namespace text, names text[], holders text[], claims text[],
    tokens bigint[], nonces text[], reservations text[], lines text[]
) RETURNS TABLE (
    item bigint, version text, snapshot text, age bigint,
    neighbour text, entry_since bigint, entry_left bigint, entry_version text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    theirs   text := format('%I.%I', their_schema, their_table);
    released bigint[] := '{}';
    lasts    bigint[];
    each     record;
BEGIN
    PERFORM {schema}.hamode_lock_1(theirs, names, false);
    FOR each IN
        SELECT * FROM {schema}.release_1(expected_store, in_namespace, names, holders, claims,
            tokens, nonces, reservations, lines)
    LOOP
        item := each.item;
        version := each.version;
        snapshot := each.snapshot;
        age := each.age;
        IF snapshot IS NULL THEN
            released := released || item;
        END IF;
        RETURN NEXT;
    END LOOP;
    lasts := ARRAY(SELECT greatest(l.not_before_ms,
            (each.reserved::jsonb ->> 'lasts_ms')::bigint)
        FROM unnest({schema}.picked_1(names, released), {schema}.picked_1(reservations, released))
            WITH ORDINALITY AS each(name, reserved, item)
        CROSS JOIN LATERAL (SELECT own.not_before_ms FROM {schema}.leases AS own
            WHERE own.namespace = in_namespace AND own.name = each.name OFFSET 0) AS l
        ORDER BY each.item);
    EXECUTE format('UPDATE %s AS t SET version = t.version + 1, expires_at_utc =
            CASE WHEN each.ms > 0 THEN {schema}.hamode_until_1(each.ms, $4) ELSE $5 END
        FROM unnest($1, $2, $3) AS each(name, holder, ms)
        WHERE t.lease_name = each.name AND t.holder_id = {schema}.holder_id_1(each.holder)', theirs)
        USING {schema}.picked_1(names, released), {schema}.picked_1(holders, released), lasts,
            skew_ms, timestamptz '1970-01-01Z';
END $$;

-- Reads records, and what a neighbour holds while ours is free.
CREATE OR REPLACE FUNCTION {schema}.hamode_read_1(
    their_schema text, their_table text, skew_ms bigint,
    expected_store text, in_namespace text, names text[]
) RETURNS TABLE (
    item bigint, version text, snapshot text, age bigint,
    neighbour text, entry_since bigint, entry_left bigint, entry_version text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    theirs text := format('%I.%I', their_schema, their_table);
    about  {schema}.store := {schema}.opened_1(expected_store);
BEGIN
    RETURN QUERY
        SELECT each.item, l.writes || '-' || l.nonce,
            CASE WHEN l.name IS NOT NULL THEN {schema}.record_1(ROW(l.*)::{schema}.leases) END, aged.age,
            CASE WHEN left_us IS NOT NULL THEN t.holder_id END,
            (extract(epoch FROM t.acquired) * 1000)::bigint, left_us,
            t.version || '-' || t.holder_id
        FROM unnest(names) WITH ORDINALITY AS each(name, item)
        LEFT JOIN LATERAL (SELECT * FROM {schema}.leases AS own
            WHERE own.namespace = in_namespace AND own.name = each.name OFFSET 0) AS l ON true
        LEFT JOIN {schema}.hamode_entries_1(theirs, names) AS t ON t.lease_name = each.name
        CROSS JOIN LATERAL (SELECT {schema}.age_1(l.written, about.clock) AS age) AS aged
        CROSS JOIN LATERAL (SELECT CASE
            WHEN t.lease_name IS NULL
                OR l.state IN ('held', 'revoked') AND aged.age < l.ttl_ms * 1000 THEN NULL
            ELSE {schema}.hamode_left_1(t.holder_id, t.expires, skew_ms,
                {schema}.holder_id_1(l.holder), NULL) END AS left_us) AS entry
        WHERE l.name IS NOT NULL OR left_us IS NOT NULL;
END $$;

-- Lists records as list_1 does, and among them what only a neighbour holds. Names of theirs that
-- can't be ours are left out.
CREATE OR REPLACE FUNCTION {schema}.hamode_list_1(
    their_schema text, their_table text, skew_ms bigint,
    expected_store text, in_namespace text, first text, after text, last text, most bigint
) RETURNS TABLE (
    name text, version text, snapshot text, age bigint,
    neighbour text, entry_since bigint, entry_left bigint, entry_version text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET jit = off AS $$
#variable_conflict use_column
DECLARE
    theirs text := format('%I.%I', their_schema, their_table);
    listed text[];
BEGIN
    EXECUTE format('SELECT array_agg(name ORDER BY name COLLATE "C") FROM (
            SELECT name FROM (
                SELECT l.name::text COLLATE "C" FROM {schema}.leases AS l
                    WHERE l.namespace = $1
                UNION
                SELECT t.lease_name COLLATE "C" FROM %s AS t
                    LEFT JOIN {schema}.leases AS l
                        ON l.namespace = $1 AND l.name = t.lease_name COLLATE "C"
                    WHERE octet_length(t.lease_name) BETWEEN 1 AND 255
                        AND t.lease_name !~ ''^@|[\u0001-\u001f\u007f-\u009f]''
                        AND {schema}.hamode_left_1(t.holder_id, t.expires_at_utc, $6,
                            {schema}.holder_id_1(l.holder), NULL) IS NOT NULL
            ) AS known(name)
            WHERE name >= $2 AND ($3 IS NULL OR name > $3) AND ($4 IS NULL OR name < $4)
            ORDER BY name LIMIT $5
        ) AS listed', theirs)
        INTO listed USING in_namespace, first, after, last, most, skew_ms;
    RETURN QUERY
        SELECT listed[r.item], r.version, r.snapshot, r.age, r.neighbour, r.entry_since,
            r.entry_left, r.entry_version
        FROM {schema}.hamode_read_1(their_schema, their_table, skew_ms, expected_store,
            in_namespace, coalesce(listed, '{}')) AS r
        ORDER BY r.item;
END $$;

-- Puts an operator's change on a record. An entry goes with a grant that is ended at once.
CREATE OR REPLACE FUNCTION {schema}.hamode_swap_1(
    their_schema text, their_table text, skew_ms bigint,
    expected_store text, in_namespace text, in_name text, expected_version text,
    new_nonce text, new_not_before bigint, new_record text
) RETURNS TABLE (version text, age bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    theirs  text := format('%I.%I', their_schema, their_table);
    swapped record;
BEGIN
    EXECUTE format('SELECT FROM %s WHERE lease_name = $1 FOR NO KEY UPDATE', theirs)
        USING in_name;
    FOR swapped IN
        SELECT * FROM {schema}.swap_1(expected_store, in_namespace, in_name, expected_version,
            new_nonce, new_not_before, new_record)
    LOOP
        version := swapped.version;
        age := swapped.age;
        RETURN NEXT;
    END LOOP;
    IF version IS NOT NULL AND new_record::jsonb -> 'state' ->> 'is' = 'released' THEN
        EXECUTE format('UPDATE %s AS t SET version = t.version + 1, expires_at_utc = $3
            FROM {schema}.leases AS l WHERE l.namespace = $1 AND l.name = $2
                AND t.lease_name = $2 AND t.holder_id = {schema}.holder_id_1(l.holder)', theirs)
            USING in_namespace, in_name, timestamptz '1970-01-01Z';
    END IF;
END $$;
