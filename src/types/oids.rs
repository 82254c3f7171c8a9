//! What one server calls the users' types, and what the home shard calls them.
//!
//! A type that users make has another oid on each server. Clients know those of the home shard, where
//! they look types up: a [`Mapping`] puts one in place of the other, also within binary values, which
//! name the types of their parts (`array_send`, `record_send`). Nothing changes its length by it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::oid::FIRST_USER;

/// Built-in types whose binary values name types or tables.
const RECORD: u32 = 2249;
const RECORD_ARRAY: u32 = 2287;
const ANY_ARRAY: u32 = 2277;
const REGCLASS: u32 = 2205;
const REGTYPE: u32 = 2206;
const REGCLASS_ARRAY: u32 = 2210;
const REGTYPE_ARRAY: u32 = 2211;

/// Values within values that are looked into.
const DEPTH_MAX: u32 = 200;

type Map<V> = HashMap<u32, V, FixedState>;

/// A name that a type or a table has on every server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    pub schema: String,
    /// Of an array, that of its elements' type: PostgreSQL chooses an array's name as it is free.
    pub name: String,
    pub array: bool,
}

impl Name {
    /// As one writes it.
    fn shown(&self) -> String {
        let array = if self.array { "[]" } else { "" };
        format!("{}.{}{array}", self.schema, self.name)
    }
}

/// What a binary value of a type consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing that names a type: a base type's, an enum's.
    Plain,
    Array,
    Composite,
    /// Bounds of this type.
    Range(u32),
    /// Ranges with bounds of this type.
    Multirange(u32),
    /// That of this type.
    Domain(u32),
    /// The oid of a type, and of a table.
    Type,
    Relation,
}

impl Form {
    /// Of a built-in type: of those only a few name others than built-in ones.
    fn of_built_in(oid: u32) -> Form {
        match oid {
            RECORD => Form::Composite,
            RECORD_ARRAY | ANY_ARRAY | REGCLASS_ARRAY | REGTYPE_ARRAY => Form::Array,
            REGTYPE => Form::Type,
            REGCLASS => Form::Relation,
            _ => Form::Plain,
        }
    }

    /// Whether it is the same but for what oids are called.
    fn is_like(self, other: Form) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// The types and tables of users on one server.
#[derive(Clone, Debug, Default)]
pub struct Types {
    by_name: BTreeMap<Name, (u32, Form)>,
    names: Map<Name>,
    relations: BTreeMap<(String, String), u32>,
    /// Whether texts compare by their bytes there, where a column says nothing else.
    pub sorts_by_bytes: bool,
}

impl Types {
    /// Adds a type.
    pub fn insert(&mut self, name: Name, oid: u32, form: Form) {
        self.names.insert(oid, name.clone());
        self.by_name.insert(name, (oid, form));
    }

    /// Adds a table, a view or a sequence.
    pub fn insert_relation(&mut self, schema: &str, name: &str, oid: u32) {
        let name = (schema.to_owned(), name.to_owned());
        self.relations.insert(name, oid);
    }

    fn form(&self, oid: u32) -> Option<Form> {
        if oid < FIRST_USER {
            return Some(Form::of_built_in(oid));
        }
        let name = self.names.get(&oid)?;
        self.by_name.get(name).map(|(_, form)| *form)
    }

    fn shown(&self, oid: u32) -> Option<String> {
        self.names.get(&oid).map(Name::shown)
    }
}

/// Into whose oids a message is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToHome,
    ToShard,
}

/// Why a message cannot be put into the other's oids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// This oid stands for nothing that is known on both.
    Oid(u32, Way),
    /// A value has too many values within values.
    TooDeep,
}

/// The oids of one shard against those of the home shard.
#[derive(Debug)]
pub struct Mapping {
    shard: String,
    home: Arc<Types>,
    own: Arc<Types>,
    to_home: Map<u32>,
    to_shard: Map<u32>,
    relations_to_home: Map<u32>,
    relations_to_shard: Map<u32>,
    /// Whether no type of both is called differently: values need no look.
    pub alike: bool,
}

