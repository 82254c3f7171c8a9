//! What a twin takes from the home shard's database beside its schema: how it is created, who owns it, and
//! what is set for it and for roles in it.

use crate::control::pool::{Connection, column};
use crate::error::Fault;
use crate::sql::quote::{quote_ident, quote_literal};

/// How the database is created, without its name: encoding, locale and who provides it. What older
/// versions lack is read past its name.
const CREATION: &str = "
    SELECT concat(
        format(' TEMPLATE template0 ENCODING %L', pg_encoding_to_char(d.encoding)),
        format(' LC_COLLATE %L LC_CTYPE %L', d.datcollate, d.datctype),
        CASE j ->> 'datlocprovider'
            WHEN 'i' THEN format(' LOCALE_PROVIDER icu ICU_LOCALE %L', COALESCE(j ->> 'datlocale', j ->> 'daticulocale'))
                          || COALESCE(format(' ICU_RULES %L', NULLIF(j ->> 'daticurules', '')), '')
            WHEN 'b' THEN format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', j ->> 'datlocale')
            ELSE '' END)
    FROM pg_catalog.pg_database d, to_jsonb(d) j
    WHERE d.datname = current_database()";

/// Which database it is, among those of all servers.
const IDENTITY: &str = "
    SELECT concat(s.system_identifier, '/', d.oid)
    FROM pg_catalog.pg_database d, pg_control_system() s WHERE d.datname = current_database()";

