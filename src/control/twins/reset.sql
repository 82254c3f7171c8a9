-- Takes back what is set for a twin's database and for roles in it, and what roles may do with it.
DO $reset$
DECLARE
    commands text[];
    command text;
BEGIN
    SELECT array_agg(x) INTO commands FROM (
        SELECT CASE s.setrole WHEN 0 THEN format('ALTER DATABASE %I RESET ALL', d.datname)
                    ELSE format('ALTER ROLE %I IN DATABASE %I RESET ALL', r.rolname, d.datname) END
        FROM pg_catalog.pg_db_role_setting s
        JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
        LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
        WHERE d.datname = current_database() AND (s.setrole = 0 OR r.oid IS NOT NULL)
        UNION ALL
        SELECT DISTINCT format('REVOKE ALL ON DATABASE %I FROM %s', d.datname,
                               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
        FROM pg_catalog.pg_database d, aclexplode(COALESCE(d.datacl, acldefault('d', d.datdba))) a
        WHERE d.datname = current_database() AND a.grantee <> d.datdba
    ) s (x);
    FOREACH command IN ARRAY COALESCE(commands, '{}') LOOP
        EXECUTE command;
    END LOOP;
END $reset$;
