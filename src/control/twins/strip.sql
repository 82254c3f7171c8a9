-- Takes from a twin's tables what would refuse, change or slow down rows that are fetched into them, and
-- lets every role fill and read them. Primary keys stay: GROUP BY and views depend on them.
DO $strip$
DECLARE
    -- Each is run, and its commands carried out, until it has none left or makes no more progress:
    -- what is inherited goes with what it is inherited from.
    sources text[] := ARRAY[
        $$SELECT format('DROP EVENT TRIGGER IF EXISTS %I', evtname) FROM pg_catalog.pg_event_trigger$$,
        $$SELECT format('DROP PUBLICATION IF EXISTS %I', pubname) FROM pg_catalog.pg_publication$$,
        $$SELECT format('DROP USER MAPPING IF EXISTS FOR %s SERVER %I',
                        CASE WHEN umuser = 0 THEN 'PUBLIC' ELSE quote_ident(usename) END, srvname)
          FROM pg_catalog.pg_user_mappings$$,
        $$SELECT format('DROP TRIGGER IF EXISTS %I ON %s', t.tgname, c.name)
          FROM pg_catalog.pg_trigger t JOIN relations c ON c.oid = t.tgrelid
          WHERE NOT t.tgisinternal AND t.tgparentid = 0$$,
        $$SELECT format('DROP RULE IF EXISTS %I ON %s CASCADE', r.rulename, c.name)
          FROM pg_catalog.pg_rewrite r JOIN relations c ON c.oid = r.ev_class
          WHERE c.relkind IN ('r', 'p', 'f') AND r.rulename <> '_RETURN'$$,
        $$SELECT format('DROP POLICY IF EXISTS %I ON %s', p.polname, c.name)
          FROM pg_catalog.pg_policy p JOIN relations c ON c.oid = p.polrelid$$,
        $$SELECT format('ALTER TABLE ONLY %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', name)
          FROM relations WHERE relrowsecurity OR relforcerowsecurity$$,
        $$SELECT format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', c.name, k.conname)
          FROM pg_catalog.pg_constraint k JOIN relations c ON c.oid = k.conrelid
          WHERE k.contype = 'f' AND k.conparentid = 0 AND k.coninhcount = 0$$,
        $$SELECT format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', c.name, k.conname)
          FROM pg_catalog.pg_constraint k JOIN relations c ON c.oid = k.conrelid
          WHERE k.contype IN ('c', 'u', 'x') AND k.conparentid = 0 AND k.coninhcount = 0$$,
        $$SELECT format('DROP INDEX IF EXISTS %s CASCADE', x.indexrelid::pg_catalog.regclass)
          FROM pg_catalog.pg_index x JOIN relations c ON c.oid = x.indrelid
          WHERE NOT x.indisprimary AND c.relkind IN ('r', 'p', 'm')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = x.indexrelid)$$,
        'apart',
        $$SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP EXPRESSION', c.name, a.attname)
          FROM columns a JOIN relations c ON c.oid = a.attrelid
          WHERE a.attgenerated = 's' AND a.attinhcount = 0$$,
        'together',
        $$SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY', c.name, a.attname)
          FROM columns a JOIN relations c ON c.oid = a.attrelid
          WHERE a.attidentity <> '' AND a.attinhcount = 0$$,
        $$SELECT format('ALTER TABLE ONLY %s ALTER COLUMN %I DROP DEFAULT', c.name, a.attname)
          FROM columns a JOIN relations c ON c.oid = a.attrelid
          WHERE a.atthasdef AND a.attgenerated = ''$$,
        $$SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', c.name, a.attname)
          FROM columns a JOIN relations c ON c.oid = a.attrelid
          WHERE a.attnotnull AND a.attidentity = '' AND NOT a.is_key
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h
                            JOIN columns p ON p.attrelid = h.inhparent AND p.attname = a.attname
                            WHERE h.inhrelid = a.attrelid AND p.attnotnull AND NOT p.is_key)$$,
        -- A child's primary key keeps the column from its parent's ALTER TABLE.
        $$SELECT format('ALTER TABLE ONLY %s ALTER COLUMN %I DROP NOT NULL', c.name, a.attname)
          FROM columns a JOIN relations c ON c.oid = a.attrelid
          WHERE a.attnotnull AND a.attidentity = '' AND NOT a.is_key AND c.relkind = 'r'$$,
        -- What is filled and rolled back is vacuumed where it leaves dead rows, and has no statistics but
        -- those that are asked for.
        $$SELECT format('ALTER TABLE ONLY %s SET UNLOGGED, SET (autovacuum_enabled = true, '
                        'autovacuum_analyze_threshold = 2147483647)', name)
          FROM relations WHERE relkind = 'r'
            AND COALESCE('autovacuum_analyze_threshold=2147483647' <> ALL (reloptions), true)$$
    ];
    relations constant text := $$
        relations AS (
            SELECT c.oid, c.relkind, c.reloptions, c.relrowsecurity, c.relforcerowsecurity,
                   c.oid::pg_catalog.regclass::text AS name
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
              AND c.relkind IN ('r', 'p', 'f', 'm', 'v')),
        columns AS (
            SELECT a.attrelid, a.attname, a.attnotnull, a.attidentity, a.attgenerated, a.atthasdef,
                   a.attinhcount,
                   EXISTS (SELECT FROM pg_catalog.pg_index x
                           WHERE x.indrelid = a.attrelid AND x.indisprimary
                             AND a.attnum = ANY ((x.indkey::pg_catalog.int2[])[0:x.indnkeyatts - 1])) AS is_key
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
            WHERE a.attnum > 0 AND NOT a.attisdropped AND c.oid >= 16384 AND c.relkind IN ('r', 'p'))$$;
    source text;
    -- DROP EXPRESSION is refused by some versions for tables that have children and a parent: each of these is
    -- taken from its parent before, and given back.
    between constant text := $$
        SELECT h.inhrelid::pg_catalog.regclass::text AS child, h.inhparent::pg_catalog.regclass::text AS parent,
               pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bound
        FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid
        WHERE c.relkind IN ('r', 'p') AND EXISTS (SELECT FROM pg_catalog.pg_inherits u WHERE u.inhparent = c.oid)
          AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attgenerated = 's' AND NOT a.attisdropped)$$;
    pair record;
    together text[] := '{}';
    commands text[];
    before text[];
    command text;
