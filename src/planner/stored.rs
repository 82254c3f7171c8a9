//! Reads code that is stored in the database: which tables its text may mean, what it calls, and what it
//! does besides.
//!
//! Every name in a body that could mean a table counts as one, in whatever schema: too much is refused
//! rather than too little found. Code that makes up SQL while it runs, or that is written in a language
//! that is not read here, is [`Code::opaque`].

use std::collections::BTreeMap;

use crate::placement::catalog::{Catalog, View};
use crate::placement::code::{Cast, Code, Volatility, spellings};
use crate::planner::functions;
use crate::planner::literals::may_mean_moment;
use crate::planner::unlike;
use crate::sql::Numbering;
use crate::sql::cursor::word_name;
use crate::sql::parse;
use crate::sql::scan::{self, Kind, Lexing, Token};
use crate::sql::split::split;
use crate::sql::statement::Block;

/// A function, procedure or aggregate as the catalogs have it.
#[derive(Clone, Debug, Default)]
pub struct Function {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub volatility: Volatility,
    /// Whether it is an aggregate or a window function.
    pub gathers: bool,
    pub language: String,
    /// Whether an extension brought it.
    pub extension: bool,
    /// Whether PostgreSQL has functions of its name, too.
    pub shared: bool,
    /// Its body, and the defaults of its arguments.
    pub text: String,
    /// The functions that it is made of, where it is an aggregate.
    pub parts: Vec<u32>,
}

/// Something that runs a function without naming it.
#[derive(Clone, Debug)]
pub enum Runner {
    Operator {
        symbol: String,
    },
    Cast {
        types: [String; 2],
        oids: [u32; 2],
        implicit: bool,
    },
}

/// What a table runs when it is written, else read.
#[derive(Clone, Debug)]
pub struct Expression {
    pub schema: String,
    pub table: String,
    pub written: bool,
    /// Whether it is a trigger or a rule; what others work out (defaults, checks, expressions of
    /// indexes) counts for the tables that it touches only.
    pub acts: bool,
    pub text: String,
}

/// A view as the catalogs have it.
#[derive(Clone, Debug, Default)]
pub struct ViewText {
    pub schema: String,
    pub name: String,
    pub is_materialized: bool,
    /// The query, its names with their schemas.
    pub text: String,
    /// The tables and views in it, as (schema, name).
    pub reads: Vec<(String, String)>,
}

/// The code that a database stores.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub functions: Vec<Function>,
    /// With the function's number.
    pub runners: Vec<(Runner, u32)>,
    /// Domains whose values are checked: name, number, expression.
    pub domains: Vec<(String, u32, String)>,
    pub expressions: Vec<Expression>,
    pub views: Vec<ViewText>,
}

/// What a text calls.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Called {
    Function(Option<String>, String),
    Operator(String),
    /// A type that something is perhaps cast to.
    Type(String),
}

/// Works out what stored code may do, with all that it calls, and adds it to the tables it belongs to.
pub fn settle(catalog: &mut Catalog, stored: &Stored) {
    let codes = closed(catalog, stored);
    for (function, code) in stored.functions.iter().zip(&codes) {
        let routines = &mut catalog.routines;
        routines.insert(&function.schema, &function.name, code);
        if function.shared {
            routines.share(&function.name);
        }
    }
    let oids = stored.functions.iter().map(|function| function.oid);
    let by_oid: BTreeMap<u32, Code> = oids.zip(codes).collect();
    for (runner, function) in &stored.runners {
        let Some(code) = by_oid.get(function) else {
            continue;
        };
        match runner {
            Runner::Operator { symbol } => catalog.routines.insert_operator(symbol, code),
            Runner::Cast {
                types,
                oids,
                implicit,
            } => catalog.routines.insert_cast(Cast {
                types: types.clone(),
                oids: *oids,
                implicit: *implicit,
                code: code.clone(),
            }),
        }
    }
    for (name, oid, text) in &stored.domains {
        let code = of_expression(catalog, text);
        catalog.routines.insert_cast(Cast {
            types: [name.clone(), name.clone()],
            oids: [*oid, *oid],
            implicit: true,
            code,
        });
    }
    for expression in &stored.expressions {
        let code = if expression.acts {
            of_text(catalog, expression.text.as_bytes(), Lexing::default())
        } else {
            Code {
                unlike: false,
                sequences: false,
                ..of_expression(catalog, &expression.text)
            }
        };
        let name = (expression.schema.as_str(), expression.table.as_str());
        if expression.acts && expression.written {
            catalog.act(name);
        }
        if !code.is_apart() || code.unlike {
            catalog.runs(name, expression.written, &code);
        }
    }
    for view in &stored.views {
        let read = View {
            definition: view.text.clone(),
            is_materialized: view.is_materialized,
            reads: view.reads.clone(),
            block: (!view.is_materialized)
                .then(|| query(view.text.as_bytes()))
                .flatten(),
            code: of_view(catalog, &view.text),
        };
        catalog.insert_view(&view.schema, &view.name, read);
    }
}

