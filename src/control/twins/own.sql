-- What pgherd keeps in a twin for itself.
CREATE SCHEMA pgherd;
COMMENT ON SCHEMA pgherd IS 'What pgherd keeps for itself';
GRANT USAGE ON SCHEMA pgherd TO PUBLIC;
CREATE TABLE pgherd.twin (
    mark text NOT NULL,
    home text NOT NULL,
    made timestamptz NOT NULL DEFAULT pg_catalog.now(),
    schema text NOT NULL,
    form text NOT NULL
);
COMMENT ON TABLE pgherd.twin IS 'What the home shard''s catalogs were marked with when the twin was made';
GRANT SELECT ON pgherd.twin TO PUBLIC;
CREATE FUNCTION pgherd.hold() RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(8100422616390722388) THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT mark FROM pgherd.twin);
END $$;
COMMENT ON FUNCTION pgherd.hold() IS
    'Holds the twin until the end of the transaction and tells its mark; NULL while another holds it';
CREATE FUNCTION pgherd.analyze(regclass) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('ANALYZE %s', $1);
END $$;
CREATE FUNCTION pgherd.index(regclass, text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE INDEX ON %s (%s)', $1,
        (SELECT string_agg(quote_ident(parsed[1]), ', ') FROM unnest($2) t (name), parse_ident(t.name) parsed));
EXCEPTION WHEN OTHERS THEN
    -- A column of a type without an order, or too long a value: the statement runs without.
    NULL;
END $$;
CREATE FUNCTION pgherd.truncate(regclass[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    odd regclass;
BEGIN
    -- A foreign table's rows are another server's, and the mark is pgherd's.
    SELECT c.oid INTO odd
    FROM unnest($1) t (name)
    LEFT JOIN LATERAL (SELECT t.name::oid UNION SELECT relid FROM pg_partition_tree(t.name)) p (oid) ON true
    JOIN pg_class c ON c.oid = p.oid
    WHERE c.relkind NOT IN ('r', 'p') OR c.relnamespace = 'pgherd'::regnamespace
    LIMIT 1;
    IF odd IS NOT NULL THEN
        RAISE wrong_object_type USING MESSAGE = format('"%s" is no table that is filled in a twin', odd);
    END IF;
    IF cardinality($1) > 0 THEN
        EXECUTE (SELECT 'TRUNCATE ' || string_agg(name::text, ', ') FROM unnest($1) t (name));
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION pgherd.hold(), pgherd.analyze(regclass), pgherd.index(regclass, text[]), pgherd.truncate(regclass[]) TO PUBLIC;
CREATE FUNCTION pgherd.now() RETURNS timestamptz LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
    $$BEGIN RETURN current_setting('pgherd.moment')::timestamptz; END$$;
COMMENT ON FUNCTION pgherd.now() IS 'The moment at which the transaction began that a statement is part of';
CREATE FUNCTION pgherd.transaction_timestamp() RETURNS timestamptz LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN pgherd.now(); END$$;
CREATE FUNCTION pgherd."current_timestamp"() RETURNS timestamptz LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN pgherd.now(); END$$;
CREATE FUNCTION pgherd."localtimestamp"() RETURNS timestamp LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN pgherd.now(); END$$;
CREATE FUNCTION pgherd."current_date"() RETURNS date LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN pgherd.now(); END$$;
CREATE FUNCTION pgherd."current_time"() RETURNS timetz LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN pgherd.now(); END$$;
CREATE FUNCTION pgherd."localtime"() RETURNS time LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN pgherd.now(); END$$;
-- What combines the states of parts, as PostgreSQL's parallel workers do: count, sum and sum of the squares of
-- deviations; of two columns, both sums and both sums of squares, and that of the products.
CREATE AGGREGATE pgherd.avg(float8[]) (SFUNC = float8_combine, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_avg);
CREATE AGGREGATE pgherd.var_pop(float8[]) (SFUNC = float8_combine, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_var_pop);
CREATE AGGREGATE pgherd.var_samp(float8[]) (SFUNC = float8_combine, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_var_samp);
CREATE AGGREGATE pgherd.stddev_pop(float8[]) (SFUNC = float8_combine, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_stddev_pop);
CREATE AGGREGATE pgherd.stddev_samp(float8[]) (SFUNC = float8_combine, STYPE = float8[], INITCOND = '{0,0,0}', FINALFUNC = float8_stddev_samp);
CREATE AGGREGATE pgherd.corr(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_corr);
CREATE AGGREGATE pgherd.covar_pop(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_covar_pop);
CREATE AGGREGATE pgherd.covar_samp(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_covar_samp);
CREATE AGGREGATE pgherd.regr_avgx(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_regr_avgx);
CREATE AGGREGATE pgherd.regr_avgy(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_regr_avgy);
CREATE AGGREGATE pgherd.regr_intercept(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_regr_intercept);
CREATE AGGREGATE pgherd.regr_r2(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_regr_r2);
CREATE AGGREGATE pgherd.regr_slope(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_regr_slope);
CREATE AGGREGATE pgherd.regr_sxx(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_regr_sxx);
CREATE AGGREGATE pgherd.regr_sxy(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_regr_sxy);
CREATE AGGREGATE pgherd.regr_syy(float8[]) (SFUNC = float8_regr_combine, STYPE = float8[], INITCOND = '{0,0,0,0,0,0}', FINALFUNC = float8_regr_syy);
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgherd TO PUBLIC;
