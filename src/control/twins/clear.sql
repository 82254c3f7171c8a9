-- Drops everything that a twin holds, so that a schema can be loaded into it as into a new database.
DO $clear$
DECLARE
    sources text[] := ARRAY[
        $$SELECT format('DROP EVENT TRIGGER IF EXISTS %I', evtname) FROM pg_catalog.pg_event_trigger$$,
        $$SELECT format('DROP PUBLICATION IF EXISTS %I', pubname) FROM pg_catalog.pg_publication$$,
        $$SELECT format('DROP EXTENSION IF EXISTS %I CASCADE', extname)
          FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql'$$,
        $$SELECT format('DROP FOREIGN DATA WRAPPER IF EXISTS %I CASCADE', fdwname)
          FROM pg_catalog.pg_foreign_data_wrapper$$,
        $$SELECT format('DROP SCHEMA IF EXISTS %I CASCADE', nspname)
          FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'$$,
        $$SELECT format('DROP CAST IF EXISTS (%s AS %s) CASCADE',
                        castsource::pg_catalog.regtype, casttarget::pg_catalog.regtype)
          FROM pg_catalog.pg_cast WHERE oid >= 16384$$,
        $$SELECT format('DROP TRANSFORM IF EXISTS FOR %s LANGUAGE %I CASCADE',
                        t.trftype::pg_catalog.regtype, l.lanname)
          FROM pg_catalog.pg_transform t JOIN pg_catalog.pg_language l ON l.oid = t.trflang$$,
        $$SELECT format('DROP LANGUAGE IF EXISTS %I CASCADE', lanname)
          FROM pg_catalog.pg_language WHERE oid >= 16384$$,
        $$SELECT format('DROP ACCESS METHOD IF EXISTS %I CASCADE', amname)
          FROM pg_catalog.pg_am WHERE oid >= 16384$$
    ];
    source text;
    commands text[];
    command text;
BEGIN
    FOREACH source IN ARRAY sources LOOP
        EXECUTE format('SELECT array_agg(x) FROM (%s) s (x)', source) INTO commands;
        FOREACH command IN ARRAY COALESCE(commands, '{}') LOOP
            EXECUTE command;
        END LOOP;
    END LOOP;
END $clear$;