impl Mapping {
    /// That of a shard, from what is on it and on the home shard.
    pub fn new(shard: &str, home: Arc<Types>, own: Arc<Types>) -> Mapping {
        let mut to_home = Map::default();
        let mut to_shard = Map::default();
        let mut alike = true;
        for (name, (oid, form)) in &own.by_name {
            match home.by_name.get(name) {
                Some((at_home, like)) if form.is_like(*like) => {
                    alike &= at_home == oid;
                    to_home.insert(*oid, *at_home);
                    to_shard.insert(*at_home, *oid);
                }
                Some(_) | None => {}
            }
        }
        let mut relations_to_home = Map::default();
        let mut relations_to_shard = Map::default();
        for (name, oid) in &own.relations {
            if let Some(at_home) = home.relations.get(name) {
                relations_to_home.insert(*oid, *at_home);
                relations_to_shard.insert(*at_home, *oid);
            }
        }
        Mapping {
            shard: shard.to_owned(),
            home,
            own,
            to_home,
            to_shard,
            relations_to_home,
            relations_to_shard,
            alike,
        }
    }

    /// Whether texts compare by their bytes on the shard, where a column says nothing else.
    pub fn sorts_by_bytes(&self) -> bool {
        self.own.sorts_by_bytes
    }

    /// The shard's name.
    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// The other's oid of a type.
    ///
    /// # Errors
    /// The other has no such type, or none such is known here.
    pub fn type_oid(&self, oid: u32, way: Way) -> Result<u32, Unmapped> {
        if oid < FIRST_USER {
            return Ok(oid);
        }
        let map = match way {
            Way::ToHome => &self.to_home,
            Way::ToShard => &self.to_shard,
        };
        map.get(&oid).copied().ok_or(Unmapped::Oid(oid, way))
    }

    /// The home shard's oid of a table; `None` for one that it has not, as a temporary one.
    pub fn relation_oid(&self, oid: u32, way: Way) -> Option<u32> {
        if oid < FIRST_USER {
            return Some(oid);
        }
        let map = match way {
            Way::ToHome => &self.relations_to_home,
            Way::ToShard => &self.relations_to_shard,
        };
        map.get(&oid).copied()
    }

    /// Whether binary values of a type, as the home shard calls it, name types or tables.
    pub fn embeds(&self, oid: u32) -> bool {
        self.form(oid) != Form::Plain
    }

    /// What a value of a type consists of, as far as it names types; a domain's is that of its type.
    fn form(&self, oid: u32) -> Form {
        self.form_within(oid, 0)
    }

    fn form_within(&self, oid: u32, depth: u32) -> Form {
        if depth > DEPTH_MAX {
            return Form::Plain;
        }
        let depth = depth.saturating_add(1);
        let form = self.home.form(oid).unwrap_or(Form::Plain);
        if let Form::Domain(base) = form {
            return self.form_within(base, depth);
        }
        if let Form::Range(inner) | Form::Multirange(inner) = form {
            let inner = self.form_within(inner, depth);
            return if inner == Form::Plain { inner } else { form };
        }
        form
    }

    /// Puts the oids within a binary value of a type, as the home shard calls it. A value that is not
    /// formed as one of its type is left as it is: whoever reads it says so.
    ///
    /// # Errors
    /// One of them has no counterpart.
    pub fn put(&self, kind: u32, value: &mut [u8], way: Way) -> Result<(), Unmapped> {
        self.put_within(kind, value, way, 0)
    }

