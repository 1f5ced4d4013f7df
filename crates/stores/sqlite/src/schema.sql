-- What tenure keeps in an SQLite file. It may be the application's own database: a guard then
-- checks the lease in the transaction that it protects.

-- One row for the whole file.
CREATE TABLE IF NOT EXISTS tenure_store (
    only        INTEGER PRIMARY KEY CHECK (only = 1),
    format      INTEGER NOT NULL,   -- of these tables; a newer one is not touched
    store       TEXT    NOT NULL,   -- random: another id is another store
    cluster     TEXT,               -- compared with ?cluster=
    last_token  INTEGER NOT NULL,   -- the floor of all tokens, also of a record deleted by hand
    transitions INTEGER NOT NULL    -- moves with grants, releases and orders, not with renewals
) STRICT;

-- One row for each name that was ever granted; a released one stays as a tombstone.
-- Names are blobs, so that they compare by their bytes in every encoding of a database.
CREATE TABLE IF NOT EXISTS tenure_leases (
    namespace BLOB    NOT NULL,
    name      BLOB    NOT NULL,
    writes    INTEGER NOT NULL,     -- with the nonce: the record's version
    clock     TEXT    NOT NULL,     -- boot id and time namespace that `written` belongs to
    written   INTEGER NOT NULL,     -- when the holder last wrote it, in ns of that clock
    mark      TEXT,                 -- side file whose free lock proves the holder's process dead
    -- What every renewal writes anew; it stands for the record's own fields of these names.
    nonce      BLOB    NOT NULL,    -- 16 bytes
    ttl        INTEGER NOT NULL,    -- ms
    not_before INTEGER NOT NULL,    -- ms
    record    BLOB    NOT NULL,     -- JSON
    PRIMARY KEY (namespace, name)
) STRICT;
