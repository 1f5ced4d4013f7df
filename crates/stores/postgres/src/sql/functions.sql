-- The rules of tenure's protocol, as `tenure_core::decide` states them, in the one place where
-- they are atomic. They are functions so that each request is one short statement: one round
-- trip, no prepared statement that a pooler between could mix up, and the same for programs in
-- any language.
--
-- They go by their index even where a table was just made and the planner believes it empty; what
-- it then thinks a plain scan costs must not make it compile each statement. Their plans are
-- generic: for a single name the planner thinks a plan of its own cheaper, and so makes one at
-- each call, which took longer than the call. A plan that was made for a young table is kept when
-- it has grown, so only one is left to choose: each name of a batch is looked up in the index by
-- namespace and name. Joined in another way, the renewal of one name was seen to read them all.
-- Batches lock rows in the order of names, so that no two can wait for each other.
--
-- Durations are in milliseconds, ages in microseconds. The number at the end of a name is the
-- version of its parameters: a newer release adds others, and leaves these to the older one.

-- A function in SQL that is a mere expression becomes a part of each plan that names it, unless it
-- has a search path of its own. All others are in plpgsql, whose plans last as long as a
-- connection: in SQL they would be planned anew at each call.

-- The clock that decides expiry.
CREATE OR REPLACE FUNCTION {schema}.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp()';

-- A token survives its row: the floor is raised when a row is deleted, by whomever.
CREATE OR REPLACE FUNCTION {schema}.raise_floor() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE {schema}.store SET floor = greatest(floor, (SELECT max(token) FROM {schema}.leases));
        RETURN NULL;
    END IF;
    UPDATE {schema}.store SET floor = OLD.token WHERE floor < OLD.token;
    RETURN OLD;
END $$;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger
        WHERE tgrelid = '{schema}.leases'::regclass AND tgname = 'raise_floor')
    THEN
        CREATE TRIGGER raise_floor BEFORE DELETE ON {schema}.leases
            FOR EACH ROW EXECUTE FUNCTION {schema}.raise_floor();
        CREATE TRIGGER raise_floor_truncated BEFORE TRUNCATE ON {schema}.leases
            FOR EACH STATEMENT EXECUTE FUNCTION {schema}.raise_floor();
    END IF;
END $$;

-- This store's row, if it is the store that the session believes in.
CREATE OR REPLACE FUNCTION {schema}.opened_1(expected text) RETURNS {schema}.store
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    about {schema}.store;
BEGIN
    SELECT * INTO about FROM {schema}.store WHERE single;
    IF about.store IS DISTINCT FROM expected THEN
        RAISE EXCEPTION USING ERRCODE = 'TN001', MESSAGE = coalesce(about.store, 'none');
    END IF;
    RETURN about;
END $$;

-- The whole record as JSON. What somebody made of `past` by hand breaks its reading, not ours.
CREATE OR REPLACE FUNCTION {schema}.record_1(l {schema}.leases) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
BEGIN
    RETURN left((l.record || jsonb_strip_nulls(jsonb_build_object(
            'nonce', l.nonce, 'ttl_ms', l.ttl_ms, 'not_before_ms', l.not_before_ms,
            'format', l.format, 'token', l.token, 'claim', l.claim, 'order', l.asked,
            'state', CASE WHEN l.state IS NOT NULL
                THEN jsonb_build_object('is', l.state, 'reserved_for', l.reserved) END)))::text, -1)
        || ', "transitions": [' || rtrim(replace(l.past, E'\n', ','), ',') || ']}';
END $$;

-- A row after a whole record was put into it.
CREATE OR REPLACE FUNCTION {schema}.stored_1(l {schema}.leases, whole jsonb)
RETURNS {schema}.leases LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
BEGIN
    l.format := whole ->> 'format';
    l.token := whole ->> 'token';
    l.claim := whole ->> 'claim';
    l.state := whole -> 'state' ->> 'is';
    l.holder := (whole -> 'holder' ->> 'name') || '#' || (whole -> 'holder' ->> 'incarnation');
    l.reserved := whole -> 'state' -> 'reserved_for';
    l.asked := whole -> 'order';
    l.past := coalesce((SELECT string_agg(line::text || E'\n', '' ORDER BY number)
        FROM jsonb_array_elements(whole -> 'transitions') WITH ORDINALITY AS one(line, number)), '');
    l.record := whole - '{nonce,ttl_ms,not_before_ms,format,token,claim,state,order,transitions}'::text[];
    RETURN l;
END $$;

