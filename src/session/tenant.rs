//! The tenant a session is of, and what it may not do for that: the user's, by the configuration, or what
//! the session sets.

use std::rc::Rc;

use crate::error::Fault;
use crate::placement::topology::Topology;
use crate::planner::plan::{Access, Argument, Confined, Effect, Parameter, Statement, Values};
use crate::planner::{self, tenant};
use crate::server::settings::{Settings, of_whole};
use crate::sql::cursor::Cursor;
use crate::sql::scan::{Kind, Lexing, scan};

use super::Session;

/// The tenant of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tenant {
    /// `None`: the session has set one that cannot be told.
    pub(crate) value: Option<Rc<str>>,
}

impl Tenant {
    /// That of a session under these settings; `bound` is the user's own. `None`: it is of no tenant.
    pub(crate) fn of(
        bound: Option<&Rc<str>>,
        settings: &Settings,
        topology: &Topology,
    ) -> Option<Tenant> {
        if let Some(bound) = bound {
            return Some(Tenant {
                value: Some(Rc::clone(bound)),
            });
        }
        let kept = settings.get(topology.tenant()?.setting.as_deref()?)?;
        Some(Tenant {
            value: constant(kept).map(Rc::from),
        })
    }
}

/// The value of a setting that was given as one constant.
fn constant(kept: &str) -> Option<String> {
    let text = kept.as_bytes();
    let tokens = scan(text, Lexing::default()).ok()?;
    let mut cursor = Cursor::new(text, &tokens);
    let kind = cursor.kind()?;
    let value = if matches!(kind, Kind::Word | Kind::Quoted) {
        cursor.name()?
    } else if kind == Kind::Integer {
        let digits = String::from_utf8(cursor.bytes().to_vec()).ok()?;
        cursor.advance();
        // PostgreSQL keeps the number, not its spelling.
        let plain = digits.parse::<u64>().ok()?;
        (plain.to_string() == digits).then_some(digits)?
    } else {
        cursor.string()?
    };
    cursor.is_done().then_some(value)
}

/// The settings of a session at its start, with the one that names its tenant to policies.
///
/// # Errors
/// 42501: it asks for another tenant, or for what a tenant's session must not set.
pub(super) fn at_start(
    settings: Rc<Settings>,
    bound: Option<&str>,
    topology: &Topology,
) -> Result<Rc<Settings>, Fault> {
    let tenancy = topology.tenant();
    let is_tenant = bound.is_some() || Tenant::of(None, &settings, topology).is_some();
    if is_tenant
        && let Some((name, _)) = settings.iter().find(|(name, _)| !tenant::is_settable(name))
    {
        return Err(tenant::fixed(name));
    }
    let Some(bound) = bound else {
        return Ok(settings);
    };
    let Some(tenancy) = tenancy else {
        return Err(tenant::no_tenancy());
    };
    let Some(setting) = &tenancy.setting else {
        return Ok(settings);
    };
    match settings.get(setting).map(constant) {
        Some(asked) if asked.as_deref() != Some(bound) => Err(tenant::fixed(setting)),
        Some(_) => Ok(settings),
        None => Ok(settings.with(setting, &of_whole(setting, bound))),
    }
}

impl Session {
    /// Whether what follows is a tenant's.
    pub(crate) fn is_tenant(&mut self) -> bool {
        self.facts().tenant.is_some()
    }

    /// The tenant's value, for what is checked row by row.
    pub(crate) fn tenant_value(&self) -> Option<Rc<str>> {
        let facts = self.facts.as_ref()?;
        facts.tenant.as_ref()?.value.clone()
    }

    /// Whether a session of a tenant may run a statement with these values.
    ///
    /// # Errors
    /// 42501.
    pub(crate) fn check_tenant(
        &self,
        statement: &Statement,
        values: &dyn Values,
    ) -> Result<(), Fault> {
        if let Some(tenancy) = self.database.topology.tenant()
            && let Some(setting) = &tenancy.setting
        {
            self.check_setting(setting, &statement.effect, values)?;
        }
        let Some(confined) = &statement.confined else {
            return Ok(());
        };
        let tenant = self.facts.as_ref().and_then(|facts| facts.tenant.as_ref());
        self.check_confined(statement, confined, tenant, values)
    }