/// The query of a view, if it is read.
fn query(text: &[u8]) -> Option<Block> {
    let tokens = scan::scan(text, Lexing::default()).ok()?;
    let statement = split(&tokens, text).into_iter().next()?;
    parse::parse(statement, text, &Numbering::none()).ok()
}

/// What each function may do, in their order.
fn closed(catalog: &Catalog, stored: &Stored) -> Vec<Code> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut by_oid: BTreeMap<u32, usize> = BTreeMap::new();
    for (at, function) in stored.functions.iter().enumerate() {
        by_name.entry(&function.name).or_default().push(at);
        by_oid.insert(function.oid, at);
    }
    let mut by_symbol: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut by_type: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (runner, oid) in &stored.runners {
        let Some(&at) = by_oid.get(oid) else {
            continue;
        };
        match runner {
            Runner::Operator { symbol } => by_symbol.entry(symbol).or_default().push(at),
            Runner::Cast { types, .. } => {
                for name in types.iter().flat_map(|name| spellings(name)) {
                    by_type.entry(name).or_default().push(at);
                }
            }
        }
    }
    let known = |called: &Called| match called {
        Called::Function(_, name) => by_name.get(name.as_str()),
        Called::Operator(symbol) => by_symbol.get(symbol.as_str()),
        Called::Type(name) => by_type.get(name.as_str()),
    };
    let mut codes = Vec::with_capacity(stored.functions.len());
    let mut edges: Vec<Vec<usize>> = Vec::with_capacity(stored.functions.len());
    for function in &stored.functions {
        let mut called: Vec<usize> = function
            .parts
            .iter()
            .filter_map(|oid| by_oid.get(oid).copied())
            .collect();
        let own = of_function(catalog, function, &mut |what| {
            let Some(found) = known(&what) else {
                return false;
            };
            // One of its schema, if there is one: else the qualifier was something else.
            let is_of = |at: usize, schema: &str| {
                let other = stored.functions.get(at);
                other.is_some_and(|other| other.schema == schema)
            };
            let schema = match &what {
                Called::Function(Some(schema), _) => {
                    found.iter().any(|&at| is_of(at, schema)).then_some(schema)
                }
                Called::Function(None, _) | Called::Operator(_) | Called::Type(_) => None,
            };
            let meant = |at: &usize| schema.is_none_or(|schema| is_of(*at, schema));
            called.extend(found.iter().copied().filter(meant));
            true
        });
        called.sort_unstable();
        called.dedup();
        codes.push(own);
        edges.push(called);
    }
    // What calls something does what that does; a round more for each step between them.
    loop {
        let mut changed = false;
        for (at, called) in edges.iter().enumerate() {
            let Some(before) = codes.get(at) else {
                continue;
            };
            let mut after = before.clone();
            for other in called.iter().filter_map(|other| codes.get(*other)) {
                let gathers = after.gathers;
                after.add(other);
                // A function whose body has an aggregate is none.
                after.gathers = gathers;
            }
            if after != *before {
                changed = true;
                if let Some(code) = codes.get_mut(at) {
                    *code = after;
                }
            }
        }
        if !changed {
            return codes;
        }
    }
}

fn of_function(
    catalog: &Catalog,
    function: &Function,
    called: &mut dyn FnMut(Called) -> bool,
) -> Code {
    let declared = Code {
        volatility: function.volatility,
        gathers: function.gathers,
        ..Code::default()
    };
    let name = &function.name;
    if functions::runs_sql(name) {
        return Code {
            opaque: Some(format!("function \"{name}\" runs SQL that it is given")),
            ..declared
        };
    }
    match function.language.as_str() {
        "sql" | "plpgsql" => {
            let reader = Reader {
                catalog,
                volatility: function.volatility,
            };
            let mut code = reader.read(function.text.as_bytes(), Lexing::default(), called);
            code.opaque = code
                .opaque
                .map(|what| format!("function \"{name}\" {what}"));
            Code {
                gathers: function.gathers,
                ..code
            }
        }
        "internal" => declared,
        "c" if function.extension => declared,
        // It promises to read no table.
        _ if function.volatility == Volatility::Immutable => declared,
        language => Code {
            opaque: Some(format!(
                "function \"{name}\" is written in {language}, which is not read here"
            )),
            ..declared
        },
    }
}

/// What running a text may do: the body of a DO, or a statement that nobody parsed.
pub(super) fn of_text(catalog: &Catalog, text: &[u8], lexing: Lexing) -> Code {
    let reader = Reader {
        catalog,
        volatility: Volatility::Volatile,
    };
    reader.with_called(text, lexing)
}

