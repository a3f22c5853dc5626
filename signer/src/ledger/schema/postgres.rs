//! What is in a PostgreSQL database. The columns are those of [`super::sqlite`], which says what they mean.

/// Each brings the database from the version of its index to the next. Never changed, only added to.
pub(in crate::ledger) const MIGRATIONS: [&str; 2] = [TABLES, FREE];

const FREE: &str = "DROP TRIGGER signed_for_ever ON transactions;
    ALTER TABLE transactions DROP COLUMN managed;
    CREATE TRIGGER signed_for_ever
        BEFORE UPDATE OF raw, hash, signature, signed_at, digest, chain_id, nonce, address, body
        ON transactions FOR EACH ROW WHEN (old.raw IS NOT NULL) EXECUTE FUNCTION keygate_keeps();
    DROP TABLE gaps;
    CREATE TABLE gaps (
        address BYTEA NOT NULL CHECK (length(address) = 20),
        chain_id BIGINT NOT NULL,
        first BIGINT NOT NULL,
        last BIGINT NOT NULL CHECK (last >= first),
        PRIMARY KEY (address, chain_id, last)
    );
    DELETE FROM nonces;
    ALTER TABLE nonces ADD COLUMN used BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE nonces ADD COLUMN doubted_at BIGINT;
    INSERT INTO nonces (address, chain_id, next, used)
        SELECT t.address, t.chain_id, max(t.nonce) + 1,
               coalesce(max(CASE WHEN s.state IN ('confirmed', 'replaced') THEN t.nonce + 1 END), 0)
        FROM transactions t LEFT JOIN sends s ON s.request = t.id
        WHERE t.address IS NOT NULL AND t.nonce >= 0 AND t.nonce < 1::bigint << 62 GROUP BY t.address, t.chain_id;
    INSERT INTO gaps (address, chain_id, first, last)
        SELECT address, chain_id, before + 1, nonce - 1 FROM
            (SELECT address, chain_id, nonce,
                    lag(nonce, 1, -1::bigint) OVER (PARTITION BY address, chain_id ORDER BY nonce) AS before
             FROM transactions WHERE address IS NOT NULL AND nonce >= 0 AND nonce < 1::bigint << 62) AS taken
        WHERE nonce > before + 1;
    ALTER TABLE sends ADD COLUMN replaced_by BYTEA CHECK (length(replaced_by) = 32);
    ALTER TABLE approvals ADD COLUMN expires_at BIGINT NOT NULL DEFAULT 0;
    UPDATE approvals SET expires_at = asked_at + 86400000;
    ALTER TABLE approvals ADD COLUMN replaces BIGINT;";

