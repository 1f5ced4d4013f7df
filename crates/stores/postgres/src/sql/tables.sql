-- What tenure keeps in PostgreSQL (12 or newer). `tenure init` creates it; nothing else does.

CREATE SCHEMA IF NOT EXISTS {schema};

-- One row for the whole store.
CREATE TABLE IF NOT EXISTS {schema}.store (
    single  boolean PRIMARY KEY DEFAULT true CHECK (single),
    format  integer NOT NULL,   -- of these tables; a newer one is not touched
    store   text    NOT NULL,   -- random: another id is another store
    cluster text,               -- compared with ?cluster=
    clock   text    NOT NULL CHECK (clock IN ('server', 'observed')),   -- whose decides expiry
    floor   bigint  NOT NULL    -- the first token of a name without a row is above it
);

-- One row for each name that was ever granted; a released one stays as a tombstone.
CREATE TABLE IF NOT EXISTS {schema}.leases (
    namespace     text        COLLATE "C" NOT NULL,
    name          text        COLLATE "C" NOT NULL,
    writes        bigint      NOT NULL,   -- with the nonce: the record's version
    written       timestamptz NOT NULL,   -- when the holder last wrote it
    -- What every renewal writes anew; the rest of the row stays as it is.
    nonce         text        NOT NULL,
    ttl_ms        bigint      NOT NULL,
    not_before_ms bigint      NOT NULL,
    -- What the rules go by, so that none of them takes JSON apart.
    format        integer,
    token         bigint,
    claim         text,
    state         text,                   -- held, revoked, released
    holder        text,                   -- NAME#INCARNATION
    reserved      jsonb,                  -- whom a released name is kept for, and how long
    -- What is kept for others.
    asked         jsonb,                  -- an operator's order
    past          text        NOT NULL,   -- the last eight things that happened, a line of JSON each
    record        jsonb       NOT NULL,   -- who was granted what, and what newer releases add
    PRIMARY KEY (namespace, name)
) WITH (fillfactor = 70);                 -- room for the next version of a row on its own page

-- The highest token that each guarded resource has seen.
CREATE TABLE IF NOT EXISTS {schema}.high_water (
    resource text   COLLATE "C" PRIMARY KEY,
    token    bigint NOT NULL
);