/// What an expression of the catalogs may do, as PostgreSQL writes it out.
pub(super) fn of_expression(catalog: &Catalog, text: &str) -> Code {
    let reader = Reader {
        catalog,
        volatility: Volatility::Immutable,
    };
    reader.with_called(text.as_bytes(), Lexing::default())
}

/// What the query of a view may do besides reading its tables.
fn of_view(catalog: &Catalog, text: &str) -> Code {
    let reader = Reader {
        catalog,
        volatility: Volatility::Stable,
    };
    Code {
        volatility: Volatility::Immutable,
        // Its own are known exactly; what its functions and operators touch counts as well.
        tables: of_calls(catalog, text.as_bytes(), Lexing::default()).tables,
        ..reader.with_called(text.as_bytes(), Lexing::default())
    }
}

/// The same for what tokens call, whatever tables they name themselves.
pub(super) fn of_calls(catalog: &Catalog, text: &[u8], lexing: Lexing) -> Code {
    let mut code = Code::default();
    let reader = Reader {
        catalog,
        volatility: Volatility::Immutable,
    };
    reader.read(text, lexing, &mut |called| {
        reader.known(&called).is_some_and(|found| {
            code.add(&found);
            true
        })
    });
    code
}

struct Reader<'a> {
    catalog: &'a Catalog,
    /// What is declared of the code that is read: what is not volatile writes no table, and what is
    /// immutable answers alike whatever it calls that is not known.
    volatility: Volatility,
}

impl Reader<'_> {
    /// What a text does with all that it calls, by what is known of that.
    fn with_called(&self, text: &[u8], lexing: Lexing) -> Code {
        let mut others = Code::default();
        let mut code = self.read(text, lexing, &mut |called| {
            self.known(&called).is_some_and(|found| {
                others.add(&found);
                true
            })
        });
        code.add(&others);
        code.gathers = false;
        code
    }

    fn known(&self, called: &Called) -> Option<Code> {
        let routines = &self.catalog.routines;
        match called {
            Called::Function(schema, name) => routines.any_function(schema.as_deref(), name),
            Called::Operator(symbol) => routines.operator(symbol).cloned(),
            Called::Type(name) => {
                let mut casts = routines.casts().iter().filter(|cast| cast.is_said(name));
                let mut code = casts.next()?.code.clone();
                casts.for_each(|cast| code.add(&cast.code));
                Some(code)
            }
        }
    }

    /// What a text does by itself. `called` is told of what it may call, and says whether that is known.
    fn read(&self, text: &[u8], lexing: Lexing, called: &mut dyn FnMut(Called) -> bool) -> Code {
        let mut code = Code {
            volatility: self.volatility,
            ..Code::default()
        };
        let Ok(tokens) = scan::scan(text, lexing) else {
            code.opaque = Some("has a text that cannot be read with certainty".to_owned());
            return code;
        };
        let mut strange = false;
        let mut all_written = false;
        for at in 0..tokens.len() {
            let place = Place {
                text,
                tokens: &tokens,
                at,
            };
            let Some(token) = place.token(0) else {
                continue;
            };
            match token.kind {
                Kind::Word | Kind::Quoted => {
                    all_written |= place.locks_or_lists();
                    self.name(place, &mut code, &mut strange, called);
                }
                Kind::UnicodeName => {
                    let what = "has a name with Unicode escapes".to_owned();
                    code.opaque.get_or_insert(what);
                }
                Kind::Operator => {
                    if let Ok(symbol) = std::str::from_utf8(token.of(text)) {
                        called(Called::Operator(symbol.to_owned()));
                    }
                }
                Kind::Text
                | Kind::TextPieces
                | Kind::Escaped
                | Kind::UnicodeText
                | Kind::National
                | Kind::Dollar => code.unlike |= may_mean_moment(token, text),
                Kind::Bits
                | Kind::Integer
                | Kind::Decimal
                | Kind::Parameter
                | Kind::OpenParen
                | Kind::CloseParen
                | Kind::OpenBracket
                | Kind::CloseBracket
                | Kind::Comma
                | Kind::Semicolon
                | Kind::Dot
                | Kind::DotDot
                | Kind::Colon
                | Kind::DoubleColon
                | Kind::ColonEquals
                | Kind::Comment
                | Kind::Other => (),
            }
        }
        code.unlike |= strange && self.volatility != Volatility::Immutable;
        for written in code.tables.values_mut() {
            *written |= all_written;
            *written &= self.volatility == Volatility::Volatile;
        }
        code
    }

    fn name(
        &self,
        place: Place<'_>,
        code: &mut Code,
        strange: &mut bool,
        called: &mut dyn FnMut(Called) -> bool,
    ) {
        let Some(name) = place.name(0) else {
            return;
        };
        let is_word = place.is(0, Kind::Word);
        let qualifier = if place.is(-1, Kind::Dot) {
            place.name(-2)
        } else {
            None
        };
        let schema = qualifier
            .as_deref()
            .filter(|schema| is_system(schema) || self.catalog.has_schema(schema));
        if is_word && qualifier.is_none() {
            let made_up = name == "execute" && !place.word(1, &["function", "procedure", "on"]);
            if made_up {
                let what = "runs SQL that it makes up".to_owned();
                code.opaque.get_or_insert(what);
            }
            let channel = place.is(1, Kind::Word) || place.is(1, Kind::Quoted);
            code.notifies |= name == "notify" && channel;
        }
        self.table(place, &name, schema, qualifier.is_some(), code);
        let calls = place.is(1, Kind::OpenParen);
        if calls || qualifier.is_some() {
            let whole = Called::Function(schema.map(str::to_owned), name.clone());
            if called(whole) {
                return;
            }
        }
        called(Called::Type(name.clone()));
        if is_word && qualifier.is_none() && unlike::is_call(&name) {
            code.unlike = true;
        }
        let built_in = calls && (qualifier.is_none() || schema.is_some());
        if !built_in {
            return;
        }
        match name.as_str() {
            "nextval" | "setval" | "currval" | "lastval" => {
                code.sequences = true;
                code.unlike = true;
            }
            "pg_notify" => code.notifies = true,
            name if functions::runs_sql(name) => {
                code.opaque
                    .get_or_insert(format!("calls {name}, which runs SQL"));
            }
            name if functions::is_of_server(name) => code.unlike = true,
            name => *strange |= !(functions::is_alike(name) || unlike::is_keyword(name)),
        }
    }

    /// Notes the tables that a name may mean.
    fn table(
        &self,
        place: Place<'_>,
        name: &str,
        schema: Option<&str>,
        is_qualified: bool,
        code: &mut Code,
    ) {
        if is_qualified && schema.is_none() {
            // A column, or a field.
            return;
        }
        if !is_qualified && place.is(1, Kind::Dot) {
            return;
        }
        let is_type = place.is_operator(1, b"%") && place.word(2, &["rowtype", "type"]);
        if is_type {
            return;
        }
        if schema.is_some_and(is_system) {
            let known = schema.and_then(|schema| self.catalog.table(schema, name));
            code.catalogs |= known.is_some();
            return;
        }
        let written = place.is_written(if is_qualified { 2 } else { 0 });
        let schemas: Vec<&str> = match schema {
            Some(schema) => self
                .catalog
                .table(schema, name)
                .map(|_| schema)
                .into_iter()
                .collect(),
            None => self.catalog.schemas_of(name).collect(),
        };
        for schema in schemas {
            if is_system(schema) {
                code.catalogs |= schema == "pg_catalog";
                continue;
            }
            let table = (schema.to_owned(), name.to_owned());
            *code.tables.entry(table).or_default() |= written;
        }
    }
}