const TABLES: &str = "
    CREATE TABLE transactions (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        caller TEXT NOT NULL,
        key TEXT NOT NULL,
        address BYTEA CHECK (length(address) = 20),
        idempotency_key TEXT NOT NULL,
        digest BYTEA NOT NULL CHECK (length(digest) = 32),
        chain_id BIGINT NOT NULL CHECK (chain_id > 0),
        nonce BIGINT NOT NULL,
        managed BIGINT NOT NULL,
        send BIGINT NOT NULL,
        body TEXT,
        policy TEXT NOT NULL,
        value BYTEA NOT NULL CHECK (length(value) = 32),
        created_at BIGINT NOT NULL,
        signed_at BIGINT,
        raw BYTEA,
        hash BYTEA CHECK (length(hash) = 32),
        signature BYTEA CHECK (length(signature) = 65),
        UNIQUE (caller, key, idempotency_key),
        CHECK ((raw IS NULL) = (hash IS NULL) AND (raw IS NULL) = (signature IS NULL)
           AND (raw IS NULL) = (signed_at IS NULL))
    );
    CREATE INDEX by_address ON transactions (caller, address, idempotency_key);
    CREATE INDEX by_nonce ON transactions (address, chain_id, nonce);
    CREATE INDEX unfinished ON transactions (id) WHERE raw IS NULL;
    CREATE TABLE spends (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        request BIGINT,
        policy TEXT NOT NULL,
        address BYTEA CHECK (length(address) = 20),
        chain_id BIGINT NOT NULL,
        asset BYTEA NOT NULL CHECK (length(asset) IN (0, 20)),
        amount BYTEA NOT NULL CHECK (length(amount) = 32),
        total BYTEA NOT NULL CHECK (length(total) = 40),
        counted_at BIGINT NOT NULL
    );
    CREATE INDEX spending_of ON spends (policy, address, chain_id, asset, counted_at, id);
    CREATE INDEX spends_of ON spends (request);
    CREATE TABLE nonces (
        address BYTEA NOT NULL CHECK (length(address) = 20),
        chain_id BIGINT NOT NULL,
        next BIGINT NOT NULL,
        PRIMARY KEY (address, chain_id)
    );
    CREATE TABLE gaps (
        address BYTEA NOT NULL CHECK (length(address) = 20),
        chain_id BIGINT NOT NULL,
        nonce BIGINT NOT NULL,
        PRIMARY KEY (address, chain_id, nonce)
    );
    CREATE TABLE approvals (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        caller TEXT NOT NULL,
        key TEXT NOT NULL,
        address BYTEA NOT NULL CHECK (length(address) = 20),
        idempotency_key TEXT NOT NULL,
        digest BYTEA NOT NULL CHECK (length(digest) = 32),
        chain_id BIGINT NOT NULL,
        policy TEXT NOT NULL,
        rule TEXT NOT NULL,
        body TEXT NOT NULL,
        asked_at BIGINT NOT NULL,
        decided_at BIGINT,
        decided_by TEXT,
        approved BIGINT,
        UNIQUE (caller, address, idempotency_key)
    );
    CREATE TABLE sends (
        request BIGINT PRIMARY KEY,
        state TEXT NOT NULL,
        attempts BIGINT NOT NULL DEFAULT 0,
        first_sent_at BIGINT,
        last_sent_at BIGINT,
        block BIGINT,
        succeeded BIGINT,
        note TEXT
    );
    CREATE INDEX sends_by_state ON sends (state);
    CREATE TABLE statements (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        caller TEXT NOT NULL,
        key TEXT NOT NULL,
        address BYTEA NOT NULL CHECK (length(address) = 20),
        policy TEXT NOT NULL,
        kind TEXT NOT NULL,
        digest BYTEA NOT NULL CHECK (length(digest) = 32),
        content BYTEA NOT NULL,
        signature BYTEA NOT NULL CHECK (length(signature) = 65),
        signed_at BIGINT NOT NULL
    );
    CREATE TABLE audit (
        seq BIGINT PRIMARY KEY,
        entry TEXT NOT NULL,
        hash BYTEA NOT NULL CHECK (length(hash) = 32)
    );
    CREATE FUNCTION keygate_keeps() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'what was signed or audited neither changes nor goes'; END $$;
    CREATE TRIGGER signed_for_ever
        BEFORE UPDATE OF raw, hash, signature, signed_at, digest, chain_id, nonce, address, body, managed
        ON transactions FOR EACH ROW WHEN (old.raw IS NOT NULL) EXECUTE FUNCTION keygate_keeps();
    CREATE TRIGGER signed_is_kept BEFORE DELETE ON transactions
        FOR EACH ROW WHEN (old.raw IS NOT NULL) EXECUTE FUNCTION keygate_keeps();
    CREATE TRIGGER said_for_ever BEFORE UPDATE OR DELETE ON statements
        FOR EACH ROW EXECUTE FUNCTION keygate_keeps();
    CREATE TRIGGER audit_for_ever BEFORE UPDATE OR DELETE ON audit
        FOR EACH ROW EXECUTE FUNCTION keygate_keeps();
    CREATE TRIGGER audit_is_whole BEFORE TRUNCATE ON audit EXECUTE FUNCTION keygate_keeps();
    CREATE TRIGGER signed_is_whole BEFORE TRUNCATE ON transactions EXECUTE FUNCTION keygate_keeps();
    CREATE TRIGGER said_is_whole BEFORE TRUNCATE ON statements EXECUTE FUNCTION keygate_keeps();";