    fn put_within(
        &self,
        kind: u32,
        value: &mut [u8],
        way: Way,
        depth: u32,
    ) -> Result<(), Unmapped> {
        if depth > DEPTH_MAX {
            return Err(Unmapped::TooDeep);
        }
        let depth = depth.saturating_add(1);
        match self.form(kind) {
            Form::Plain | Form::Domain(_) => Ok(()),
            Form::Type => {
                let mut rest = Rest(value);
                self.put_type(&mut rest, way).map(drop)
            }
            Form::Relation => self.put_relation(value, way),
            Form::Array => self.put_array(value, way, depth),
            Form::Composite => {
                let mut rest = Rest(value);
                let count = rest.u32().unwrap_or(0);
                for _ in 0..count {
                    let Some(kind) = self.put_type(&mut rest, way)? else {
                        break;
                    };
                    self.put_next(kind, &mut rest, way, depth)?;
                }
                Ok(())
            }
            Form::Range(inner) => self.put_range(inner, value, way, depth),
            Form::Multirange(inner) => {
                let mut rest = Rest(value);
                let count = rest.u32().unwrap_or(0);
                for _ in 0..count {
                    match rest.value() {
                        Some(Some(range)) => self.put_range(inner, range, way, depth)?,
                        Some(None) => {}
                        None => break,
                    }
                }
                Ok(())
            }
        }
    }

    fn put_array(&self, value: &mut [u8], way: Way, depth: u32) -> Result<(), Unmapped> {
        let mut rest = Rest(value);
        let (Some(dimensions), Some(_)) = (rest.u32(), rest.u32()) else {
            return Ok(());
        };
        let Some(kind) = self.put_type(&mut rest, way)? else {
            return Ok(());
        };
        if self.form(kind) == Form::Plain {
            return Ok(());
        }
        for _ in 0..dimensions {
            if rest.u32().is_none() || rest.u32().is_none() {
                return Ok(());
            }
        }
        while !rest.0.is_empty() {
            if !self.put_next(kind, &mut rest, way, depth)? {
                break;
            }
        }
        Ok(())
    }