fn is_system(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema")
}

/// A token and those around it.
#[derive(Clone, Copy)]
struct Place<'a> {
    text: &'a [u8],
    tokens: &'a [Token],
    at: usize,
}

impl Place<'_> {
    fn token(&self, offset: isize) -> Option<Token> {
        let at = self.at.checked_add_signed(offset)?;
        self.tokens.get(at).copied()
    }

    fn is(&self, offset: isize, kind: Kind) -> bool {
        self.token(offset).is_some_and(|token| token.kind == kind)
    }

    fn is_operator(&self, offset: isize, operator: &[u8]) -> bool {
        self.token(offset)
            .is_some_and(|token| token.kind == Kind::Operator && token.of(self.text) == operator)
    }

    fn name(&self, offset: isize) -> Option<String> {
        word_name(self.token(offset)?, self.text)
    }

    fn word(&self, offset: isize, words: &[&str]) -> bool {
        self.token(offset).is_some_and(|token| {
            let bytes = token.of(self.text);
            token.kind == Kind::Word
                && words
                    .iter()
                    .any(|word| bytes.eq_ignore_ascii_case(word.as_bytes()))
        })
    }

    /// Whether the words before a name say that its table is written; `length` tokens belong to the
    /// name's qualifier.
    fn is_written(&self, length: isize) -> bool {
        const BEFORE: [&str; 9] = [
            "into", "update", "table", "exists", "truncate", "copy", "lock", "on", "to",
        ];
        let mut before = -1 - length;
        if self.word(before, &["only"]) {
            before -= 1;
        }
        self.word(before, &BEFORE)
            || self.word(before, &["from"]) && self.word(before - 1, &["delete"])
    }

    /// Whether this word means that any table that is named may be written or locked.
    fn locks_or_lists(&self) -> bool {
        self.word(0, &["truncate", "lock", "drop"])
            || self.word(0, &["update", "share"]) && self.word(-1, &["for", "key"])
    }
}