/// Commands for its owner, its rights and its limit; `$1` is the twin's database.
const DATABASE: &str = "
    WITH d AS (SELECT * FROM pg_catalog.pg_database WHERE datname = current_database())
    SELECT format('ALTER DATABASE %I OWNER TO %I', $1::text, pg_get_userbyid(datdba)) FROM d
    UNION ALL
    SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', $1, greatest(datconnlimit, -1)) FROM d
    UNION ALL
    SELECT format('GRANT %s ON DATABASE %I TO %s', a.privilege_type, $1,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
    FROM d, aclexplode(COALESCE(d.datacl, acldefault('d', d.datdba))) a";

/// Commands for the owner and the rights of the schema public, which pg_dump takes for granted; none
/// where there is none.
const PUBLIC: &str = "
    WITH n AS (SELECT * FROM pg_catalog.pg_namespace WHERE nspname = 'public')
    SELECT format('ALTER SCHEMA public OWNER TO %I', pg_get_userbyid(nspowner)) FROM n
    UNION ALL
    SELECT 'REVOKE ALL ON SCHEMA public FROM PUBLIC' FROM n
    UNION ALL
    SELECT format('GRANT %s ON SCHEMA public TO %s', a.privilege_type,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
    FROM n, aclexplode(COALESCE(n.nspacl, acldefault('n', n.nspowner))) a";

/// What is set for the database, and for roles in it.
const SETTINGS: &str = "
    SELECT r.rolname::text, split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
    FROM pg_catalog.pg_db_role_setting s
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
    CROSS JOIN unnest(s.setconfig) c
    WHERE s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    ORDER BY 1 NULLS FIRST, 2";

/// The roles that something in the database names; the first superuser owns what nobody else does.
const ROLES: &str = "
    SELECT r.rolname::text FROM pg_catalog.pg_roles r
    WHERE r.oid = 10
       OR r.oid IN (SELECT d.refobjid FROM pg_catalog.pg_shdepend d
                    JOIN pg_catalog.pg_database b ON b.datname = current_database()
                    WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass
                      AND (d.dbid = b.oid OR d.dbid = 0 AND d.objid = b.oid
                           AND d.classid = 'pg_catalog.pg_database'::regclass))
       OR r.oid IN (SELECT s.setrole FROM pg_catalog.pg_db_role_setting s
                    JOIN pg_catalog.pg_database b ON b.oid = s.setdatabase
                    WHERE b.datname = current_database())
    ORDER BY 1";

/// Settings whose value is a list of names, kept as it was written.
const LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Home {
    /// Its server's version, as in `150004`.
    pub(super) version: u32,
    pub(super) identity: String,
    creation: String,
    /// Commands; `None` without a schema public.
    pub(super) public: Option<String>,
    settings: Vec<Setting>,
    pub(super) roles: Vec<String>,
}

#[derive(Debug)]
struct Setting {
    role: Option<String>,
    name: String,
    value: String,
}

impl Home {
    /// Reads it.
    ///
    /// # Cancel safety
    /// Safe: the answers are dropped.
    pub(super) async fn read(connection: &mut Connection<'_>) -> Result<Home, Fault> {
        let version = "SELECT current_setting('server_version_num')::int8";
        let rows = connection.rows(version, &[]).await?;
        let mut home = Home {
            version: u32::try_from(column::<i64>(rows.first(), 0)?).unwrap_or_default(),
            ..Home::default()
        };
        home.identity = column(connection.rows(IDENTITY, &[]).await?.first(), 0)?;
        home.creation = column(connection.rows(CREATION, &[]).await?.first(), 0)?;
        let mut public = Vec::new();
        for row in &connection.rows(PUBLIC, &[]).await? {
            public.push(column::<String>(Some(row), 0)?);
        }
        home.public = (!public.is_empty()).then(|| public.join(";\n") + ";\n");
        for row in &connection.rows(SETTINGS, &[]).await? {
            home.settings.push(Setting {
                role: column(Some(row), 0)?,
                name: column(Some(row), 1)?,
                value: column(Some(row), 2)?,
            });
        }
        for row in &connection.rows(ROLES, &[]).await? {
            home.roles.push(column(Some(row), 0)?);
        }
        Ok(home)
    }

    /// The command that creates a twin's database.
    pub(super) fn create(&self, dbname: &str) -> String {
        format!("CREATE DATABASE {}{}", quote_ident(dbname), self.creation)
    }

    /// The commands that make its owner, rights and settings those of the home database.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub(super) async fn database(
        &self,
        connection: &mut Connection<'_>,
        dbname: &str,
    ) -> Result<String, Fault> {
        let mut commands = String::new();
        for row in &connection.rows(DATABASE, &[&dbname]).await? {
            commands += column::<&str>(Some(row), 0)?;
            commands += ";\n";
        }
        for setting in &self.settings {
            let of = match &setting.role {
                None => format!("DATABASE {}", quote_ident(dbname)),
                Some(role) => format!(
                    "ROLE {} IN DATABASE {}",
                    quote_ident(role),
                    quote_ident(dbname)
                ),
            };
            let parts: Vec<String> = setting.name.split('.').map(quote_ident).collect();
            let command = format!(
                "ALTER {of} SET {} TO {};\n",
                parts.join("."),
                setting.written()
            );
            commands.push_str(&command);
        }
        Ok(commands)
    }
}

impl Setting {
    /// The value as SQL: of a list, each of its names by itself.
    fn written(&self) -> String {
        if !LISTS.contains(&self.name.as_str()) {
            return quote_literal(&self.value);
        }
        let names: Vec<String> = names(&self.value)
            .iter()
            .map(|name| quote_literal(name))
            .collect();
        if names.is_empty() {
            return "''".to_owned();
        }
        names.join(", ")
    }
}

/// The names of a list, in double quotes or not.
fn names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut chars = list.trim().chars().peekable();
    while chars.peek().is_some() {
        let mut name = String::new();
        let quoted = chars.next_if_eq(&'"').is_some();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.next_if_eq(&'"').is_none() => break,
                ',' if !quoted => {
                    names.push(std::mem::take(&mut name));
                    break;
                }
                c if c.is_whitespace() && !quoted => (),
                c => name.push(c),
            }
        }
        if quoted || !name.is_empty() {
            names.push(name);
        }
        while chars.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{Setting, names};

    #[test]
    fn lists_of_names_are_cut() {
        for (list, expect) in [
            ("", &[][..]),
            ("\"\"", &[""]),
            ("\"$user\", public", &["$user", "public"]),
            ("a,b , \"c\"\"d, e\"", &["a", "b", "c\"d, e"]),
            ("a;drop/**/x", &["a;drop/**/x"]),
        ] {
            assert_eq!(names(list), expect, "{list}");
        }
    }

    #[test]
    fn settings_are_written_as_sql() {
        let written = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), value.to_owned());
            let setting = Setting {
                role: None,
                name,
                value,
            };
            setting.written()
        };
        assert_eq!(written("search_path", "\"$user\", x"), "'$user', 'x'");
        assert_eq!(written("search_path", ""), "''");
        assert_eq!(written("app.tenant", "a, b"), "'a, b'");
    }
}