    /// The same under a tenant that is not that of the session as it is.
    pub(crate) fn check_confined(
        &self,
        statement: &Statement,
        confined: &[Confined],
        tenant: Option<&Tenant>,
        values: &dyn Values,
    ) -> Result<(), Fault> {
        if self.tenant_unsure && statement.has_tables {
            return Err(tenant::unsure());
        }
        if let Effect::SetConfig { name, .. } = &statement.effect {
            let is_settable = told(name, values)
                .is_some_and(|name| tenant::is_settable(&name.to_ascii_lowercase()));
            if !is_settable {
                return Err(tenant::fixed("role"));
            }
        }
        if confined.is_empty() && !matches!(statement.access, Access::CopySplit(_)) {
            return Ok(());
        }
        let Some(value) = tenant.and_then(|tenant| tenant.value.as_deref()) else {
            let tenancy = self.database.topology.tenant();
            let setting = tenancy.and_then(|tenancy| tenancy.setting.as_deref());
            return Err(tenant::unknown_tenant(setting.unwrap_or_default()));
        };
        tenant::check(confined, value, values)
    }

    /// The setting that names the tenant is not changed for a user's own tenant, nor unseen.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other effect sets anything"
    )]
    fn check_setting(
        &self,
        setting: &str,
        effect: &Effect,
        values: &dyn Values,
    ) -> Result<(), Fault> {
        let new = match effect {
            Effect::Set { name, value, .. } if name == setting => constant(value),
            Effect::SetConfig { name, value, local } => match told(name, values) {
                Some(name) if name.to_ascii_lowercase() != setting => return Ok(()),
                name => {
                    let known = name.is_some() && told(local, values).is_some();
                    told(value, values).filter(|_| known)
                }
            },
            Effect::Pin(reason) if planner::sets_unseen(reason) => None,
            _ => return Ok(()),
        };
        match (&self.tenant, new) {
            (Some(own), Some(new)) if *new == **own => Ok(()),
            (Some(_), _) => Err(tenant::fixed(setting)),
            (None, Some(_)) => Ok(()),
            (None, None) => Err(tenant::unknown_tenant(setting)),
        }
    }

    /// Notes that code or temporary relations may mean what is not seen from here.
    pub(crate) fn doubt_tenant(&mut self, reason: &str) {
        self.tenant_unsure |=
            self.database.topology.tenant().is_some() && planner::makes_unseen(reason);
    }

    /// A user's own tenant is as the configuration says.
    pub(crate) fn follow_tenant(&mut self, tenant: Option<&str>) {
        self.tenant = tenant.map(Rc::from);
        self.facts = None;
    }
}

/// The value of an argument at hand.
fn told(argument: &Argument, values: &dyn Values) -> Option<String> {
    const TEXTS: [u32; 4] = [0, 19, 25, 1043];
    match argument {
        Argument::Literal(value) => Some(value.clone()),
        Argument::Parameter(index) => {
            let Parameter { value, binary, oid } = values.parameter(*index)?;
            match value? {
                [flag] if binary && oid == 16 => Some((*flag != 0).to_string()),
                text if !binary || TEXTS.contains(&oid) => String::from_utf8(text.to_vec()).ok(),
                _ => None,
            }
        }
        Argument::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::constant;

    #[test]
    fn a_tenant_is_one_constant() {
        let check = |kept: &str, expect: Option<&str>| {
            assert_eq!(constant(kept).as_deref(), expect, "{kept}");
        };
        check("'42'", Some("42"));
        check("42", Some("42"));
        check("Acme", Some("acme"));
        check("\"Acme\"", Some("Acme"));
        check("E'a\\\\b'", Some("a\\b"));
        check("''", Some(""));
        for unknown in [
            "042", "4.2", "-42", "'4', '2'", "0x2a", "", "'a' 'b'", "U&'a'",
        ] {
            check(unknown, None);
        }
    }
}