BEGIN
    FOREACH source IN ARRAY sources LOOP
        IF source = 'apart' THEN
            FOR pair IN EXECUTE between LOOP
                EXECUTE format(CASE WHEN pair.bound IS NULL THEN 'ALTER TABLE %2$s NO INHERIT %1$s'
                               ELSE 'ALTER TABLE %1$s DETACH PARTITION %2$s' END, pair.parent, pair.child);
                together := together
                    || format(CASE WHEN pair.bound IS NULL THEN 'ALTER TABLE %2$s INHERIT %1$s'
                              ELSE 'ALTER TABLE %1$s ATTACH PARTITION %2$s %3$s' END,
                              pair.parent, pair.child, pair.bound);
            END LOOP;
            CONTINUE;
        ELSIF source = 'together' THEN
            FOREACH command IN ARRAY together LOOP
                EXECUTE command;
            END LOOP;
            CONTINUE;
        END IF;
        before := NULL;
        LOOP
            EXECUTE format('WITH %s SELECT array_agg(x) FROM (%s) s (x)', relations, source) INTO commands;
            EXIT WHEN commands IS NULL OR commands = before;
            before := commands;
            FOREACH command IN ARRAY commands LOOP
                BEGIN
                    EXECUTE command;
                EXCEPTION WHEN dependent_objects_still_exist OR invalid_table_definition THEN
                    -- A view that reads an identity's sequence, a key of a child: it stays as it is.
                    NULL;
                END;
            END LOOP;
        END LOOP;
    END LOOP;
    FOR command IN
        SELECT format('GRANT ALL ON TABLE %s TO PUBLIC', c.oid::pg_catalog.regclass)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    LOOP
        EXECUTE command;
    END LOOP;
END $strip$;