-- How long ago its holder wrote it. Null: no clock that may be compared.
CREATE OR REPLACE FUNCTION {schema}.age_1(written timestamptz, clock text) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN clock = 'server' THEN greatest(0,
        (extract(epoch FROM {schema}.clock() - written) * 1000000)::bigint) END
$$;

-- What happened, with one line more: the last eight are kept.
CREATE OR REPLACE FUNCTION {schema}.push_1(past text, line text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN pg_catalog.length(past)
            - pg_catalog.length(pg_catalog.replace(past, E'\n', '')) < 8 THEN past
        ELSE pg_catalog.substr(past, pg_catalog.strpos(past, E'\n') + 1) END || line || E'\n'
$$;

-- `decide::claim`: 'free', 'found', 'refused', or 'unreadable' for a record of another format.
CREATE OR REPLACE FUNCTION {schema}.claim_1(
    l {schema}.leases, age bigint, contender_name text, contender_incarnation text,
    claim_id text, unanswered_for bigint, watched text
) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    blocks bigint;
BEGIN
    IF l.name IS NULL THEN
        RETURN 'free';
    END IF;
    IF l.format IS DISTINCT FROM 1 OR l.token IS NULL OR l.state IS NULL THEN
        RETURN 'unreadable';
    END IF;
    IF l.claim = claim_id THEN
        IF l.holder = contender_name || '#' || contender_incarnation AND l.state = 'held'
            AND coalesce(age, unanswered_for) < l.ttl_ms * 1000
        THEN
            RETURN 'found';
        END IF;
        RETURN 'refused';
    END IF;
    IF l.state IN ('held', 'revoked') THEN
        blocks := l.ttl_ms;
    ELSE
        blocks := 0;
        IF l.reserved IS NOT NULL AND NOT (
            l.reserved -> 'successor' ->> 'name' = contender_name
            AND coalesce(l.reserved -> 'successor' ->> 'incarnation' = contender_incarnation, true)
        ) THEN
            blocks := (l.reserved ->> 'lasts_ms')::bigint;
        END IF;
    END IF;
    blocks := greatest(blocks, l.not_before_ms) * 1000;
    IF blocks = 0 OR age >= blocks OR (age IS NULL AND watched = l.writes || '-' || l.nonce) THEN
        RETURN 'free';
    END IF;
    RETURN 'refused';
END $$;

-- Grants what is free. A claim that is refused writes nothing and locks nothing.
--
-- A new grant takes its row FOR UPDATE, which a guard's FOR KEY SHARE holds off; renewals take
-- FOR NO KEY UPDATE, which it doesn't. The rule is asked of the row that is being locked, so what
-- is free is granted by the first statement; what isn't is looked at for an answer.
CREATE OR REPLACE FUNCTION {schema}.acquire_1(
    expected_store text, in_namespace text, names text[], holder_names text[],
    incarnations text[], claims text[], nonces text[], ttls bigint[], min_holds bigint[],
    unanswered bigint[], watched text[], above bigint[], records text[], lines text[]
) RETURNS TABLE (item bigint, outcome text, token bigint, version text, snapshot text, age bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET lock_timeout = '250ms' SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    about  {schema}.store;
    c      record;
    l      {schema}.leases;
    old    bigint;
    used   bigint;
    until  timestamptz;
BEGIN
    FOR c IN
        SELECT * FROM unnest(names, holder_names, incarnations, claims, nonces, ttls, min_holds,
            unanswered, watched, above, records, lines) WITH ORDINALITY
            AS each(name, holder_name, incarnation, claim, nonce, ttl, min_hold, unanswered,
                watched, above, record, line, item)
        ORDER BY each.name COLLATE "C"
    LOOP
        item := c.item;
        until := NULL;
        LOOP
            UPDATE {schema}.leases AS l SET
                writes = l.writes + 1, written = {schema}.clock(), nonce = c.nonce,
                ttl_ms = c.ttl, not_before_ms = c.min_hold,
                token = greatest(l.token, c.above) + 1, claim = c.claim, state = 'held',
                holder = c.holder_name || '#' || c.incarnation, reserved = NULL, asked = NULL,
                past = {schema}.push_1(l.past, c.line
                    || ',"token":' || greatest(l.token, c.above) + 1
                    || CASE WHEN l.state = 'released' THEN ',"why":"it was free"}'
                        ELSE ',"why":"the grant before had ended"}' END),
                record = (l.record - '{name,holder,acquired_at,bound_to,metadata}'::text[])
                    || c.record::jsonb
            FROM (SELECT FROM {schema}.leases AS seen, {schema}.store AS s
                WHERE s.single AND s.store = expected_store
                    AND seen.namespace = in_namespace AND seen.name = c.name
                    AND {schema}.claim_1(seen, {schema}.age_1(seen.written, s.clock),
                        c.holder_name, c.incarnation, c.claim, c.unanswered, c.watched) = 'free'
                    AND greatest(seen.token, c.above) < 9223372036854775807
                FOR UPDATE OF seen SKIP LOCKED) AS free
            WHERE l.namespace = in_namespace AND l.name = c.name
            RETURNING 'granted', l.token, l.writes || '-' || l.nonce INTO outcome, token, version;
            EXIT WHEN FOUND;
            about := {schema}.opened_1(expected_store);
            SELECT * INTO l FROM {schema}.leases
                WHERE namespace = in_namespace AND name = c.name;
            old := {schema}.age_1(l.written, about.clock);
            outcome := {schema}.claim_1(l, old, c.holder_name, c.incarnation, c.claim,
                c.unanswered, c.watched);
            EXIT WHEN outcome <> 'free';
            used := l.token;
            IF l.name IS NULL THEN
                -- A purge raises the floor before it deletes: it must not fall between the two.
                SELECT floor INTO used FROM {schema}.store WHERE single FOR SHARE;
            END IF;
            used := greatest(used, c.above);
            IF used = 9223372036854775807 THEN
                RAISE EXCEPTION USING ERRCODE = 'TN004', MESSAGE = c.name;
            END IF;
            IF l.name IS NULL THEN
                INSERT INTO {schema}.leases AS l
                    (namespace, name, writes, written, nonce, ttl_ms, not_before_ms, format, token,
                        claim, state, holder, past, record)
                VALUES (in_namespace, c.name, 1, {schema}.clock(), c.nonce, c.ttl, c.min_hold, 1,
                    used + 1, c.claim, 'held', c.holder_name || '#' || c.incarnation,
                    c.line || ',"token":' || used + 1 || E',"why":"first grant"}\n',
                    c.record::jsonb)
                -- What appeared meanwhile is looked at again.
                ON CONFLICT (namespace, name) DO NOTHING
                RETURNING 'granted', l.token, l.writes || '-' || l.nonce INTO outcome, token, version;
                EXIT WHEN FOUND;
                CONTINUE;
            END IF;
            -- Locked by another, by a guard perhaps; changed; or purged. Look again.
            outcome := 'locked';
            until := coalesce(until, clock_timestamp() + interval '250 ms');
            EXIT WHEN clock_timestamp() >= until;
            PERFORM pg_sleep(0.002);
        END LOOP;
        age := NULL;
        snapshot := NULL;
        IF outcome = 'granted' THEN
            PERFORM pg_notify('{channel}', in_namespace || E'\x1f' || c.name);
        ELSE
            token := l.token;
            version := l.writes || '-' || l.nonce;
            age := old;
            IF outcome IN ('refused', 'unreadable') THEN
                snapshot := {schema}.record_1(l);
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Prolongs what is held, and tells what is there instead of what isn't.
CREATE OR REPLACE FUNCTION {schema}.renew_1(
    expected_store text, in_namespace text, names text[], holders text[], claims text[],
    tokens bigint[], ttls bigint[], not_befores bigint[], nonces text[], unconfirmed bigint[]
) RETURNS TABLE (
    item bigint, version text, asked text, snapshot text, age bigint, shown bigint
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    about   {schema}.store;
    renewed bigint;
BEGIN
    RETURN QUERY
        UPDATE {schema}.leases AS l SET
            writes = l.writes + 1, written = {schema}.clock(), nonce = each.nonce,
            ttl_ms = each.ttl, not_before_ms = each.not_before
        FROM {schema}.store AS s, (SELECT in_namespace AS namespace, *
            FROM unnest(names, holders, claims, tokens, ttls, not_befores, nonces, unconfirmed)
                WITH ORDINALITY
                AS one(name, holder, claim, token, ttl, not_before, nonce, unconfirmed, item)
            ORDER BY name COLLATE "C" OFFSET 0) AS each
        WHERE s.single AND s.store = expected_store
            AND l.namespace = each.namespace AND l.name = each.name
            AND l.claim = each.claim AND l.token = each.token AND l.holder = each.holder
            AND l.state = 'held' AND l.format = 1
            -- Where a store's clock and the holder's own both speak, the earlier end counts.
            AND each.unconfirmed < l.ttl_ms * 1000
            AND coalesce({schema}.age_1(l.written, s.clock) < l.ttl_ms * 1000, true)
        RETURNING each.item, l.writes || '-' || l.nonce,
            CASE WHEN l.asked -> 'demand' ->> 'is' = 'resign' THEN l.asked::text END,
            NULL::text, NULL::bigint, (extract(epoch FROM l.written) * 1000000)::bigint;
    GET DIAGNOSTICS renewed = ROW_COUNT;
    IF renewed < cardinality(names) THEN
        about := {schema}.opened_1(expected_store);
        RETURN QUERY
            SELECT each.item, l.writes || '-' || l.nonce, NULL, {schema}.record_1(l),
                {schema}.age_1(l.written, about.clock),
                (extract(epoch FROM {schema}.clock()) * 1000000)::bigint
            FROM (SELECT in_namespace AS namespace, *
                FROM unnest(names) WITH ORDINALITY AS one(name, item) OFFSET 0) AS each
            JOIN {schema}.leases AS l ON l.namespace = each.namespace AND l.name = each.name
            -- But for what this very transaction has written.
            WHERE l.xmin::text::bigint <> txid_current() & 4294967295;
    END IF;
END $$;

-- Gives back what is held, and leaves tombstones.
CREATE OR REPLACE FUNCTION {schema}.release_1(
    expected_store text, in_namespace text, names text[], holders text[], claims text[],
    tokens bigint[], nonces text[], reservations text[], lines text[]
) RETURNS TABLE (item bigint, version text, snapshot text, age bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    about    {schema}.store;
    released bigint;
BEGIN
    RETURN QUERY
        UPDATE {schema}.leases AS l SET
            writes = l.writes + 1, written = {schema}.clock(), nonce = each.nonce,
            -- Min-hold lives on in the tombstone, unless a successor is named.
            not_before_ms = CASE WHEN l.not_before_ms = 0 OR each.reserved IS NOT NULL THEN 0
                ELSE greatest(0, l.not_before_ms
                    - coalesce({schema}.age_1(l.written, s.clock), 0) / 1000) END,
            state = 'released', reserved = each.reserved::jsonb, asked = NULL,
            past = {schema}.push_1(l.past, each.line)
        FROM {schema}.store AS s, (SELECT in_namespace AS namespace, *
            FROM unnest(names, holders, claims, tokens, nonces, reservations, lines)
                WITH ORDINALITY
                AS one(name, holder, claim, token, nonce, reserved, line, item)
            ORDER BY name COLLATE "C" OFFSET 0) AS each
        WHERE s.single AND s.store = expected_store
            AND l.namespace = each.namespace AND l.name = each.name
            AND l.claim = each.claim AND l.token = each.token AND l.holder = each.holder
            AND l.state <> 'released' AND l.format = 1
        RETURNING each.item, l.writes || '-' || l.nonce, NULL::text, NULL::bigint;
    GET DIAGNOSTICS released = ROW_COUNT;
    IF released > 0 THEN
        PERFORM pg_notify('{channel}', in_namespace || E'\x1f' || each)
            FROM unnest(names) AS each LIMIT 64;
    END IF;
    IF released > 64 THEN
        PERFORM pg_notify('{channel}', '');
    END IF;
    IF released < cardinality(names) THEN
        about := {schema}.opened_1(expected_store);
        RETURN QUERY
            SELECT each.item, l.writes || '-' || l.nonce, {schema}.record_1(l),
                {schema}.age_1(l.written, about.clock)
            FROM (SELECT in_namespace AS namespace, *
                FROM unnest(names) WITH ORDINALITY AS one(name, item) OFFSET 0) AS each
            JOIN {schema}.leases AS l ON l.namespace = each.namespace AND l.name = each.name
            -- But for what this very transaction has written.
            WHERE l.xmin::text::bigint <> txid_current() & 4294967295;
    END IF;
END $$;

-- Reads records by name.
CREATE OR REPLACE FUNCTION {schema}.read_1(expected_store text, in_namespace text, names text[])
RETURNS TABLE (item bigint, version text, snapshot text, age bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    about {schema}.store := {schema}.opened_1(expected_store);
BEGIN
    RETURN QUERY
        SELECT each.item, l.writes || '-' || l.nonce, {schema}.record_1(l),
            {schema}.age_1(l.written, about.clock)
        FROM (SELECT in_namespace AS namespace, *
            FROM unnest(names) WITH ORDINALITY AS one(name, item) OFFSET 0) AS each
        JOIN {schema}.leases AS l ON l.namespace = each.namespace AND l.name = each.name;
END $$;

-- Lists records from `first` on and before `last`, in byte order of their names.
CREATE OR REPLACE FUNCTION {schema}.list_1(
    expected_store text, in_namespace text, first text, after text, last text, most bigint
) RETURNS TABLE (name text, version text, snapshot text, age bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    about {schema}.store := {schema}.opened_1(expected_store);
BEGIN
    RETURN QUERY
        SELECT l.name::text, l.writes || '-' || l.nonce, {schema}.record_1(l),
            {schema}.age_1(l.written, about.clock)
        FROM {schema}.leases AS l
        WHERE l.namespace = in_namespace AND l.name >= first
            AND (after IS NULL OR l.name > after) AND (last IS NULL OR l.name < last)
        ORDER BY l.namespace, l.name LIMIT most;
END $$;

-- Puts an operator's change on a record that is still as it was read. Its age stays.
CREATE OR REPLACE FUNCTION {schema}.swap_1(
    expected_store text, in_namespace text, in_name text, expected_version text,
    new_nonce text, new_not_before bigint, new_record text
) RETURNS TABLE (version text, age bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    about {schema}.store := {schema}.opened_1(expected_store);
BEGIN
    RETURN QUERY
        UPDATE {schema}.leases AS l SET
            writes = l.writes + 1, nonce = new_nonce, not_before_ms = new_not_before,
            (format, token, claim, state, holder, reserved, asked, past, record) = (
                SELECT format, token, claim, state, holder, reserved, asked, past, record
                FROM {schema}.stored_1(l, new_record::jsonb))
        WHERE l.namespace = in_namespace AND l.name = in_name
            AND l.writes || '-' || l.nonce = expected_version
        RETURNING l.writes || '-' || l.nonce, {schema}.age_1(l.written, about.clock);
    IF FOUND THEN
        PERFORM pg_notify('{channel}', in_namespace || E'\x1f' || in_name);
    END IF;
END $$;

-- Lets a transaction go on only while the grant with this token is in force, and holds off the
-- next grant of the name until the transaction has ended. Renewals go on meanwhile.
CREATE OR REPLACE FUNCTION {schema}.guard_1(
    expected_store text, in_namespace text, in_name text, in_token bigint
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    about {schema}.store;
    l     {schema}.leases;
    old   bigint;
    why   text;
BEGIN
    IF expected_store IS NULL THEN
        SELECT * INTO about FROM {schema}.store WHERE single;
    ELSE
        about := {schema}.opened_1(expected_store);
    END IF;
    SELECT * INTO l FROM {schema}.leases
        WHERE namespace = in_namespace AND name = in_name FOR KEY SHARE;
    old := {schema}.age_1(l.written, about.clock);
    why := CASE
        WHEN l.name IS NULL THEN format('`%s` was never granted', in_name)
        WHEN l.token IS DISTINCT FROM in_token
            THEN format('the grant in force has token %s', l.token)
        WHEN l.state = 'revoked' THEN 'an operator has revoked the grant'
        WHEN l.state IS DISTINCT FROM 'held' THEN 'the grant was given back'
        WHEN old IS NULL THEN 'no clock says whether the grant has expired'
        WHEN old >= l.ttl_ms * 1000 THEN format('the grant expired %s ms ago',
            old / 1000 - l.ttl_ms)
    END;
    IF why IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TN002', MESSAGE = why;
    END IF;
END $$;

-- The same for programs without a session of tenure's: SELECT {schema}.guard('name', token).
CREATE OR REPLACE FUNCTION {schema}.guard(
    in_name text, in_token bigint, in_namespace text DEFAULT 'default'
) RETURNS void LANGUAGE sql VOLATILE AS
    'SELECT {schema}.guard_1(NULL, in_namespace, in_name, in_token)';

-- The high-water mark of a resource: lets no older token through after a newer one.
CREATE OR REPLACE FUNCTION {schema}.admit(in_resource text, in_token bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $$
DECLARE
    newest bigint;
BEGIN
    INSERT INTO {schema}.high_water AS seen (resource, token) VALUES (in_resource, in_token)
    ON CONFLICT (resource) DO UPDATE SET token = greatest(seen.token, excluded.token)
    RETURNING token INTO newest;
    IF newest > in_token THEN
        RAISE EXCEPTION USING ERRCODE = 'TN003', MESSAGE = newest::text;
    END IF;
END $$;