    fn put_range(
        &self,
        inner: u32,
        value: &mut [u8],
        way: Way,
        depth: u32,
    ) -> Result<(), Unmapped> {
        if let Some((_flags, bounds)) = value.split_first_mut() {
            let mut bounds = Rest(bounds);
            while !bounds.0.is_empty() {
                if !self.put_next(inner, &mut bounds, way, depth)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Puts a value that its length precedes; whether there was one.
    fn put_next(
        &self,
        kind: u32,
        rest: &mut Rest<'_>,
        way: Way,
        depth: u32,
    ) -> Result<bool, Unmapped> {
        match rest.value() {
            Some(Some(value)) => self.put_within(kind, value, way, depth)?,
            Some(None) => {}
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Puts the oid of a type at the front; returns what the home shard calls it.
    fn put_type(&self, rest: &mut Rest<'_>, way: Way) -> Result<Option<u32>, Unmapped> {
        let Some(bytes) = rest.take(4) else {
            return Ok(None);
        };
        let oid = read_u32(bytes);
        let other = self.type_oid(oid, way)?;
        bytes.copy_from_slice(&other.to_be_bytes());
        Ok(Some(match way {
            Way::ToHome => other,
            Way::ToShard => oid,
        }))
    }

    fn put_relation(&self, value: &mut [u8], way: Way) -> Result<(), Unmapped> {
        if value.len() == 4 {
            let oid = read_u32(value);
            let other = self.relation_oid(oid, way);
            let other = other.ok_or(Unmapped::Oid(oid, way))?;
            value.copy_from_slice(&other.to_be_bytes());
        }
        Ok(())
    }

    /// What an oid without a counterpart is called where it comes from; `None` when it is not known there.
    pub fn name_of(&self, oid: u32, way: Way) -> Option<String> {
        match way {
            Way::ToHome => self.own.shown(oid),
            Way::ToShard => self.home.shown(oid),
        }
    }
}

fn read_u32(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// What is still to be looked into of a value.
struct Rest<'a>(&'a mut [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a mut [u8]> {
        if self.0.len() < length {
            return None;
        }
        let (bytes, after) = std::mem::take(&mut self.0).split_at_mut_checked(length)?;
        self.0 = after;
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| read_u32(bytes))
    }

    /// A value that its length precedes: `Some(None)` is NULL, `None` the end.
    #[expect(
        clippy::option_option,
        reason = "NULL is none, and the end is no value"
    )]
    fn value(&mut self) -> Option<Option<&'a mut [u8]>> {
        let length = i32::from_be_bytes(self.u32()?.to_be_bytes());
        match usize::try_from(length) {
            Ok(length) => self.take(length).map(Some),
            Err(_negative) => Some(None),
        }
    }
}

/// What is known of the shards of a database but the home shard.
#[derive(Debug, Default)]
pub struct Oids {
    /// The configuration under which they were read.
    generation: Option<u64>,
    /// Counts the readings.
    pub version: u64,
    home: Option<Arc<Types>>,
    mappings: Vec<Arc<Mapping>>,
}

impl Oids {
    /// What was read under a configuration: the home shard's types, and those of the others. A shard that did
    /// not answer keeps what was known of it under the same configuration, or has no type that is known.
    #[must_use]
    pub fn read(
        &self,
        generation: u64,
        home: Option<Types>,
        others: Vec<(String, Option<Types>)>,
    ) -> Oids {
        let known = self.generation == Some(generation);
        let home = match home {
            Some(home) => Arc::new(home),
            None => self.home.clone().filter(|_| known).unwrap_or_default(),
        };
        let mapping = |(shard, own): (String, Option<Types>)| {
            let before = || Some(Arc::clone(&self.find(&shard).filter(|_| known)?.own));
            let own = own.map(Arc::new).or_else(before);
            let is_read = own.is_some();
            let mut mapping = Mapping::new(&shard, Arc::clone(&home), own.unwrap_or_default());
            mapping.alike &= is_read;
            Arc::new(mapping)
        };
        Oids {
            generation: Some(generation),
            version: self.version.saturating_add(1),
            mappings: others.into_iter().map(mapping).collect(),
            home: Some(home),
        }
    }

    /// The mapping of a shard, if it was read under this configuration or a later one.
    pub fn of(&self, shard: &str, generation: u64) -> Option<&Arc<Mapping>> {
        (self.generation >= Some(generation)).then(|| self.find(shard))?
    }

    /// Whether the shards were all read, and call every type alike.
    pub fn are_alike(&self, shards: usize) -> bool {
        self.mappings.len() == shards && self.mappings.iter().all(|mapping| mapping.alike)
    }

    /// Whether values of a type may name types: as the home shard calls it. One that is not known may.
    pub fn may_embed(&self, oid: u32) -> bool {
        match &self.home {
            Some(home) => home.form(oid).is_none_or(|form| form != Form::Plain),
            None => oid >= FIRST_USER || Form::of_built_in(oid) != Form::Plain,
        }
    }

    fn find(&self, shard: &str) -> Option<&Arc<Mapping>> {
        self.mappings.iter().find(|mapping| mapping.shard == shard)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Form, Mapping, Name, Types, Unmapped, Way};

    /// Types of one server, numbered from here on.
    fn types(first: u32) -> Arc<Types> {
        let mut types = Types::default();
        let next = |by: u32| first.saturating_add(by);
        let name = |name: &str, array| Name {
            schema: "public".into(),
            name: name.into(),
            array,
        };
        let all = [
            (name("mood", false), Form::Plain),
            (name("mood", true), Form::Array),
            (name("pair", false), Form::Composite),
            (name("pair", true), Form::Array),
            (name("span", false), Form::Range(next(2))),
            (name("spans", false), Form::Multirange(next(2))),
            (name("own", false), Form::Domain(next(1))),
            (name("floats", false), Form::Range(701)),
        ];
        for ((name, form), oid) in all.into_iter().zip(first..) {
            types.insert(name, oid, form);
        }
        types.insert_relation("public", "t", next(100));
        Arc::new(types)
    }

    fn mapping() -> Mapping {
        Mapping::new("b", types(20_000), types(30_000))
    }

    fn numbers(all: &[u32]) -> Vec<u8> {
        all.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    #[test]
    fn values_name_types_of_the_home_shard() {
        let mapping = mapping();
        let check = |kind: u32, home: &[u32], shard: &[u32]| {
            let mut value = numbers(shard);
            mapping.put(kind, &mut value, Way::ToHome).unwrap();
            assert_eq!(value, numbers(home), "{kind}");
            mapping.put(kind, &mut value, Way::ToShard).unwrap();
            assert_eq!(value, numbers(shard), "{kind}");
        };
        // An array of one dimension with a value of four bytes and NULL.
        let array = |kind| [1, 1, kind, 2, 1, 4, 30_000, u32::MAX];
        check(20_001, &array(20_000), &array(30_000));
        check(20_006, &array(20_000), &array(30_000));
        let pair = |kind| [2, kind, 4, 30_000, 23, 4, 30_000];
        check(20_002, &pair(20_000), &pair(30_000));
        check(2249, &pair(20_000), &pair(30_000));
        let pairs = |pair, mood| [1, 0, pair, 1, 1, 28, 2, mood, 4, 30_000, 23, 4, 30_000];
        check(20_003, &pairs(20_002, 20_000), &pairs(30_002, 30_000));
        check(20_007, &[30_000], &[30_000]);
        check(20_000, &[30_000], &[30_000]);
        check(2206, &[20_000], &[30_000]);
        check(2205, &[20_100], &[30_100]);
    }

    #[test]
    fn ranges_name_types_within_their_bounds() {
        let mapping = mapping();
        let range = |mood| {
            let mut range = vec![0x02];
            range.extend(numbers(&[28, 2, mood, 4, 30_000, 23, 4, 30_000]));
            range.extend(numbers(&[12, 1, mood, u32::MAX]));
            range
        };
        let (home, shard) = (range(20_000), range(30_000));
        let mut value = shard.clone();
        mapping.put(20_004, &mut value, Way::ToHome).unwrap();
        assert_eq!(value, home);
        let multirange = |range: &[u8]| {
            let length = u32::try_from(range.len()).unwrap();
            [&numbers(&[1, length]), range].concat()
        };
        let mut value = multirange(&shard);
        mapping.put(20_005, &mut value, Way::ToHome).unwrap();
        assert_eq!(value, multirange(&home));
        assert!(mapping.embeds(20_004) && !mapping.embeds(20_007));
    }

    #[test]
    fn what_is_cut_off_is_left_and_what_is_not_known_is_told() {
        let mapping = mapping();
        let whole = numbers(&[1, 0, 30_002, 1, 1, 28, 2, 30_000, 4, 30_000, 23, 4, 30_000]);
        for kind in [20_000, 20_001, 20_003, 20_004, 20_005, 2205, 2206, 2249, 5] {
            for cut in 0..whole.len() {
                let mut value = whole.get(..cut).unwrap().to_vec();
                // Only that it comes back counts.
                drop(mapping.put(kind, &mut value, Way::ToHome));
                assert_eq!(value.len(), cut);
            }
        }
        let told = mapping.put(20_001, &mut numbers(&[1, 0, 40_000]), Way::ToHome);
        assert_eq!(told, Err(Unmapped::Oid(40_000, Way::ToHome)));
        let mut deep = Vec::new();
        for _ in 0..400 {
            let length = u32::try_from(deep.len()).unwrap();
            deep = [numbers(&[1, 2249, length]), deep].concat();
        }
        let told = mapping.put(2249, &mut deep, Way::ToHome);
        assert_eq!(told, Err(Unmapped::TooDeep));
    }
}
